package engine

import (
	"context"

	"hull/registry"
)

// Login asks a registry whether it takes a credential, and returns the identity token it gives to be kept instead of the
// password, if it gives one. Nothing is kept here.
func (e *Engine) Login(ctx context.Context, server string, c registry.Credential) (identity string, err error) {
	o, err := e.registryOptions(Remote{})
	if err != nil {
		return "", err
	}
	return registry.Login(ctx, server, c, o)
}
