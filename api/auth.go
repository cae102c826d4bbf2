package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"hull/engine"
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

// remote is how a request about the image name wants registries to be spoken to. What they say on the way becomes a line
// of m, unless that is nil.
func (q *request) remote(m *messages, name string) (engine.Remote, error) {
	var o engine.Remote
	if m != nil {
		o.Notice = func(s string) { m.send(message{Status: s}) }
	}
	r, err := ref.Parse(name)
	if err != nil {
		return o, err
	}
	logins, err := q.logins()
	if err != nil {
		return o, err
	}
	var one wire.AuthConfig
	if err := q.secret(wire.AuthHeader, &one); err != nil {
		return o, err
	}
	// The one header is for the registry that the request is about, and for no mirror of it.
	if server := one.ServerAddress; server == "" || serverName(server) == r.Registry {
		if c := credential(one); c != (registry.Credential{}) {
			logins[r.Registry] = c
		}
	}
	o.Credential = func(name string) registry.Credential { return logins[name] }
	return o, nil
}

// logins are the credentials of a request about no single registry, by the names of theirs.
func (q *request) logins() (map[string]registry.Credential, error) {
	var all map[string]wire.AuthConfig
	if err := q.secret(configHeader, &all); err != nil {
		return nil, err
	}
	logins := map[string]registry.Credential{}
	for server, a := range all {
		logins[serverName(server)] = credential(a)
	}
	return logins, nil
}

// configHeader has credentials of several registries by their names.
const configHeader = "X-Registry-Config"

// secret reads a header with JSON in base64 for URLs, with or without padding. Errors say nothing of what is in it.
func (q *request) secret(header string, v any) error {
	text := strings.TrimRight(q.Header.Get(header), "=")
	if text == "" {
		return nil
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		data, err = base64.RawStdEncoding.DecodeString(text) // some clients do not know of the one for URLs
	}
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return errdef.Invalid("invalid %s header", header)
	}
	return nil
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
