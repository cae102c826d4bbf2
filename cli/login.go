package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"hull/cli/credentials"
	"hull/client"
	"hull/errdef"
	"hull/ref"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// loginOptions are the flags of login.
type loginOptions struct {
	user, password string
	stdin          bool
}

func buildLogin(a *app, cmd *cobra.Command) {
	var o loginOptions
	cmd.Use += " [OPTIONS] [SERVER]"
	cmd.Long = "Log in to a registry, docker.io unless another is named.\n\nThe credentials are tried first, and then kept where Docker's client keeps them."
	cmd.Args = a.arguments(0, 1)
	f := cmd.Flags()
	f.StringVarP(&o.user, "username", "u", "", "Username")
	f.StringVarP(&o.password, "password", "p", "", "Password or personal access token; others can see it in the list of processes")
	f.BoolVar(&o.stdin, "password-stdin", false, "Take the password from stdin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("password") {
			a.warn("Using --password via the CLI is insecure. Use --password-stdin.")
		}
		server := ""
		if len(args) > 0 {
			server = args[0]
		}
		return a.login(cmd, credentials.Server(server), o)
	}
}

func (a *app) login(cmd *cobra.Command, server string, o loginOptions) error {
	ctx := cmd.Context()
	switch {
	case o.stdin && o.password != "":
		return errdef.Invalid("conflicting options: cannot specify both --password and --password-stdin")
	case o.stdin && o.user == "":
		return errdef.Invalid("the --password-stdin option requires --username to be set")
	}
	store := a.credentials()
	if o.stdin {
		data, err := io.ReadAll(io.LimitReader(a.Stdin, maxSecret))
		if err != nil {
			return plainPathError(err)
		}
		o.password = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	}
	kept, err := store.Login(ctx, server)
	if err != nil && o.user == "" {
		return err
	}
	if o.user == "" && o.password == "" && kept != (credentials.Login{}) {
		done, err := a.loginAgain(ctx, server, kept)
		if done || err != nil {
			return err
		}
	}
	if err := a.askLogin(server, kept.Username, &o); err != nil {
		return err
	}
	return a.loginWith(ctx, store, server, credentials.Login{Username: o.user, Password: o.password})
}

// maxSecret is far more than any password or token.
const maxSecret = 64 << 10

// loginAgain tries what is kept; done is false when a person has to be asked.
func (a *app) loginAgain(ctx context.Context, server string, kept credentials.Login) (done bool, err error) {
	a.err.println("Authenticating with existing credentials...")
	c, err := a.engine()
	if err != nil {
		return false, err
	}
	_, err = c.Auth(ctx, authConfig(server, kept))
	switch {
	case err == nil:
		a.out.println("Login Succeeded")
		return true, nil
	case errors.Is(err, errdef.ErrUnauthorized) && a.screen.isTerminal():
		a.err.printf("Login did not succeed, error: %v\n", err)
		return false, nil
	}
	return false, err
}

// loginWith tries a login and keeps it.
func (a *app) loginWith(ctx context.Context, store *credentials.Store, server string, l credentials.Login) error {
	c, err := a.engine()
	if err != nil {
		return err
	}
	answer, err := c.Auth(ctx, authConfig(server, l))
	if err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		l.Password, l.IdentityToken = "", answer.IdentityToken
	}
	inFile, err := store.Keep(ctx, server, l)
	if err != nil {
		return err
	}
	if inFile {
		a.err.printf("\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", store.Path())
	}
	a.out.println(answer.Status)
	return nil
}

func authConfig(server string, l credentials.Login) registry.AuthConfig {
	if server == "docker.io" {
		server = "https://index.docker.io/v1/" // as Docker's engine knows it
	}
	return registry.AuthConfig{
		Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken, ServerAddress: server,
	}
}

