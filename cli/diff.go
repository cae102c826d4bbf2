package cli

import (
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildDiff(a *app, cmd *cobra.Command) {
	cmd.Use += " CONTAINER"
	cmd.Args = a.arguments(1, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		list, err := c.ContainerDiff(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		for _, change := range list {
			a.out.println(changeLetter(change.Kind), change.Path)
		}
		return nil
	}
}

func changeLetter(k container.ChangeType) string {
	switch k {
	case container.ChangeAdd:
		return "A"
	case container.ChangeDelete:
		return "D"
	}
	return "C"
}
