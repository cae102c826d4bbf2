package cli

import "github.com/spf13/cobra"

func buildRestart(a *app, cmd *cobra.Command) {
	o := stopFlags(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.eachPrinted(args, together(args, func(name string) error { return c.ContainerRestart(cmd.Context(), name, o(cmd)) }))
	}
}