// askLogin asks on the terminal for what the command line left out.
func (a *app) askLogin(server, known string, o *loginOptions) error {
	if o.user != "" && o.password != "" {
		return nil
	}
	if !a.screen.isTerminal() {
		if o.stdin {
			return errdef.Invalid("password is empty")
		}
		return errors.New("Cannot perform an interactive login from a non TTY device") //nolint:staticcheck // Docker's words
	}
	in := bufio.NewReader(a.Stdin)
	if o.user == "" {
		prompt := "Username: "
		if known != "" {
			prompt = "Username (" + known + "): "
		}
		if server == "docker.io" {
			a.err.println("Log in with your Docker ID or email address to push and pull images from Docker Hub.")
		}
		a.err.printf("%s", prompt)
		line, err := in.ReadString('\n')
		if err != nil {
			return errors.New("no username was typed")
		}
		if o.user = strings.TrimSpace(line); o.user == "" {
			o.user = known
		}
		if o.user == "" {
			return errdef.Invalid("username is empty")
		}
	}
	if o.password == "" {
		a.err.printf("Password: ")
		line, err := a.silently(func() (string, error) { return in.ReadString('\n') })
		a.err.println()
		if err != nil {
			return errors.New("no password was typed")
		}
		o.password = strings.TrimRight(line, "\r\n")
	}
	if o.password == "" {
		return errdef.Invalid("password is empty")
	}
	return nil
}

// silently reads from the terminal while it does not show what is typed. A signal that ends this program leaves the
// terminal as it was.
func (a *app) silently(read func() (string, error)) (string, error) {
	defer a.onSignal(func(s os.Signal) {
		a.screen.restore()
		a.err.println()
		os.Exit(exitSignalBase + int(s.(unix.Signal)))
	}, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)()
	if err := a.screen.silent(); err != nil {
		return "", err
	}
	defer a.screen.restore()
	return read()
}

// credentials is where this person keeps credentials for registries.
func (a *app) credentials() *credentials.Store { return credentials.Open(a.dockerConfigDir()) }

// registryAuth is what is sent along with a request about r: the credentials kept for its registry, and those for the
// mirrors where an engine of this machine asks for it. What cannot be read is said and then counts as nothing, for most
// images are public.
func (a *app) registryAuth(ctx context.Context, c *client.Client, r ref.Ref) client.RegistryAuth {
	return a.registryAuths(ctx, c, r, false)
}

// registryAuths is registryAuth; with dropped also for where blobs are that the engine has dropped and a push needs.
func (a *app) registryAuths(ctx context.Context, c *client.Client, r ref.Ref, dropped bool) client.RegistryAuth {
	var out client.RegistryAuth
	store := a.credentials()
	if l := a.kept(ctx, store, r.Registry); l != (credentials.Login{}) {
		out.Auth = client.EncodeAuth(authConfig(r.Registry, l))
	}
	if a.ownEngine() {
		others := map[string]registry.AuthConfig{}
		a.addMirrorAuths(ctx, c, store, others, r)
		if dropped && store.HasOthers(r.Registry) {
			a.addOriginAuths(ctx, c, others, true)
		}
		out.Auths = client.EncodeAuths(others)
	}
	return out
}

// ownEngine says whether the engine is one of this machine. One elsewhere could name any host as a mirror or an origin, and
// would be given what is kept for it.
func (a *app) ownEngine() bool {
	host, err := a.chosenHost()
	return err == nil && (host == "" || strings.HasPrefix(host, "unix://"))
}

// addMirrorAuths adds the credentials for the mirrors where the engine asks for r.
func (a *app) addMirrorAuths(ctx context.Context, c *client.Client, store *credentials.Store, auths map[string]registry.AuthConfig, r ref.Ref) {
	if !store.HasOthers(r.Registry) {
		return
	}
	route, err := c.RegistryRoute(ctx, r.String())
	if err != nil {
		return // another engine, or a route that the request itself will complain of
	}
	for _, h := range route.Hosts {
		if h.Login != r.Registry && store.Has(h.Login) {
			a.addAuth(ctx, store, auths, h.Login)
		}
	}
}

// addAuth adds what is kept for a server, if that is anything.
func (a *app) addAuth(ctx context.Context, store *credentials.Store, auths map[string]registry.AuthConfig, server string) {
	if _, done := auths[server]; done {
		return
	}
	if l := a.kept(ctx, store, server); l != (credentials.Login{}) {
		auths[server] = authConfig(server, l)
	}
}

func (a *app) kept(ctx context.Context, store *credentials.Store, server string) credentials.Login {
	l, err := store.Login(ctx, server)
	if err != nil {
		a.warn(err.Error())
	}
	return l
}
