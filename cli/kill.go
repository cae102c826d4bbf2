package cli

import "github.com/spf13/cobra"

func buildKill(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	signal := cmd.Flags().StringP("signal", "s", "", "Signal to send (default SIGKILL)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.eachPrinted(args, together(args, func(name string) error { return c.ContainerKill(cmd.Context(), name, *signal) }))
	}
}
