package cli

import (
	"strconv"
	"strings"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

var trashCommands = [...]command{
	{name: "empty", short: "Remove what is in the trash for good", build: buildTrashEmpty},
	{name: "ls", aliases: []string{"list"}, short: "List what can be restored", build: buildTrashLs},
	{name: "restore", short: "Bring back what was removed", build: buildTrashRestore},
}

func buildTrashLs(a *app, cmd *cobra.Command) {
	var quiet, whole bool
	var format string
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVar(&format, "format", "", formatUsage)
	f.BoolVarP(&quiet, "quiet", "q", false, "Print numbers only")
	f.BoolVar(&whole, "no-trunc", false, "Do not shorten ids")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		list, err := c.TrashList(cmd.Context(), nil)
		if err != nil {
			return err
		}
		rows := make([]any, len(list))
		for i := range list {
			rows[i] = &trashRow{&list[i], whole}
		}
		if quiet {
			for i := range list {
				a.out.println(list[i].Number)
			}
			return nil
		}
		headers := map[string]string{"Object": "ID", "Damaged": "DAMAGED", "RemovedAt": "REMOVED AT", "ExpiresAt": "EXPIRES AT", "Bytes": "BYTES"}
		for _, c := range trashColumns {
			headers[c.method] = c.header
		}
		return a.printRows(format, trashColumns[:], headers, rows, whole)
	}
}

var trashColumns = [...]column{
	{"ID", "TRASH ID"}, {"Kind", "KIND"}, {"Name", "NAME"}, {"Object", "OBJECT ID"}, {"Size", "SIZE"}, {"Removed", "REMOVED"}, {"By", "BY"},
	{"Expires", "EXPIRES"},
}

// trashRow is one thing in the trash.
type trashRow struct {
	t     *client.Trashed
	whole bool
}

func (*trashRow) isRow() {}

func (r *trashRow) ID() string { return strconv.Itoa(r.t.Number) }
func (r *trashRow) Kind() string {
	if r.t.Damaged != "" {
		return "damaged"
	}
	return r.t.Kind
}
func (r *trashRow) Name() string { return r.t.Name }
func (r *trashRow) Object() string {
	if r.whole {
		return r.t.ID
	}
	return shortID(r.t.ID)
}
func (r *trashRow) Size() string {
	if r.t.Size < 0 {
		return "N/A"
	}
	return units.HumanSize(float64(r.t.Size))
}
func (r *trashRow) Bytes() string     { return strconv.FormatInt(r.t.Size, 10) }
func (r *trashRow) Removed() string   { return ago(r.t.Removed, time.Now()) }
func (r *trashRow) RemovedAt() string { return r.t.Removed.Local().Format(time.RFC3339) }
func (r *trashRow) By() string        { return r.t.By }
func (r *trashRow) Damaged() string   { return r.t.Damaged }
func (r *trashRow) ExpiresAt() string { return r.t.Expires.Local().Format(time.RFC3339) }
func (r *trashRow) Expires() string {
	return "in " + strings.ToLower(units.HumanDuration(max(time.Until(r.t.Expires), 0)))
}

func buildTrashRestore(a *app, cmd *cobra.Command) {
	var as string
	cmd.Use += " [OPTIONS] NAME|ID [NAME|ID...]"
	cmd.Args = a.arguments(1, -1)
	cmd.Flags().StringVar(&as, "name", "", "Restore it under this name, as when another has taken the old one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.restore(cmd, args, as) }
}

// restore brings back what the names are of, or what was removed last for "".
func (a *app) restore(cmd *cobra.Command, names []string, as string) error {
	if as != "" && len(names) > 1 {
		return errdef.Invalid("--name is for one thing at a time")
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	return a.each(names, func(name string) error {
		list, err := c.TrashRestore(cmd.Context(), name, as)
		for _, r := range list {
			if r.Failed != "" {
				if err != nil {
					a.complain(err)
				}
				err = errdef.Conflict("%s %s: %s", r.Kind, r.Name, r.Failed)
				continue
			}
			a.out.println(restoredLine(&r))
			for _, n := range r.Notes {
				a.err.println("note: " + n)
			}
		}
		return err
	})
}

// restoredLine says what came back.
func restoredLine(r *client.Restored) string {
	line := "Restored " + r.Kind
	if r.Name != "" {
		line += " " + r.Name
	}
	if r.ID != "" {
		line += " (" + shortID(r.ID) + ")"
	}
	return line
}

func buildTrashEmpty(a *app, cmd *cobra.Command) {
	var force bool
	r := &removal{a: a}
	cmd.Use += " [OPTIONS] [NAME|ID...]"
	cmd.Args = a.arguments(0, -1)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	r.planFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		if err := r.check(); err != nil {
			return err
		}
		if r.dry {
			list, err := c.TrashList(cmd.Context(), args)
			if err != nil {
				return err
			}
			return a.printPlan(r.format, trashPlan(list))
		}
		if !force && len(args) == 0 {
			ok, err := a.confirm("WARNING! This will remove everything in the trash for good.\nAre you sure you want to continue?")
			if err != nil {
				return err
			}
			if !ok {
				return errdef.Invalid("emptying the trash has been cancelled")
			}
		}
		gone, err := c.TrashEmpty(cmd.Context(), args)
		if err != nil {
			return err
		}
		p := trashPlan(gone)
		for _, i := range p.Items {
			a.out.println("Removed for good: " + i.Name)
		}
		a.out.println("Total reclaimed space: " + units.HumanSize(float64(p.SpaceReclaimed)))
		return nil
	}
}

// trashPlan is what emptying the trash of the list would remove.
func trashPlan(list []client.Trashed) *client.Plan {
	p := new(client.Plan)
	for _, t := range list {
		name := strings.TrimSpace(t.Kind + " " + t.Name)
		if t.Damaged != "" {
			name = "damaged " + strconv.Itoa(t.Number)
		}
		i := client.PlanItem{Kind: "trash", ID: t.ID, Name: name, Size: max(t.Size, 0)}
		p.Items = append(p.Items, i)
		p.SpaceReclaimed += i.Size
	}
	return p
}
