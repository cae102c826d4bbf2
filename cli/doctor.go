package cli

import (
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildDoctor(a *app, cmd *cobra.Command) {
	cmd.Args = a.arguments(0, 0)
	cmd.RunE = func(*cobra.Command, []string) error { return errdef.NotImplemented("doctor is not here yet") }
}
