package api

import (
	"encoding/base64"
	"net/http"
	"testing"

	"hull/registry"
)

func encoded(json string) string { return base64.URLEncoding.EncodeToString([]byte(json)) }

// TestRemote: credentials are for the registry they are said to be for, and for no other.
func TestRemote(t *testing.T) {
	me := registry.Credential{Username: "me", Password: "p"}
	for name, tt := range map[string]struct {
		auth, config, image string
		want                map[string]registry.Credential
	}{
		"no server":        {auth: `{"username":"me","password":"p"}`, image: "q.io/a", want: map[string]registry.Credential{"q.io": me, "mirror.io": {}, "docker.io": {}}},
		"the server":       {auth: `{"username":"me","password":"p","serveraddress":"https://q.io/v2/"}`, image: "q.io/a", want: map[string]registry.Credential{"q.io": me}},
		"another server":   {auth: `{"username":"me","password":"p","serveraddress":"other.io"}`, image: "q.io/a", want: map[string]registry.Credential{"q.io": {}, "other.io": {}}},
		"Docker Hub":       {auth: `{"username":"me","password":"p","serveraddress":"https://index.docker.io/v1/"}`, image: "a", want: map[string]registry.Credential{"docker.io": me}},
		"several":          {config: `{"mirror.io":{"username":"me","password":"p"},"https://index.docker.io/v1/":{"identitytoken":"t"}}`, image: "a", want: map[string]registry.Credential{"mirror.io": me, "docker.io": {IdentityToken: "t"}}},
		"nothing":          {auth: `{}`, image: "a", want: map[string]registry.Credential{"docker.io": {}}},
		"of Docker's push": {auth: "", image: "a", want: map[string]registry.Credential{"docker.io": {}}},
	} {
		h := http.Header{}
		if tt.auth != "" {
			h.Set("X-Registry-Auth", encoded(tt.auth))
		}
		if tt.config != "" {
			h.Set("X-Registry-Config", encoded(tt.config))
		}
		o, err := (&request{Request: &http.Request{Header: h}}).remote(nil, tt.image)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for server, want := range tt.want {
			if got := o.Credential(server); got != want {
				t.Errorf("%s: %s: want %+v, got %+v", name, server, want, got)
			}
		}
	}
	for _, bad := range []string{"%", encoded("{"), encoded(`"x"`)} {
		if _, err := (&request{Request: &http.Request{Header: http.Header{"X-Registry-Auth": {bad}}}}).remote(nil, "a"); err == nil || err.Error() != "invalid X-Registry-Auth header" {
			t.Errorf("%s: want refused, got %v", bad, err)
		}
	}
}
