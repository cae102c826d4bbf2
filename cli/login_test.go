package cli

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hull/client"
	"hull/ref"

	"github.com/moby/moby/api/types/registry"
)

// secrets takes note of the credentials that came with requests.
type secrets struct {
	// mu protects the following.
	mu    sync.Mutex
	users []string
}

// note adds the users of X-Registry-Auth and of X-Registry-Config.
func (s *secrets) note(t *testing.T, auth, auths string) {
	t.Helper()
	var one registry.AuthConfig
	all := map[string]registry.AuthConfig{}
	for v, text := range map[any]string{&one: auth, &all: auths} {
		data, err := base64.URLEncoding.DecodeString(text)
		if err == nil && len(data) > 0 {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range all {
		s.users = append(s.users, a.Username)
	}
	if one.Username != "" {
		s.users = append(s.users, one.Username)
	}
}

// took returns the users so far, sorted, and forgets them.
func (s *secrets) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	users := slices.Compact(slices.Sorted(slices.Values(s.users)))
	s.users = nil
	return strings.Join(users, " ")
}

// An engine elsewhere gets the login of the registry that a person named, whatever else it asks for: those of mirrors, and of
// where the blobs of its store came from, go to an engine of this machine only.
func TestLoginsStayHere(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	auth := func(user string) string {
		return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(user+":secret")) + `"}`
	}
	config := `{"auths": {"named.example": ` + auth("named") + `, "mirror.example": ` + auth("mirror") + `, "origin.example": ` + auth("origin") +
		`, "never.example": ` + auth("never") + `}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	var s secrets
	f.on("GET /hull/v1/registry/route", answer(map[string]any{"Name": "x", "Hosts": []map[string]any{{"URL": "https://mirror.example", "Login": "mirror.example"}}}))
	f.on("GET /hull/v1/registry/origins", answer([]string{"origin.example/app"}))
	for call, said := range map[string]string{
		"POST /images/create": `{"status":"done"}`, "POST /hull/v1/check": `{"aux":{"Whole":true,"Damage":[]}}`,
	} {
		f.on(call, func(w http.ResponseWriter, r *http.Request) {
			s.note(t, r.Header.Get("X-Registry-Auth"), r.Header.Get("X-Registry-Config"))
			io.WriteString(w, said+"\n")
		})
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"pull", "named.example/app"}, "mirror named"},
		{[]string{"--host", "unix://" + f.sock, "pull", "named.example/app"}, "mirror named"},
		{[]string{"system", "check", "--repair"}, "mirror origin"},
		{[]string{"--host", "unix://" + f.sock, "system", "check", "--repair"}, "mirror origin"},
		{[]string{"system", "check"}, ""},
	} {
		r := f.hull("", tt.args...)
		if got := s.took(); r.code != 0 || got != tt.want {
			t.Errorf("%v: sent the logins of %q, want %q: %+v", tt.args, got, tt.want, r)
		}
	}
	// The same engine, at an address elsewhere.
	r, err := ref.Parse("named.example/app")
	if err != nil {
		t.Fatal(err)
	}
	dial, err := client.DialHost("unix://"+f.sock, client.SSH{})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"": "mirror named", "unix:///run/x": "mirror named", "ssh://far.example": "named", "tcp://far.example:2375": "named"} {
		a := newApp(f.program())
		a.host, a.client = host, client.New(dial, client.Options{Host: host})
		auth := a.registryAuth(t.Context(), a.client, r)
		s.note(t, auth.Auth, auth.Auths)
		if got := s.took(); got != want {
			t.Errorf("%s: sends the logins of %q for a pull, want %q", host, got, want)
		}
		s.note(t, "", a.originAuths(t.Context(), a.client))
		if got := s.took(); (got != "") != (want != "named") {
			t.Errorf("%s: sends the logins of %q for a repair", host, got)
		}
	}
	t.Setenv("DOCKER_HOST", "ssh://far.example")
	if a := newApp(f.program()); a.ownEngine() {
		t.Error("an engine that the environment names elsewhere is taken for one of this machine")
	}
}

// The progress of a check is told where it was asked for, beside the answer.
func TestCheckProgress(t *testing.T) {
	f := newFake(t)
	f.on("POST /hull/v1/check", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"id":"blob x","status":"Checking blobs","progressDetail":{"current":5,"total":10}}`+"\n"+
			`{"aux":{"Whole":false,"Damage":[{"Object":"blob x","Problem":"it could not be checked: broken","Cure":"again","Unchecked":true}]}}`+"\n")
	})
	if r := f.hull("", "system", "check"); r.code != 1 || r.stderr != "" || r.stdout != "blob x: it could not be checked: broken\n  again\n" {
		t.Errorf("got %+v", r)
	}
	r := f.hull("", "system", "check", "--progress", "json", "--format", "json")
	var m struct {
		ID             string
		ProgressDetail struct{ Current, Total int }
	}
	if err := json.Unmarshal([]byte(r.stderr), &m); err != nil || m.ID != "blob x" || m.ProgressDetail.Total != 10 || !strings.Contains(r.stdout, `"Unchecked":true`) {
		t.Errorf("got %+v, %v", r, err)
	}
	if r := f.hull("", "system", "check", "--progress", "loud"); r.code == 0 || !strings.Contains(r.stderr, "--progress") {
		t.Errorf("got %+v", r)
	}
	f.on("POST /hull/v1/check", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"id":"blob x"}`+"\n") })
	if r := f.hull("", "system", "check"); r.code == 0 {
		t.Errorf("half an answer: %+v", r)
	}
}
