package cli

import (
	"context"

	"hull/client"
	"hull/errdef"
	"hull/ref"

	"github.com/spf13/cobra"
)

func buildPush(a *app, cmd *cobra.Command) {
	var o client.PushOptions
	var all, quiet bool
	var format string
	cmd.Use += " [OPTIONS] [ssh://[USER@]HOST[:PORT]/]NAME[:TAG]"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Push all tags of the repository that are here")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print only the name of the image")
	f.StringVar(&o.Platform, "platform", "", "Push only this platform's image of an index, os/arch[/variant]")
	f.StringVar(&o.Compress, "compress", "", "Compress layers that were made here: 'gzip' (default), 'zstd' or 'none'")
	f.StringVar(&format, "format", "", "How to tell of the progress: 'json' is a line of JSON for each message")
	f.Bool("disable-content-trust", true, "Has no effect: there are no signatures of that kind")
	_ = f.MarkHidden("disable-content-trust") // fails only for a flag that is not there
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, to, err := place(args[0])
		switch {
		case err != nil:
			return err
		case r.Digest != "":
			return errdef.Invalid("cannot push a digest reference")
		case all && r.Tag != "":
			return errdef.Invalid("tag can't be used with --all-tags/-a")
		}
		t, err := a.newTransfer(a.out, quiet, format)
		if err != nil {
			return err
		}
		if !all && r.Tag == "" {
			r = r.Tagged()
			t.say("Using default tag: " + r.Tag)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		auth := a.registryAuths(cmd.Context(), c, r, true)
		o.Tag, o.Auth, o.Auths = r.Tag, auth.Auth, auth.Auths
		if to != nil {
			err = a.pushTo(cmd.Context(), c, t, *to, r, o)
		} else {
			err = a.push(cmd.Context(), c, t, r, o)
		}
		if err != nil {
			return err
		}
		if quiet {
			t.result(r.String())
		}
		return nil
	}
}

// push stores an image at its registry and shows how that goes.
func (a *app) push(ctx context.Context, c *client.Client, t *transfer, r ref.Ref, o client.PushOptions) error {
	m, err := c.ImagePush(ctx, r.Name(), o)
	if err != nil {
		return err
	}
	return t.show(m)
}
