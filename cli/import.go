package cli

import (
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildImport(a *app, cmd *cobra.Command) {
	var o client.ImportOptions
	var changes listFlag
	cmd.Use += " [OPTIONS] FILE|- [REPOSITORY[:TAG]]"
	cmd.Args = a.arguments(1, 2)
	f := cmd.Flags()
	f.VarP(&changes, "change", "c", "Apply an instruction of a Dockerfile to the image (CMD, ENV, USER, ...)")
	f.StringVarP(&o.Message, "message", "m", "", "Comment of the image")
	f.StringVar(&o.Platform, "platform", "", "Platform of the image, os/arch[/variant]")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Changes = changes
		if len(args) == 2 {
			o.Name = args[1]
		}
		return a.importImage(cmd, args[0], o)
	}
}

func (a *app) importImage(cmd *cobra.Command, source string, o client.ImportOptions) error {
	if strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://") {
		return hint(errdef.NotImplemented("import takes a file or stdin, not an address"), "Fetch it first: curl -fL "+source+" | "+a.Name+" import -")
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	in, err := a.input(source)
	if err != nil {
		return err
	}
	defer in.Close()
	p := a.newProgress(false)
	m, err := c.ImageImport(cmd.Context(), p.upload(in), o)
	if err != nil {
		p.done()
		return err
	}
	return p.show(m)
}
