// Command hulld is hull with what is too heavy for every start linked in: the served API, and builds, apps and the
// Kubernetes interface will live here. It takes every command hull does.
package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"

	"hull/api"
	"hull/api/serve"
	"hull/cli"
	"hull/cmd/internal/local"
	"hull/engine"
)

func main() {
	os.Exit(local.Main(&local.Heavy{
		Serve:         run,
		Builder:       func(e *engine.Engine) api.Builder { return newBuilder(e) },
		BuildProgress: buildProgress,
	}))
}

// run serves h as the command line says.
func run(ctx context.Context, h http.Handler, o cli.Serve, closing func()) error {
	return serve.Run(ctx, h, serve.Options{
		Hosts: o.Hosts, Group: o.Group, Idle: o.Idle, TLS: serve.TLS{CA: o.CA, Cert: o.Cert, Key: o.Key}, Plain: o.Plain,
		Log: slog.Default(), Closing: closing,
	})
}
