package cli

import (
	"errors"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildRm(a *app, cmd *cobra.Command) {
	var o client.RemoveOptions
	cmd.Use += " [OPTIONS] CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	f := cmd.Flags()
	f.BoolVarP(&o.Force, "force", "f", false, "Kill what is running; what is not there is no failure")
	f.BoolVarP(&o.Link, "link", "l", false, "Remove the link of that name")
	f.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove its anonymous volumes too")
	r := a.removalFlags(f, &o.Removal)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		absent := func(err error) bool { return o.Force && errors.Is(err, errdef.ErrNotFound) } // as with Docker: said, and no failure
		if r.dry {
			return r.plan(args, absent, func(name string) (client.Plan, error) { return c.ContainerRemoval(cmd.Context(), name, o) })
		}
		if err := r.begin(args); err != nil {
			return err
		}
		remove := together(args, func(name string) error {
			saved, err := c.ContainerRemove(cmd.Context(), name, o)
			r.saved(saved)
			return err
		})
		defer r.hint()
		return a.each(args, func(name string) error {
			err := remove(name)
			switch {
			case err == nil:
				a.out.println(name)
			case absent(err):
				a.complain(err)
				return nil
			}
			return err
		})
	}
}
