package cli

import (
	"context"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

// buildEventBoot is what a unit of systemd runs when the machine has booted.
func buildEventBoot(a *app, cmd *cobra.Command) {
	a.outcomes(cmd, "started", (*client.Client).EventBoot)
}

// buildEventShutdown is what it runs before the machine goes down.
func buildEventShutdown(a *app, cmd *cobra.Command) {
	a.outcomes(cmd, "stopped", (*client.Client).EventShutdown)
}

// outcomes prints what became of each container, for the log of the system.
func (a *app) outcomes(cmd *cobra.Command, did string, call func(*client.Client, context.Context) ([]client.Outcome, error)) {
	cmd.Args = a.arguments(0, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		list, err := call(c, cmd.Context())
		if err != nil {
			return err
		}
		failed := false
		for _, o := range list {
			if o.Error != "" {
				a.complain(errdef.Unavailable("container %s was not %s: %s", o.Name, did, o.Error))
				failed = true
				continue
			}
			a.out.println(did + " " + o.Name)
		}
		if failed {
			return exit(1)
		}
		return nil
	}
}
