package cli

import (
	"errors"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildRmi(a *app, cmd *cobra.Command) {
	var o client.ImageRemoveOptions
	cmd.Use += " [OPTIONS] IMAGE [IMAGE...]"
	cmd.Args = a.arguments(1, -1)
	f := cmd.Flags()
	f.BoolVarP(&o.Force, "force", "f", false, "Remove it although stopped containers use it or it has several names")
	f.BoolVar(&o.NoPrune, "no-prune", false, "Leave untagged parents")
	f.StringSliceVar(&o.Platforms, "platform", nil, "Remove only this platform's variant, os/arch[/variant]")
	r := a.removalFlags(f, &o.Removal)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		absent := func(err error) bool { return o.Force && errors.Is(err, errdef.ErrNotFound) }
		if r.dry {
			var before []string // each name is judged as if those before it were gone
			return r.plan(args, absent, func(ref string) (client.Plan, error) {
				p, err := c.ImageRemoval(cmd.Context(), ref, before, o)
				before = append(before, ref)
				return p, err
			})
		}
		if err := r.begin(args); err != nil {
			return err
		}
		defer r.hint()
		return a.each(args, func(ref string) error {
			gone, saved, err := c.ImageRemove(cmd.Context(), ref, o)
			r.saved(saved)
			for _, d := range gone {
				if d.Deleted != "" {
					a.out.println("Deleted: " + d.Deleted)
				} else {
					a.out.println("Untagged: " + d.Untagged)
				}
			}
			if absent(err) {
				a.complain(err)
				return nil
			}
			return err
		})
	}
}
