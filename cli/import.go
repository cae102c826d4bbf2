package cli

import (
	"io"
	"strings"

	"hull/client"
	"hull/ref"

	"github.com/spf13/cobra"
)

func buildImport(a *app, cmd *cobra.Command) {
	var o client.ImportOptions
	var changes listFlag
	cmd.Use += " [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]"
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
	c, err := a.engine()
	if err != nil {
		return err
	}
	if o.Name != "" {
		if _, err := ref.Parse(o.Name); err != nil {
			return err
		}
	}
	p := a.newProgress(false)
	var in io.Reader // nil: the engine fetches it
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		f, err := a.input(source)
		if err != nil {
			return err
		}
		defer f.Close()
		in = p.upload(f)
	}
	m, err := c.ImageImport(cmd.Context(), in, source, o)
	if err != nil {
		p.done()
		return ofFile(source, err)
	}
	return ofFile(source, p.show(m))
}
