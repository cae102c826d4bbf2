package cli

import (
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildWait(a *app, cmd *cobra.Command) {
	cmd.Use += " CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			w, err := c.ContainerWait(cmd.Context(), name, container.WaitConditionNotRunning)
			if err != nil {
				return err
			}
			r, err := w.Status()
			if err != nil {
				return err
			}
			if r.Error != nil && r.Error.Message != "" {
				return errors.New(r.Error.Message)
			}
			a.out.println(r.StatusCode)
			return nil
		})
	}
}
