package cli

import (
	"bufio"
	"context"
	"io"
	"maps"
	"strconv"
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pruneOptions are the flags all prunes have.
type pruneOptions struct {
	removal
	force  bool
	filter filterFlag
}

func (o *pruneOptions) flags(f *pflag.FlagSet) {
	f.Var(&o.filter, "filter", "Remove only what matches (label=a=b, ...)")
	f.BoolVarP(&o.force, "force", "f", false, "Do not ask")
	o.planFlags(f)
}

// pruned is what a prune removed.
type pruned struct {
	list  string // lines, with a heading
	count int
	bytes uint64
}

// prune asks the person, unless told not to, calls do, and prints what is gone: or, of a dry run, what would be, of these
// kinds with their filters.
func (a *app) prune(ctx context.Context, o *pruneOptions, warning string, kinds map[string]client.Filters, do func() (pruned, error)) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.dry {
		c, err := a.engine()
		if err != nil {
			return err
		}
		plan, err := c.PrunePlan(ctx, kinds)
		if err != nil {
			return err
		}
		return a.printPlan(o.format, &plan)
	}
	if !o.force {
		ok, err := a.confirm(warning + "\nAre you sure you want to continue?")
		if err != nil {
			return err
		}
		if !ok {
			return errdef.Invalid("prune has been cancelled")
		}
	}
	p, err := do()
	if err != nil {
		return err
	}
	if p.count > 0 {
		a.out.println(p.list + "\n")
	}
	a.out.println("Total reclaimed space: " + units.HumanSize(float64(p.bytes)))
	return nil
}

// confirm asks a question that is answered with y or not at all.
func (a *app) confirm(question string) (bool, error) {
	a.out.printf("%s [y/N] ", question)
	line, err := bufio.NewReader(a.Stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	if err == io.EOF {
		a.out.println() // nobody ended the line
	}
	return strings.EqualFold(strings.TrimSpace(line), "y"), nil
}

func buildContainerPrune(a *app, cmd *cobra.Command) {
	o := new(pruneOptions)
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	o.flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f := o.filter.f
		return a.prune(cmd.Context(), o, "WARNING! This will remove all stopped containers.", map[string]client.Filters{"containers": f}, func() (pruned, error) {
			c, err := a.engine()
			if err != nil {
				return pruned{}, err
			}
			return pruneContainers(cmd.Context(), c, f)
		})
	}
}

func pruneContainers(ctx context.Context, c *client.Client, f client.Filters) (pruned, error) {
	r, err := c.ContainerPrune(ctx, f)
	return containersPruned(r.ContainersDeleted, r.SpaceReclaimed), err
}

func containersPruned(ids []string, bytes uint64) pruned {
	return pruned{list: "Deleted Containers:\n" + strings.Join(ids, "\n"), count: len(ids), bytes: bytes}
}

func buildImagePrune(a *app, cmd *cobra.Command) {
	o := new(pruneOptions)
	var all bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	o.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all images that no container has, not only those without a name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		warning := "WARNING! This will remove all dangling images."
		if all {
			warning = "WARNING! This will remove all images without at least one container associated to them."
		}
		f := danglingUnless(all, o.filter.f)
		return a.prune(cmd.Context(), o, warning, map[string]client.Filters{"images": f}, func() (pruned, error) {
			c, err := a.engine()
			if err != nil {
				return pruned{}, err
			}
			return pruneImages(cmd.Context(), c, f)
		})
	}
}

// danglingUnless adds which images are meant to filters, unless they say so.
func danglingUnless(all bool, f client.Filters) client.Filters {
	f = maps.Clone(f)
	if f == nil {
		f = client.Filters{}
	}
	if all || f["dangling"] == nil {
		f["dangling"] = []string{strconv.FormatBool(!all)}
	}
	return f
}

func pruneImages(ctx context.Context, c *client.Client, f client.Filters) (pruned, error) {
	r, err := c.ImagePrune(ctx, f)
	return imagesPruned(r.ImagesDeleted, r.SpaceReclaimed), err
}

func imagesPruned(list []image.DeleteResponse, bytes uint64) pruned {
	lines := []string{"Deleted Images:"}
	for _, d := range list {
		if d.Untagged != "" {
			lines = append(lines, "untagged: "+d.Untagged)
		} else {
			lines = append(lines, "deleted: "+d.Deleted)
		}
	}
	return pruned{list: strings.Join(lines, "\n"), count: len(list), bytes: bytes}
}

// joinPruned joins what was pruned of several kinds, leaving out those of which there was nothing.
func joinPruned(bytes uint64, parts ...pruned) pruned {
	out := pruned{bytes: bytes}
	var lists []string
	for _, p := range parts {
		if p.count > 0 {
			lists = append(lists, p.list)
		}
		out.count += p.count
		out.bytes += p.bytes
	}
	out.list = strings.Join(lists, "\n\n")
	return out
}

func buildSystemPrune(a *app, cmd *cobra.Command) {
	o := new(pruneOptions)
	var all, volumes bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	o.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all images that no container has, not only those without a name")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Remove anonymous volumes that no container has, too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if volumes && o.filter.f["until"] != nil {
			return errdef.Invalid(`the "until" filter is not supported with "--volumes"`)
		}
		f := o.filter.f
		kinds := map[string]client.Filters{"containers": f, "images": danglingUnless(all, f)}
		if volumes {
			kinds["volumes"] = f
		}
		return a.prune(cmd.Context(), o, systemWarning(all, volumes, f), kinds, func() (pruned, error) {
			c, err := a.engine()
			if err != nil {
				return pruned{}, err
			}
			return pruneSystem(cmd.Context(), c, f, all, volumes)
		})
	}
}

func systemWarning(all, volumes bool, f client.Filters) string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers"}
	if volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if all {
		lines = append(lines, "  - all images without at least one container associated to them")
	} else {
		lines = append(lines, "  - all dangling images")
	}
	if len(f) > 0 {
		lines = append(lines, "", "  Items to be pruned will be filtered with:")
		for _, k := range sortedKeys(f) {
			for _, v := range f[k] {
				lines = append(lines, "  - "+k+"="+v)
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// pruneSystem prunes one kind after the other: with a container goes the last use of its image.
func pruneSystem(ctx context.Context, c *client.Client, f client.Filters, all, volumes bool) (pruned, error) {
	containers, err := pruneContainers(ctx, c, f)
	if err != nil {
		return pruned{}, err
	}
	var data pruned
	if volumes {
		r, err := c.VolumePrune(ctx, f)
		if err != nil {
			return containers, err
		}
		data = pruned{list: "Deleted Volumes:\n" + strings.Join(r.VolumesDeleted, "\n"), count: len(r.VolumesDeleted), bytes: r.SpaceReclaimed}
	}
	images, err := pruneImages(ctx, c, danglingUnless(all, f))
	return joinPruned(0, containers, data, images), err
}
