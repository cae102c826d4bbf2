package cli

import (
	"strings"

	"hull/client"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

func buildVolumeCreate(a *app, cmd *cobra.Command) {
	var o volume.CreateRequest
	var labels, opts mapFlag
	cmd.Use += " [OPTIONS] [VOLUME]"
	cmd.Args = a.arguments(0, 1)
	f := cmd.Flags()
	f.StringVarP(&o.Driver, "driver", "d", "local", "Driver that makes it")
	f.Var(&labels, "label", "Set labels")
	f.VarP(&opts, "opt", "o", "Options of the driver: type=, device=, o=")
	f.StringVar(&o.Name, "name", "", "Name of the volume")
	f.Lookup("name").Hidden = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			o.Name = args[0]
		}
		o.Labels, o.DriverOpts = labels, opts
		c, err := a.engine()
		if err != nil {
			return err
		}
		v, err := c.VolumeCreate(cmd.Context(), o)
		if err != nil {
			return err
		}
		a.out.println(v.Name)
		return nil
	}
}

func buildVolumeInspect(a *app, cmd *cobra.Command) {
	o := inspectFlags(a, cmd)
	o.kind = "volume"
	cmd.Use += " [OPTIONS] VOLUME [VOLUME...]"
}

func buildVolumeLs(a *app, cmd *cobra.Command) {
	var o listing
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	o.flags(f, "dangling=true, label=a=b, name=part, driver=local", "names")
	refusedFlags(f, []refused{{name: "cluster", boolean: true, why: "needs a swarm, which Hull has not"}})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := o.engine(a)
		if err != nil {
			return err
		}
		list, err := c.VolumeList(cmd.Context(), o.filter.f)
		if err != nil {
			return err
		}
		rows := make([]any, len(list.Volumes))
		for i, v := range list.Volumes {
			rows[i] = &volumeRow{v}
		}
		headers := map[string]string{
			"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
			"Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS",
		}
		return o.print(a, volumeColumns[:], headers, rows, func(i int) string { return list.Volumes[i].Name })
	}
}

var volumeColumns = [...]column{{"Driver", "DRIVER"}, {"Name", "VOLUME NAME"}}

// volumeRow has the fields Docker's templates for lists of volumes know.
type volumeRow struct{ v volume.Volume }

func (*volumeRow) isRow() {}

func (r *volumeRow) Name() string             { return r.v.Name }
func (r *volumeRow) Driver() string           { return r.v.Driver }
func (r *volumeRow) Scope() string            { return r.v.Scope }
func (r *volumeRow) Mountpoint() string       { return r.v.Mountpoint }
func (r *volumeRow) Labels() string           { return labelText(r.v.Labels) }
func (r *volumeRow) Label(name string) string { return r.v.Labels[name] }
func (*volumeRow) Group() string              { return "N/A" }
func (*volumeRow) Availability() string       { return "N/A" }
func (*volumeRow) Status() string             { return "N/A" }

func (r *volumeRow) Links() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return knownNumber(r.v.UsageData.RefCount)
}

func (r *volumeRow) Size() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return units.HumanSize(float64(r.v.UsageData.Size))
}

func buildVolumeRm(a *app, cmd *cobra.Command) {
	var o client.VolumeRemoveOptions
	cmd.Use += " [OPTIONS] VOLUME [VOLUME...]"
	cmd.Args = a.arguments(1, -1)
	f := cmd.Flags()
	f.BoolVarP(&o.Force, "force", "f", false, "What is not there is no failure")
	r := a.removalFlags(f, &o.Removal)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		if r.dry {
			never := func(error) bool { return false } // of one that is absent the engine says nothing if told so
			return r.plan(args, never, func(name string) (client.Plan, error) { return c.VolumeRemoval(cmd.Context(), name, o) })
		}
		if err := r.begin(args); err != nil {
			return err
		}
		defer r.hint()
		return a.eachPrinted(args, func(name string) error {
			saved, err := c.VolumeRemove(cmd.Context(), name, o)
			r.saved(saved)
			return err
		})
	}
}

func buildVolumePrune(a *app, cmd *cobra.Command) {
	var o pruneOptions
	var all bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Those with a name of their own too, not only anonymous ones")
	o.flags(f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		warning := "WARNING! This will remove anonymous local volumes not used by at least one container."
		if all {
			warning = "WARNING! This will remove all local volumes not used by at least one container."
			if err := o.filter.Set("all=true"); err != nil {
				return err
			}
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		f := o.filter.f
		return a.prune(cmd.Context(), &o, warning, map[string]client.Filters{"volumes": f}, func() (pruned, error) {
			r, err := c.VolumePrune(cmd.Context(), f)
			return pruned{"Deleted Volumes:\n" + strings.Join(r.VolumesDeleted, "\n"), len(r.VolumesDeleted), r.SpaceReclaimed}, err
		})
	}
}
