package cli

import (
	"hull/client"

	"github.com/spf13/cobra"
)

func buildCommit(a *app, cmd *cobra.Command) {
	var o client.CommitOptions
	var changes listFlag
	var pause, noPause bool
	cmd.Use += " [OPTIONS] CONTAINER [REPOSITORY[:TAG]]"
	cmd.Args = a.arguments(1, 2)
	f := cmd.Flags()
	f.StringVarP(&o.Author, "author", "a", "", "Who made the image (as in \"Ada <ada@example.org>\")")
	f.VarP(&changes, "change", "c", "Apply an instruction of a Dockerfile to the image (CMD, ENV, USER, ...)")
	f.StringVarP(&o.Message, "message", "m", "", "Comment of the image")
	f.BoolVarP(&pause, "pause", "p", true, "Pause the container meanwhile")
	f.BoolVar(&noPause, "no-pause", false, "Let the container run meanwhile")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Changes, o.Running = changes, noPause || !pause
		if len(args) == 2 {
			o.Name = args[1]
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		id, err := c.ContainerCommit(cmd.Context(), args[0], o)
		if err == nil {
			a.out.println(id)
		}
		return err
	}
}
