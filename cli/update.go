package cli

import (
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildUpdate(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	var l limits
	l.add(cmd.Flags())
	restart := cmd.Flags().String("restart", "", "When it is started again: no, on-failure[:N], always, unless-stopped")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().NFlag() == 0 {
			return errdef.Invalid("you must provide one or more flags when using this command")
		}
		var change container.UpdateConfig
		l.set(&change.Resources, cmd.Flags())
		if cmd.Flags().Changed("restart") {
			var err error
			if change.RestartPolicy, err = restartPolicy(*restart); err != nil {
				return err
			}
		}
		return a.update(cmd, args, change)
	}
}

// update prints the names of what was changed.
func (a *app) update(cmd *cobra.Command, names []string, change container.UpdateConfig) error {
	if cmd.Flags().Changed("kernel-memory") {
		a.warn(noKernelMemory)
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	return a.eachPrinted(names, func(name string) error {
		done, err := c.ContainerUpdate(cmd.Context(), name, change)
		for _, w := range done.Warnings {
			a.warn(w)
		}
		return err
	})
}
