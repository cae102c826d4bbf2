package cli

import "github.com/spf13/cobra"

// buildEventExit is what a monitor runs when a container ended and nobody was there to act on it.
func buildEventExit(a *app, cmd *cobra.Command) {
	cmd.Use += " ID"
	cmd.Args = a.arguments(1, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return c.EventExit(cmd.Context(), args[0])
	}
}
