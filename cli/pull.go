package cli

import (
	"context"

	"hull/client"
	"hull/errdef"
	"hull/ref"

	"github.com/spf13/cobra"
)

// pullFlags are those of pull.
type pullFlags struct {
	o      client.PullOptions
	all    bool
	quiet  bool
	format string
}

func buildPull(a *app, cmd *cobra.Command) {
	var o pullFlags
	cmd.Use += " [OPTIONS] [ssh://[USER@]HOST[:PORT]/]NAME[:TAG|@DIGEST]"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all-tags", "a", false, "Pull all images of the repository")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the name of the image")
	f.StringVar(&o.o.Platform, "platform", "", "Pull this platform's image, os/arch[/variant]")
	f.BoolVar(&o.o.AllPlatforms, "all-platforms", false, "Pull the images of all platforms there are")
	f.StringVar(&o.format, "format", "", "How to tell of the progress: 'json' is a line of JSON for each message")
	f.Bool("disable-content-trust", true, "Has no effect: content is always verified by digest")
	_ = f.MarkHidden("disable-content-trust") // fails only for a flag that is not there
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, from, err := place(args[0])
		if err != nil {
			return err
		}
		switch {
		case o.all && (r.Tag != "" || r.Digest != ""):
			return errdef.Invalid("tag can't be used with --all-tags/-a")
		case o.o.AllPlatforms && o.o.Platform != "":
			return errdef.Invalid("conflicting options: --platform and --all-platforms")
		}
		t, err := a.newTransfer(a.out, o.quiet, o.format)
		if err != nil {
			return err
		}
		if !o.all && r.Tag == "" && r.Digest == "" {
			r = r.Tagged()
			t.say("Using default tag: " + r.Tag)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		if from != nil {
			err = a.pullFrom(cmd.Context(), c, t, *from, r, o.o)
		} else {
			err = a.pull(cmd.Context(), c, t, r, o.o)
		}
		if err != nil {
			return err
		}
		t.result(r.String())
		return nil
	}
}

// pull brings an image and shows how that goes.
func (a *app) pull(ctx context.Context, c *client.Client, t *transfer, r ref.Ref, o client.PullOptions) error {
	o.Tag = wanted(r)
	auth := a.registryAuth(ctx, c, r)
	o.Auth, o.Auths = auth.Auth, auth.Auths
	m, err := c.ImagePull(ctx, r.Name(), o)
	if err != nil {
		return err
	}
	return t.show(m)
}

// wanted is the tag or digest of r.
func wanted(r ref.Ref) string {
	if r.Digest != "" {
		return string(r.Digest)
	}
	return r.Tag
}
