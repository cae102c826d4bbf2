package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"hull/client"
	"hull/errdef"
	"hull/ref"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
)

func buildStoreCheck(a *app, cmd *cobra.Command) {
	var repair bool
	var format, progress string
	cmd.Use += " [OPTIONS]"
	cmd.Long = "Compare everything in the store with what it should be: blobs with their digests, unpacked layers with their\n" +
		"blobs, images, names and definitions with each other. This reads all of it, and takes as long.\n\n" +
		"The exit status is 1 if something is damaged and not repaired, or could not be checked."
	cmd.Args = a.arguments(0, 0)
	cmd.Flags().BoolVar(&repair, "repair", false, "Fetch, unpack or write anew what is damaged; what was there is put into quarantine")
	cmd.Flags().StringVar(&format, "format", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.Flags().StringVar(&progress, "progress", "auto", "Show on stderr how far it is: 'auto' is on a terminal, 'json' is lines of JSON, 'none' is not at all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		tell, done, err := a.checkProgress(progress)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		o := client.StoreCheckOptions{Repair: repair, Progress: tell}
		if repair {
			o.Auths = a.originAuths(cmd.Context(), c)
		}
		got, err := c.StoreCheck(cmd.Context(), o)
		done()
		if err != nil {
			return err
		}
		if format != "" {
			err = a.printTemplate(format, []any{got})
		} else {
			a.printChecked(got)
		}
		if err == nil && !got.Whole {
			err = exit(1)
		}
		return err
	}
}

func (a *app) printChecked(got client.CheckedStore) {
	for _, d := range got.Damage {
		a.out.printf("%s: %s\n", a.cell(d.Object), a.cell(d.Problem))
		if d.Repaired {
			a.out.println("  repaired")
		} else {
			a.out.println("  " + a.cell(d.Cure))
		}
	}
	if len(got.Damage) == 0 {
		a.out.println("The store is whole.")
	}
}

// checkProgress shows how far a check is, until done.
func (a *app) checkProgress(how string) (tell func(jsonstream.Message), done func(), err error) {
	switch how {
	case "auto":
		p := a.newProgress(false)
		p.live = a.err.terminal
		return p.message, p.done, nil
	case "json":
		return func(m jsonstream.Message) {
			if b, err := json.Marshal(m); err == nil {
				a.err.println(string(b))
			}
		}, func() {}, nil
	case "none":
		return nil, func() {}, nil
	}
	return nil, nil, errdef.Invalid("invalid value %q for --progress: it takes auto, json or none", how)
}

// originAuths are the credentials for all that a repair may fetch from. Nobody has named those registries: the engine
// does, and so only one of this machine gets them.
func (a *app) originAuths(ctx context.Context, c *client.Client) string {
	auths := map[string]registry.AuthConfig{}
	a.addOriginAuths(ctx, c, auths, false)
	return client.EncodeAuths(auths)
}

// addOriginAuths adds the credentials for where blobs of the engine's store came from; with dropped only of those that are
// not there any more.
func (a *app) addOriginAuths(ctx context.Context, c *client.Client, auths map[string]registry.AuthConfig, dropped bool) {
	store := a.credentials()
	if !a.ownEngine() || !store.HasOthers("") {
		return
	}
	names, err := c.RegistryOrigins(ctx, dropped)
	if err != nil {
		if errdef.Kind(err) != errdef.ErrNotImplemented { // another engine fetches nothing
			a.warn(fmt.Sprintf("it is not known which credentials the engine may need: %v", err))
		}
		return
	}
	for _, name := range names {
		if r, err := ref.Parse(name); err == nil {
			a.addAuth(ctx, store, auths, r.Registry)
			a.addMirrorAuths(ctx, c, store, auths, r)
		}
	}
}
