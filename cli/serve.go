package cli

import (
	"context"
	"time"

	"hull/errdef"

	"github.com/spf13/cobra"
)

// Serve is what `hull serve` is to do.
type Serve struct {
	Store Store
	Hosts []string // none: the default socket of the user
	Group string
	Idle  time.Duration
	// IdleGiven says that a person chose Idle: the configuration does not count.
	IdleGiven bool
	// CA, Cert and Key are files for TLS on TCP, with clients that prove who they are.
	CA, Cert, Key string
	// Plain accepts TCP without TLS on loopback.
	Plain bool
	Debug bool
}

func buildServe(a *app, cmd *cobra.Command) {
	o := Serve{}
	withTLS, verify := false, false
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringArrayVarP(&o.Hosts, "host", "H", nil, "Where to listen: unix:///path, fd:// for systemd's sockets, tcp://address:port (default unix:///run/hull/hull.sock)")
	f.StringVarP(&o.Group, "group", "G", "hull", "Group whose members may use the socket, which makes them root")
	f.DurationVar(&o.Idle, "idle-timeout", 5*time.Minute, "End after so long without a request, if systemd's socket starts it again; 0 never")
	f.BoolVar(&withTLS, "tls", false, "Serve TCP with TLS; --tls=false accepts to do without on 127.0.0.1")
	f.BoolVar(&verify, "tlsverify", false, "Serve TCP with TLS, to clients with a certificate")
	f.StringVar(&o.CA, "tlscacert", "", "File of the authority that signed the clients' certificates")
	f.StringVar(&o.Cert, "tlscert", "", "File of the server's certificate")
	f.StringVar(&o.Key, "tlskey", "", "File of the server's key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.host != "" || a.context != "" {
			return errdef.Invalid("--host and --context before the command name an engine to ask; where to listen comes after it: hull serve --host %s", orUnknown(a.host))
		}
		if (withTLS || verify) && (o.CA == "" || o.Cert == "" || o.Key == "") {
			return errdef.Invalid("--tls and --tlsverify need --tlscacert, --tlscert and --tlskey")
		}
		// As dockerd takes it: only who writes that there is to be no TLS gets none.
		o.Plain = f.Changed("tls") && !withTLS || f.Changed("tlsverify") && !verify
		o.Store, o.Debug, o.IdleGiven = a.store, a.debug, f.Changed("idle-timeout")
		return a.serve(cmd.Context(), o)
	}
}

// serve runs here if the program can; else the program does that can.
func (a *app) serve(ctx context.Context, o Serve) error {
	if a.Serve == nil {
		return errdef.Unavailable("this program cannot serve")
	}
	return a.Serve(ctx, o)
}
