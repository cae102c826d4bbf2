package cli

import (
	"context"

	"hull/client"

	"github.com/spf13/cobra"
)

func buildPause(a *app, cmd *cobra.Command) {
	a.buildEach(cmd, (*client.Client).ContainerPause)
}

func buildUnpause(a *app, cmd *cobra.Command) {
	a.buildEach(cmd, (*client.Client).ContainerUnpause)
}

// buildEach makes a command without flags of its own that does one thing to each container named, and prints the names.
func (a *app) buildEach(cmd *cobra.Command, do func(c *client.Client, ctx context.Context, name string) error) {
	cmd.Use += " CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.eachPrinted(args, together(args, func(name string) error { return do(c, cmd.Context(), name) }))
	}
}
