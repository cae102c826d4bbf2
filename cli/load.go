package cli

import (
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildLoad(a *app, cmd *cobra.Command) {
	var file, platform string
	var quiet bool
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVarP(&file, "input", "i", "", "Read this file instead of stdin")
	f.StringVar(&platform, "platform", "", "Load only this platform's variant, os/arch[/variant]")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print nothing about the work")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" && a.screen.isTerminal() {
			return hint(errdef.Invalid("requested load from stdin, but stdin is empty"), "Name a file with -i, or send one to stdin.")
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		in, err := a.input(file)
		if err != nil {
			return err
		}
		defer in.Close()
		p := a.newProgress(quiet)
		m, err := c.ImageLoad(cmd.Context(), p.upload(in), quiet || !p.live, platform)
		if err != nil {
			p.done()
			return err
		}
		return p.show(m)
	}
}
