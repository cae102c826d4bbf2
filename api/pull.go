package api

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"hull/engine"
	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/registry"

	wire "github.com/moby/moby/api/types/registry"
)

// pullImage is POST /images/create with fromImage. The built-in image needs no registry.
func (s *server) pullImage(q *request, name, tag string) error {
	m := &messages{q: q}
	if full := withTag(name, tag); engine.IsBox(full) {
		if _, err := s.engine.Image(q.Context(), engine.BoxRef); err != nil {
			return err
		}
		m.send(message{Status: "Status: the image " + engine.BoxRef + " is built in"})
		return nil
	}
	remote, err := q.remote(m)
	if err != nil {
		return err
	}
	err = s.engine.PullImage(q.Context(), name, tag, engine.PullOptions{
		Remote: remote, Platform: q.query("platform"), AllPlatforms: q.flag("allPlatforms"),
		Progress: m.progress,
		Done: func(p image.Pulled, r ref.Ref) {
			m.send(message{Status: "Digest: " + p.Digest})
			if p.New {
				m.send(message{Status: "Status: Downloaded newer image for " + r.Familiar()})
			} else {
				m.send(message{Status: "Status: Image is up to date for " + r.Familiar()})
			}
		},
	})
	if err != nil {
		return m.fail(err)
	}
	return nil
}

func withTag(name, tag string) string {
	switch {
	case tag == "":
		return name
	case strings.Contains(tag, ":"):
		return name + "@" + tag
	}
	return name + ":" + tag
}

// progress sends how far a layer is.
func (m *messages) progress(p image.Progress) {
	m.send(message{ID: p.ID, Status: p.Action, Progress: &progress{p.Current, p.Total}})
}

// remote is how the request wants registries to be spoken to. What they say on the way becomes a line of m.
func (q *request) remote(m *messages) (engine.Remote, error) {
	o := engine.Remote{Notice: func(s string) { m.send(message{Status: s}) }}
	header := q.Header.Get(wire.AuthHeader)
	if header == "" {
		return o, nil
	}
	auth, err := readAuth(header)
	if err != nil {
		return o, err
	}
	// The header is for the one registry that the request is about, under whatever name the client knows it.
	o.Credential = func(name string) registry.Credential {
		if of := auth.ServerAddress; of != "" && !sameRegistry(of, name) {
			return registry.Credential{}
		}
		return registry.Credential{Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}
	}
	return o, nil
}

// readAuth reads X-Registry-Auth: JSON in base64 for URLs, with or without padding.
func readAuth(header string) (wire.AuthConfig, error) {
	var auth wire.AuthConfig
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(header, "="))
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &auth)
	}
	if err != nil { // its content is a secret: say nothing of it
		return wire.AuthConfig{}, errdef.Invalid("invalid X-Registry-Auth header")
	}
	return auth, nil
}

// sameRegistry compares a server as clients write it, perhaps as a URL, with the name of a registry in references.
func sameRegistry(server, name string) bool {
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	server, _, _ = strings.Cut(server, "/")
	switch server {
	case "index.docker.io", "registry-1.docker.io":
		server = ref.DefaultRegistry
	}
	return server == name
}
