package cli

import (
	"github.com/spf13/cobra"
)

func buildUndo(a *app, cmd *cobra.Command) {
	var as string
	cmd.Use += " [OPTIONS] [NAME|ID...]"
	cmd.Args = a.arguments(0, -1)
	cmd.Flags().StringVar(&as, "name", "", "Restore it under this name, as when another has taken the old one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			args = []string{""} // what was removed last
		}
		return a.restore(cmd, args, as)
	}
}
