package cli

import "github.com/spf13/cobra"

func buildRename(a *app, cmd *cobra.Command) {
	cmd.Use += " CONTAINER NEW_NAME"
	cmd.Args = a.arguments(2, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return c.ContainerRename(cmd.Context(), args[0], args[1])
	}
}
