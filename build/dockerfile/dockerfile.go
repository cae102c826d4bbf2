// Package dockerfile is BuildKit's Dockerfile frontend, as a frontend of package build.
//
//	req := &build.Request{Frontend: dockerfile.Build, Attrs: dockerfile.Attrs(&o), Locals: dockerfile.Locals(&o)}
package dockerfile

import (
	"context"

	"github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
)

// Build turns a Dockerfile into a graph and executes what of it is wanted.
func Build(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	return builder.Build(ctx, c)
}
