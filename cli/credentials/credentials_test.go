package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
)

// canary is a secret that no error may have.
const canary = "canary-41c9"

func store(t *testing.T, content string) *Store {
	t.Helper()
	t.Setenv("DOCKER_AUTH_CONFIG", "")
	s := Open(filepath.Join(t.TempDir(), "docker"))
	if content != "" {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Path(), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func want(t *testing.T, s *Store, server string, l Login) {
	t.Helper()
	got, err := s.Login(t.Context(), server)
	if err != nil || got != l {
		t.Errorf("%s: want %+v, got %+v, %v", server, l, got, err)
	}
}

func TestServer(t *testing.T) {
	for in, out := range map[string]string{
		"": "docker.io", "docker.io": "docker.io", "https://index.docker.io/v1/": "docker.io", "index.docker.io": "docker.io",
		"registry-1.docker.io": "docker.io", "quay.io": "quay.io", "http://localhost:5000": "localhost:5000", "https://q.io/v2/": "q.io",
	} {
		if got := Server(in); got != out {
			t.Errorf("%s: want %s, got %s", in, out, got)
		}
	}
}

func TestFile(t *testing.T) {
	s := store(t, "")
	want(t, s, "docker.io", Login{})
	for _, server := range []string{"docker.io", "quay.io", "localhost:5000"} {
		l := Login{Username: "me", Password: canary + ":with colon " + server}
		inFile, err := s.Keep(t.Context(), server, l)
		if err != nil || !inFile || !s.Has(server) {
			t.Fatalf("%s: want it in the file, got %v, %v", server, inFile, err)
		}
		want(t, s, server, l)
	}
	st, err := os.Stat(s.Path())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("want mode 0600, got %v, %v", st.Mode(), err)
	}
	if had, err := s.Erase(t.Context(), "quay.io"); !had || err != nil {
		t.Errorf("want one erased, got %v, %v", had, err)
	}
	if had, err := s.Erase(t.Context(), "quay.io"); had || err != nil {
		t.Errorf("want none left, got %v, %v", had, err)
	}
	want(t, s, "quay.io", Login{})
	if _, err := s.Keep(t.Context(), "quay.io", Login{Username: "me", IdentityToken: canary}); err != nil {
		t.Error(err)
	}
	want(t, s, "quay.io", Login{Username: "me", IdentityToken: canary})
}

// TestKeepsTheRest: what Docker or a person wrote beside the credentials stays, in the file a link names too, and the
// file becomes private.
func TestKeepsTheRest(t *testing.T) {
	s := store(t, `{"auths":{"https://old.io/v1/":{"auth":"bWU6b2xk","email":"me@old.io"}},"detachKeys":"ctrl-x","n":12345678901234567890,"proxies":{"default":{}}}`)
	target := filepath.Join(s.dir, "real.json")
	if err := os.Rename(s.Path(), target); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.json", s.Path()); err != nil {
		t.Fatal(err)
	}
	want(t, s, "old.io", Login{Username: "me", Password: "old"})
	if _, err := s.Keep(t.Context(), "new.io", Login{Username: "me", Password: "new"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"detachKeys": "ctrl-x"`, `12345678901234567890`, `"proxies"`, `me@old.io`, `new.io`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("want %s kept, got %s", part, data)
		}
	}
	if st, err := os.Lstat(s.Path()); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("want the link kept, got %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(target); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("want mode 0600, got %v, %v", st.Mode(), err)
	}
}

func TestTogether(t *testing.T) {
	s := store(t, "")
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if _, err := Open(s.dir).Keep(t.Context(), fmt.Sprintf("r%d.io", i), Login{Username: "me", Password: "x"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 10 {
		want(t, s, fmt.Sprintf("r%d.io", i), Login{Username: "me", Password: "x"})
	}
}

func TestDamaged(t *testing.T) {
	for _, content := range []string{
		`{"auths":{"q.io":{"auth":"` + canary, `[]`, `{"auths":[]}`, `{"auths":{"q.io":{"auth":"!!` + canary + `"}}}`, `{"auths":{"q.io":{"auth":"bWU="}}}`,
	} {
		s := store(t, content)
		_, err := s.Login(t.Context(), "q.io")
		if !errors.Is(err, errdef.ErrInvalid) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: want refused without the secret, got %v", content, err)
		}
	}
	s := store(t, `{"auths":{"q.io":{"auth":"`)
	if _, err := s.Keep(t.Context(), "n.io", Login{Username: "me"}); err == nil {
		t.Error("want a damaged file left alone")
	}
}

func TestGiven(t *testing.T) {
	s := store(t, "")
	s.Given = `{"auths":{"q.io":{"auth":"bWU6Z2l2ZW4="}}}`
	want(t, s, "q.io", Login{Username: "me", Password: "given"})
	want(t, s, "other.io", Login{})
}

// helper puts docker-credential-NAME into PATH: a shell script that keeps secrets in files of its directory.
func helper(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := `#!/bin/sh
cd "` + dir + `"
case $1 in
get) read -r s; f=$(echo "$s" | tr -c 'a-z0-9\n' _); [ -e "$f" ] || { echo credentials not found in native keychain; exit 1; }; cat "$f" ;;
store) b=$(cat); s=$(echo "$b" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$b" > "$(echo "$s" | tr -c 'a-z0-9\n' _)" ;;
erase) read -r s; f=$(echo "$s" | tr -c 'a-z0-9\n' _); [ -e "$f" ] || { echo credentials not found in native keychain; exit 1; }; rm "$f" ;;
esac
`
	if name == "slow" {
		script = "#!/bin/sh\nexec sleep 60\n"
	}
	if name == "talks" {
		script = "#!/bin/sh\necho '{\"Secret\":\"" + canary + "'\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func TestHelpers(t *testing.T) {
	helper(t, "all")
	one := helper(t, "one")
	s := store(t, `{"credsStore":"all","credHelpers":{"one.io":"one"}}`)
	for _, server := range []string{"docker.io", "one.io"} {
		want(t, s, server, Login{})
		inFile, err := s.Keep(t.Context(), server, Login{Username: "me", Password: canary})
		if err != nil || inFile {
			t.Fatalf("%s: want it kept by the program, got %v, %v", server, inFile, err)
		}
		want(t, s, server, Login{Username: "me", Password: canary})
		if !s.Has(server) {
			t.Errorf("%s: want it known without asking", server)
		}
	}
	data, err := os.ReadFile(s.Path())
	if err != nil || strings.Contains(string(data), canary) {
		t.Errorf("want no secret in the file, got %s, %v", data, err)
	}
	if !json.Valid(data) {
		t.Errorf("want JSON, got %s", data)
	}
	if _, err := os.Stat(filepath.Join(one, "one_io")); err != nil {
		t.Error(err)
	}
	if _, err := s.Keep(t.Context(), "one.io", Login{Username: "me", IdentityToken: "idt"}); err != nil {
		t.Fatal(err)
	}
	want(t, s, "one.io", Login{IdentityToken: "idt"})
	if had, err := s.Erase(t.Context(), "one.io"); !had || err != nil {
		t.Errorf("want erased, got %v, %v", had, err)
	}
	want(t, s, "one.io", Login{})
}

func TestHelpersThatFail(t *testing.T) {
	helper(t, "slow")
	helper(t, "talks")
	s := store(t, `{"credHelpers":{"slow.io":"slow","none.io":"none","evil.io":"../x","talks.io":"talks"}}`)
	s.helperTime = 200 * time.Millisecond
	begin := time.Now()
	if _, err := s.Login(t.Context(), "slow.io"); !errors.Is(err, errdef.ErrDeadline) {
		t.Errorf("want the deadline, got %v after %s", err, time.Since(begin))
	}
	if _, err := s.Login(t.Context(), "none.io"); !errors.Is(err, errdef.ErrNotFound) || !strings.Contains(err.Error(), "docker-credential-none") {
		t.Errorf("want the missing program named, got %v", err)
	}
	if _, err := s.Login(t.Context(), "evil.io"); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("want a path refused, got %v", err)
	}
	if _, err := s.Login(t.Context(), "talks.io"); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("want an error without the secret, got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Login(ctx, "slow.io"); err == nil {
		t.Error("want an end with the context")
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"", "{}", `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cA=="}},"credsStore":"x","credHelpers":{"q.io":"y"}}`, `{"auths":{"q.io":{"identitytoken":"t"}}}`, `{"auths":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := new(config)
		if json.Unmarshal(data, c) != nil {
			return
		}
		c.Store, c.Helpers = "", nil
		l, ok, err := c.login("docker.io")
		if err != nil && ok {
			t.Errorf("want no login with an error, got %+v", l)
		}
		c.forget("docker.io")
		if l, ok, _ := c.login("docker.io"); ok {
			t.Errorf("want nothing after it was forgotten, got %+v", l)
		}
	})
}
