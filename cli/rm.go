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
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		remove := together(args, func(name string) error { return c.ContainerRemove(cmd.Context(), name, o) })
		return a.each(args, func(name string) error {
			err := remove(name)
			switch {
			case err == nil:
				a.out.println(name)
			case o.Force && errors.Is(err, errdef.ErrNotFound):
				a.complain(err) // as with Docker: said, and no failure
				return nil
			}
			return err
		})
	}
}
