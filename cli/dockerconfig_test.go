package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDockerConfig: proxies go into new containers, formats and keys are taken, whatever is wrong is said and left out.
func TestDockerConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"psFormat": "id {{.ID}}", "imagesFormat": "{{.Repository}}", "detachKeys": "ctrl-x,5", "auths": {},
		"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "localhost"}, "tcp://other": {"httpProxy": "http://no"}}}`)
	f := newFake(t)
	if r := f.hull("", "ps"); !strings.HasPrefix(r.stdout, "id ") {
		t.Errorf("psFormat: %+v", r)
	}
	if r := f.hull("", "ps", "-q"); strings.HasPrefix(r.stdout, "id ") || r.stderr != "" {
		t.Errorf("psFormat with -q: %+v", r)
	}
	if r := f.hull("", "images"); !strings.HasPrefix(r.stdout, "app\n") {
		t.Errorf("imagesFormat: %+v", r)
	}
	body := func(args ...string) string {
		t.Helper()
		r := f.hull("", args...)
		for _, q := range r.requests {
			if strings.HasSuffix(q.Path, "/create") || strings.HasSuffix(q.Path, "/exec") {
				return q.Body
			}
		}
		t.Fatalf("%v: %+v", args, r)
		return ""
	}
	if b := body("create", "-e", "no_proxy=mine", "app:1"); !strings.Contains(b,
		`"Env":["no_proxy=mine","HTTP_PROXY=http://p:1","http_proxy=http://p:1","NO_PROXY=localhost"]`) {
		t.Errorf("proxies: %s", b)
	}
	if b := body("exec", "web", "true"); !strings.Contains(b, `"DetachKeys":"ctrl-x,5"`) {
		t.Errorf("detachKeys: %s", b)
	}
	if b := body("exec", "--detach-keys", "ctrl-y", "web", "true"); !strings.Contains(b, `"DetachKeys":"ctrl-y"`) {
		t.Errorf("--detach-keys: %s", b)
	}
	write(`{"psFormat": 5`)
	if r := f.hull("", "ps"); r.code != 0 || strings.Count(r.stderr, "WARNING: Error loading config file: "+dir) != 1 {
		t.Errorf("damaged: %+v", r)
	}
	// --config with a directory is Docker's flag of that name.
	if r := f.hull("", "--config", t.TempDir(), "ps"); r.code != 0 || r.stderr != "" {
		t.Errorf("--config DIR: %+v", r)
	}
}

// TestContexts: --context and the variables name an engine as Docker's client has noted it; its current one does not.
func TestContexts(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("DOCKER_HOST", "")
	f := newFake(t)
	meta := filepath.Join(dir, "contexts/meta/378ce56a9d146d5174c89d1c0353d7f8e2244e89bb83935a5b1bdcf5e74b4e7f") // sha256 of away
	if err := os.MkdirAll(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		meta + "/meta.json":  `{"Name": "away", "Metadata": {}, "Endpoints": {"docker": {"Host": "unix:///none/away.sock"}}}`,
		dir + "/config.json": `{"currentContext": "away"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const away = "/none/away.sock"
	for _, tt := range []struct{ env, line, want string }{
		{"", "ps", ""},
		{"", "--context away ps", away},
		{"", "-c away ps", away},
		{"away", "ps", away},
		{"away", "--context default ps", ""},
		{"away", "--host unix://" + f.sock + " ps", ""},
		{"away", "--root /x ps", ""},
		{"", "--context nosuch ps", `context "nosuch": context not found`},
		{"", "--context ../../x ps", `context "../../x": context not found`},
		{"", "--context away --host unix:///x ps", "cannot specify both --host and --context"},
	} {
		t.Setenv("DOCKER_CONTEXT", tt.env)
		r := f.hull("", strings.Fields(tt.line)...)
		if (tt.want == "") != (r.code == 0) || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("DOCKER_CONTEXT=%s hull %s: want %q, got %d %s", tt.env, tt.line, tt.want, r.code, r.stderr)
		}
	}
}
