package cli

import (
	"context"
	"sync"

	"hull/cli/credentials"
	"hull/errdef"

	"github.com/spf13/cobra"
)

// ServeRegistry is what `hull registry serve` is to do.
type ServeRegistry struct {
	Store    Store
	Address  string
	Writable bool
	// Insecure accepts that everybody who reaches the address can write.
	Insecure bool
	// Cert and Key are files for TLS, CA that of the authority of clients.
	Cert, Key, CA string
	Stdio         bool // one connection, on stdin and stdout
	Verbose       bool // a line for each request
	// Login is what the person who serves has for a registry, for blobs that have to be fetched again. It may be called by
	// several goroutines.
	Login func(ctx context.Context, registry string) credentials.Login
}

func buildRegistryServe(a *app, cmd *cobra.Command) {
	o := ServeRegistry{}
	cmd.Use += " [OPTIONS]"
	cmd.Long = "Offer the images of this machine as a registry, until it is interrupted: what hull, docker, podman, skopeo and\n" +
		"others pull from it is byte for byte what is in the store.\n\n" +
		"The image app is app there, and ghcr.io/me/app is ghcr.io/me/app. With --writable clients can push too: what is\n" +
		"pushed as app can be run here as app at once.\n\n" +
		"There are no users. Who can reach the address can pull everything; push only where that is this machine alone, or\n" +
		"clients have a certificate (--tls-ca)."
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVar(&o.Address, "addr", "127.0.0.1:5000", "Address and port to listen on; port 0 is any that is free")
	f.BoolVar(&o.Writable, "writable", false, "Let clients push and delete")
	f.BoolVar(&o.Insecure, "insecure-writable", false, "Let everybody push and delete who can reach an address that is not of this machine alone")
	f.StringVar(&o.Cert, "tls-cert", "", "File of the server's certificate")
	f.StringVar(&o.Key, "tls-key", "", "File of the server's key")
	f.StringVar(&o.CA, "tls-ca", "", "File of the authority: clients need a certificate that it signed")
	f.BoolVar(&o.Stdio, "stdio", false, "Serve one connection on stdin and stdout, HTTP/2 without TLS: for ssh")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "Print a line for each request")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.host != "" || a.context != "" {
			return errdef.Invalid("a registry serves the store of this machine: leave out --host and --context")
		}
		if o.Stdio && (f.Changed("addr") || o.Cert != "" || o.Key != "" || o.CA != "") {
			return errdef.Invalid("--stdio listens nowhere: leave out --addr and --tls-cert, --tls-key, --tls-ca")
		}
		if a.Program.ServeRegistry == nil {
			return errdef.Unavailable("this program cannot serve")
		}
		o.Writable = o.Writable || o.Insecure
		o.Store, o.Verbose = a.store, o.Verbose || a.debug
		var mu sync.Mutex // is held while a helper asks, and warnings are written
		logins := a.credentials()
		o.Login = func(ctx context.Context, registry string) credentials.Login {
			mu.Lock()
			defer mu.Unlock()
			return a.kept(ctx, logins, registry)
		}
		return a.Program.ServeRegistry(cmd.Context(), o)
	}
}
