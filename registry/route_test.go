package registry

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/config"
	"hull/ref"
	"hull/registry/registrytest"
)

// routes parses settings, with dir in the place of the directories of other engines.
func routes(t *testing.T, dir, text string) *Routes {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	c, err := config.Parse("hull.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.Registry.Directories = []string{dir}
	return NewRoutes(c)
}

func parse(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// way is a route in a few words.
func way(route *Route) string {
	if route.Blocked != "" {
		return "blocked: " + route.Blocked
	}
	var out []string
	for _, h := range route.Hosts {
		s := fmt.Sprintf("%s://%s%s/%s", h.Scheme, h.Addr, h.Path, h.Repo)
		if h.Insecure {
			s += " insecure"
		}
		can := ""
		for _, c := range []struct {
			yes  bool
			word string
		}{{h.Pull, "pull"}, {h.Resolve, "resolve"}, {h.Push, "push"}} {
			if c.yes {
				can += " " + c.word
			}
		}
		out = append(out, s+can)
	}
	return strings.Join(out, "\n")
}

const rules = `
[registry]
mirrors = ["https://hub.mirror"]
insecure = ["10.0.0.0/8", "old.example"]
[registry.routes."docker.io/library"]
mirrors = ["harbor.example/proxy", "https://art.example/api/docker/hub/v2/"]
[registry.routes."docker.io/library/nginx"]
rewrite = "corp.example:5000/nginx"
[registry.routes."gcr.io"]
rewrite = "corp.example:5000/gcr"
[registry.routes."*.evil.example"]
block = "not of ours"
[registry.routes."good.evil.example"]
block = false
[registry.routes."closed.example"]
mirrors = ["http://cache.example:5000/{registry}"]
direct = false
[registry.routes."plain.example"]
http = true
[registry.routes."corp.example:5000"]
insecure = true
`

func TestRoute(t *testing.T) {
	s := routes(t, "", rules)
	for name, want := range map[string]string{
		"me/app":                  "https://hub.mirror/v2/me/app pull resolve\nhttps://registry-1.docker.io/v2/me/app pull resolve push",
		"debian":                  "https://harbor.example/v2/proxy/library/debian pull resolve\nhttps://art.example/api/docker/hub/v2/library/debian pull resolve\nhttps://registry-1.docker.io/v2/library/debian pull resolve push",
		"nginx":                   "https://hub.mirror/v2/library/nginx pull resolve\nhttps://corp.example:5000/v2/nginx insecure pull resolve push\nhttp://corp.example:5000/v2/nginx insecure pull resolve push",
		"gcr.io/a/b":              "https://corp.example:5000/v2/gcr/a/b insecure pull resolve push\nhttp://corp.example:5000/v2/gcr/a/b insecure pull resolve push",
		"x.evil.example/a":        "blocked: not of ours",
		"evil.example/a":          "https://evil.example/v2/a pull resolve push",
		"good.evil.example/a":     "https://good.evil.example/v2/a pull resolve push",
		"closed.example/a":        "http://cache.example:5000/v2/closed.example/a pull resolve\nhttps://closed.example/v2/a push",
		"plain.example/a":         "http://plain.example/v2/a pull resolve push",
		"10.1.2.3:80/a":           "https://10.1.2.3:80/v2/a insecure pull resolve push\nhttp://10.1.2.3:80/v2/a insecure pull resolve push",
		"old.example/a":           "https://old.example/v2/a insecure pull resolve push\nhttp://old.example/v2/a insecure pull resolve push",
		"localhost:5000/a":        "https://localhost:5000/v2/a insecure pull resolve push\nhttp://localhost:5000/v2/a insecure pull resolve push",
		"[::1]:5000/a":            "https://[::1]:5000/v2/a insecure pull resolve push\nhttp://[::1]:5000/v2/a insecure pull resolve push",
		"quay.io/a":               "https://quay.io/v2/a pull resolve push",
		"docker.io/libraryx/what": "https://hub.mirror/v2/libraryx/what pull resolve\nhttps://registry-1.docker.io/v2/libraryx/what pull resolve push",
	} {
		route, err := s.Route(parse(t, name))
		if err != nil || way(route) != want {
			t.Errorf("%s: want\n%s\ngot\n%s, %v", name, want, way(route), err)
		}
	}
	if _, err := Open(parse(t, "x.evil.example/a"), Options{Routes: s}); err == nil || !strings.Contains(err.Error(), "is blocked: not of ours") {
		t.Errorf("want blocked, got %v", err)
	}
}

func TestHostsToml(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("docker.io/hosts.toml", `
server = "https://registry-1.docker.io"
[host."https://mirror.local"]
capabilities = ["pull"]
[host."http://harbor.local/v2/hub"]
capabilities = ["pull", "resolve"]
override_path = true
[host."https://sub.local/hub"]
skip_verify = true
capabilities = ["pull", "resolve"]`)
	write("port.local_5000_/hosts.toml", `[host."https://other.local"]`)
	write("_default/hosts.toml", `[host."https://default.local"]
capabilities = ["pull", "resolve"]`)
	s := routes(t, dir, `registry.routes."own.io".mirrors = []`)
	for name, want := range map[string]string{
		"debian":            "https://mirror.local/v2/library/debian pull\nhttp://harbor.local/v2/hub/library/debian pull resolve\nhttps://sub.local/hub/v2/library/debian insecure pull resolve\nhttps://registry-1.docker.io/v2/library/debian pull resolve push",
		"port.local:5000/a": "https://other.local/v2/a pull resolve push\nhttps://port.local:5000/v2/a pull resolve push",
		"quay.io/a":         "https://default.local/v2/a pull resolve\nhttps://quay.io/v2/a pull resolve push",
		"own.io/a":          "https://own.io/v2/a pull resolve push",
	} {
		route, err := s.Route(parse(t, name))
		if err != nil || way(route) != want {
			t.Errorf("%s: want\n%s\ngot\n%s, %v", name, want, way(route), err)
		}
	}
	write("bad.io/hosts.toml", `server = 1`)
	if _, err := s.Route(parse(t, "bad.io/a")); err == nil || !strings.Contains(err.Error(), "bad.io/hosts.toml:1") {
		t.Errorf("want file and line, got %v", err)
	}
}

// TestMirrors: they are asked in order, and what one does not have or cannot give comes from the next.
func TestMirrors(t *testing.T) {
	a, b, up := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{User: "me", Password: canary})
	img := up.AddImage("app", "1", registrytest.Platform{}, nil)
	b.AddImage("app", "1", registrytest.Platform{}, nil)
	blob := up.AddBlob("app", random(1000))
	a.On("", "", registrytest.Status(500))
	s := routes(t, "", fmt.Sprintf("registry.routes.%q.mirrors = [%q, %q]", up.Addr, a.HTTP.URL, b.HTTP.URL))
	var told notices
	logins := func(name string) Credential {
		if name == up.Addr {
			return login(name)
		}
		return Credential{}
	}
	r := openNamed(t, up.Addr+"/app", Options{Routes: s, Credential: logins, Notice: told.add})
	data, _, err := r.Manifest(t.Context(), "1")
	if err != nil || registrytest.Digest(data) != img.Digest || r.ServedBy() != b.Addr {
		t.Errorf("want the manifest of the second mirror, got it from %s, %v", r.ServedBy(), err)
	}
	if _, _, err := readBlob(t, r, blob, 0); err != nil || r.ServedBy() != up.Addr {
		t.Errorf("want the blob of the registry itself, got it from %s, %v", r.ServedBy(), err)
	}
	for _, m := range []*registrytest.Server{a, b} {
		for _, q := range m.Requests() {
			if q.Authorization != "" {
				t.Errorf("want no credentials at a mirror, got %s", q.Authorization)
			}
		}
	}
	if !strings.Contains(told.String(), a.Addr) {
		t.Errorf("want to be told of the mirror that fails, got %s", told.String())
	}
	// A mirror that lies is passed over once that is known.
	liar := registrytest.New(t, registrytest.Options{})
	liar.AddBlob("app", random(1000))
	liar.On("GET", "/blobs/", registrytest.Flip(0))
	s = routes(t, "", fmt.Sprintf("registry.routes.%q.mirrors = [%q]", up.Addr, liar.HTTP.URL))
	r = openNamed(t, up.Addr+"/app", Options{Routes: s, Credential: logins})
	got, _, err := readBlob(t, r, blob, 0)
	if err != nil || registrytest.Digest(got) == blob {
		t.Fatalf("want the lie first, got %v", err)
	}
	r.Reject(blob)
	if got, _, err = readBlob(t, r, blob, 0); err != nil || registrytest.Digest(got) != blob {
		t.Errorf("want the truth, got %v", err)
	}
	// Nobody listens.
	dead := registrytest.New(t, registrytest.Options{})
	dead.HTTP.Close()
	s = routes(t, "", fmt.Sprintf("registry.routes.%q.mirrors = [%q]", up.Addr, dead.HTTP.URL))
	r = openNamed(t, up.Addr+"/app", Options{Routes: s, Credential: logins})
	if _, _, err := r.Manifest(t.Context(), "1"); err != nil {
		t.Error(err)
	}
}

// A54: a registry whose certificate nobody vouches for is refused, unless its authority is named or it may be insecure.
func TestTLS(t *testing.T) {
	up := registrytest.New(t, registrytest.Options{TLS: true})
	up.AddImage("app", "1", registrytest.Platform{}, nil)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.HTTP.Certificate().Raw})
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, up.Addr), 0o755); err != nil {
		t.Fatal(err)
	}
	// Loopback may be insecure; so this asks it as a mirror of another, by hosts.toml.
	try := func(toml, name string) error {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, "docker.io"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "docker.io/hosts.toml"), []byte(toml), 0o644); err != nil {
			t.Fatal(err)
		}
		_, _, err := openNamed(t, name, Options{Routes: routes(t, dir, "")}).Manifest(t.Context(), "1")
		return err
	}
	if err := try(fmt.Sprintf("server = %q", up.HTTP.URL), "docker.io/app/app"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("want the certificate refused, got %v", err)
	}
	_, port, _ := strings.Cut(up.Addr, ":")
	if err := try(fmt.Sprintf("server = \"https://localhost:%s\"\nca = \"../ca.pem\"", port), "docker.io/app/app"); err == nil || !strings.Contains(err.Error(), "not localhost") {
		t.Errorf("want a certificate for another name refused, got %v", err)
	}
	// From here on it is found: the name is another there.
	for _, toml := range []string{fmt.Sprintf("server = %q\nca = \"../ca.pem\"", up.HTTP.URL), fmt.Sprintf("server = %q\nskip_verify = true", up.HTTP.URL)} {
		if err := try(toml, "docker.io/app/app"); err == nil || !strings.Contains(err.Error(), "not found: manifest unknown") {
			t.Errorf("%s: want to be let in, got %v", toml, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, up.Addr, "ca.crt"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := try(fmt.Sprintf("server = %q", up.HTTP.URL), "docker.io/app/app"); err == nil || !strings.Contains(err.Error(), "not found: manifest unknown") {
		t.Errorf("ca.crt: want to be let in, got %v", err)
	}
	if _, _, err := open(t, up, Options{}).Manifest(t.Context(), "1"); err != nil {
		t.Errorf("want this machine's own registry trusted, got %v", err)
	}
}
