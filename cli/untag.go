package cli

import "github.com/spf13/cobra"

func buildUntag(a *app, cmd *cobra.Command) {
	cmd.Use += " IMAGE [NAME[:TAG]...]"
	cmd.Long = "Take names away from an image, all of its names if none are given. The image stays, also without a name: hull rmi\n" +
		"removes it, and hull image rollback brings a name back."
	cmd.Args = a.arguments(1, -1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		gone, err := c.ImageUntag(cmd.Context(), args[0], args[1:])
		for _, name := range gone {
			a.out.println("Untagged: " + name)
		}
		return err
	}
}
