package cli

import (
	"strings"

	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildBuilderPrune(a *app, cmd *cobra.Command) {
	o := new(pruneOptions)
	var all bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.Var(&o.filter, "filter", "Remove only what matches (until=24h, unused-for=24h)")
	f.BoolVarP(&o.force, "force", "f", false, "Do not ask")
	f.BoolVarP(&all, "all", "a", false, "Remove also what images here were made of")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for k := range o.filter.f {
			if k != "until" && k != "unused-for" {
				return errdef.Invalid("invalid filter '%s'", k)
			}
		}
		warning := "WARNING! This will remove what builds left for the next ones, but for what images here were made of."
		if all {
			warning = "WARNING! This will remove all that builds left for the next ones."
		}
		return a.prune(cmd.Context(), o, warning, nil, func() (pruned, error) {
			c, err := a.engine()
			if err != nil {
				return pruned{}, err
			}
			r, err := c.BuildPrune(cmd.Context(), all, o.filter.f)
			if err != nil {
				return pruned{}, err
			}
			return pruned{list: "Deleted build cache objects:\n" + strings.Join(r.CachesDeleted, "\n"), count: len(r.CachesDeleted), bytes: r.SpaceReclaimed}, nil
		})
	}
}
