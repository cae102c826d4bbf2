package api

import (
	"net/http"
	"strings"

	"hull/errdef"
	"hull/ref"
	"hull/registry"

	wire "github.com/moby/moby/api/types/registry"
)

// login is POST /auth.
func (s *server) login(q *request) error {
	var a wire.AuthConfig
	if err := q.decode(&a); err != nil {
		return err
	}
	if a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return errdef.Invalid("no credentials were given")
	}
	identity, err := s.engine.Login(q.Context(), serverName(a.ServerAddress), credential(a))
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, wire.AuthResponse{Status: "Login Succeeded", IdentityToken: identity})
}

// serverName is the registry of an address as clients write it: docker.io for "https://index.docker.io/v1/".
func serverName(address string) string {
	address = strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	address, _, _ = strings.Cut(address, "/")
	switch address {
	case "", "index.docker.io", registry.HubAddr:
		return ref.DefaultRegistry
	}
	return address
}

func credential(a wire.AuthConfig) registry.Credential {
	return registry.Credential{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
}
