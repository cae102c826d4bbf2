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
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(ref string) error {
			gone, err := c.ImageRemove(cmd.Context(), ref, o)
			for _, d := range gone {
				if d.Deleted != "" {
					a.out.println("Deleted: " + d.Deleted)
				} else {
					a.out.println("Untagged: " + d.Untagged)
				}
			}
			if o.Force && errors.Is(err, errdef.ErrNotFound) {
				a.complain(err)
				return nil
			}
			return err
		})
	}
}
