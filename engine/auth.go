package engine

import (
	"context"
	"net/http"

	"hull/registry"
)

// Login asks a registry whether it takes a credential, and returns the identity token it gives to be kept instead of the
// password, if it gives one. Nothing is kept here.
func (e *Engine) Login(ctx context.Context, server string, c registry.Credential) (identity string, err error) {
	o, err := e.registryOptions()
	if err != nil {
		return "", err
	}
	return registry.Login(ctx, server, c, o)
}

// registryOptions are what the administrator's file says of registries.
func (e *Engine) registryOptions() (registry.Options, error) {
	c, err := e.Config()
	if err != nil {
		return registry.Options{}, err
	}
	return registry.Options{Routes: registry.NewRoutes(c), Agent: "hull/" + e.opt.Version, Proxy: http.ProxyFromEnvironment}, nil
}
