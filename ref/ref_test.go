package ref

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/errdef"
)

const (
	hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sum   = "sha256:" + hex64
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, full, familiar string }{
		{"nginx", "docker.io/library/nginx", "nginx"},
		{"nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"},
		{"nginx:V1_a.b-c", "docker.io/library/nginx:V1_a.b-c", "nginx:V1_a.b-c"},
		{"me/app", "docker.io/me/app", "me/app"},
		{"me/app/part", "docker.io/me/app/part", "me/app/part"},
		{"docker.io/nginx", "docker.io/library/nginx", "nginx"},
		{"index.docker.io/me/app", "docker.io/me/app", "me/app"},
		{"docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"},
		{"localhost/app", "localhost/app", "localhost/app"},
		{"localhost", "docker.io/library/localhost", "localhost"},
		{"localhost:5000/app", "localhost:5000/app", "localhost:5000/app"},
		{"localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"},
		{"host:5000/a/b:tag", "host:5000/a/b:tag", "host:5000/a/b:tag"},
		{"10.0.0.1/app", "10.0.0.1/app", "10.0.0.1/app"},
		{"[::1]:5000/app:x", "[::1]:5000/app:x", "[::1]:5000/app:x"},
		{"[fe80::1]/app", "[fe80::1]/app", "[fe80::1]/app"},
		{"Upper/app", "Upper/app", "Upper/app"},
		{"a__b/c-d--e.f_g", "docker.io/a__b/c-d--e.f_g", "a__b/c-d--e.f_g"},
		{"nginx@" + sum, "docker.io/library/nginx@" + sum, "nginx@" + sum},
		{"q.io/n:t@" + sum, "q.io/n:t@" + sum, "q.io/n:t@" + sum},
		{"docker.io/foo.bar/x", "docker.io/foo.bar/x", "docker.io/foo.bar/x"},
		{"docker.io/" + hex64, "docker.io/library/" + hex64, "docker.io/library/" + hex64},
		{hex64[:63], "docker.io/library/" + hex64[:63], hex64[:63]},
	} {
		r, err := Parse(c.in)
		if err != nil || r.String() != c.full || r.Familiar() != c.familiar {
			t.Errorf("%s: want %s %s, got %s %s %v", c.in, c.full, c.familiar, r.String(), r.Familiar(), err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":", "@", "/", "a/", "/a", "a//b", "a:", "a:b:c", "a@", "a@b", "a@sha256:" + hex64[1:], "a@sha256:" + strings.ToUpper(hex64),
		"a@md5:" + hex64[:32], ".", "..", "../a", "a/../b", "a/./b", "a..b", ".a", "a.", "-a", "a-", "_a", "a_", "a___b", "a_.b", "A", "a/B",
		"a b", "a\nb", "a\x00", "a:\x1b", "a:-x", "a:.x", "a:" + strings.Repeat("x", 129), strings.Repeat("a", 256), "é", "a/é",
		"host:port/a", "host:/a", "host:999999/a", "-h.x/a", "h-.x/a", "h..x/a", "[::1/a", "[]/a", "[x]/a", "::1/a", hex64, hex64 + ":tag",
		"docker.io/", "a\\b", "a@" + sum + "@" + sum, "localhost:5000/", "http://a/b", "Upper.io/B",
	} {
		if r, err := Parse(in); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want refused, got %+v, %v", in, r, err)
		}
	}
	_, err := Parse("Nginx")
	if err == nil || !strings.Contains(err.Error(), "must be lowercase") {
		t.Errorf("want a hint at lower case, got %v", err)
	}
}

func TestTagged(t *testing.T) {
	for in, want := range map[string]string{"a": "a:latest", "a:b": "a:b", "a@" + sum: "a@" + sum} {
		if r, err := Parse(in); err != nil || r.Tagged().Familiar() != want {
			t.Errorf("%s: want %s, got %s, %v", in, want, r.Tagged().Familiar(), err)
		}
	}
}

func TestDigest(t *testing.T) {
	good := []string{sum, "sha512:" + hex64 + hex64}
	for _, in := range good {
		d, err := ParseDigest(in)
		if err != nil || d.Algorithm()+":"+d.Hex() != in || d.Short() != "0123456789ab" {
			t.Errorf("%s: got %s %s %s, %v", in, d.Algorithm(), d.Hex(), d.Short(), err)
		}
	}
	for _, in := range []string{
		"", ":", hex64, "sha256:", "sha256:../../x", "sha256:zz", "sha512:" + hex64, "sha1:" + hex64[:40], "SHA256:" + hex64,
		"sha256:" + strings.ToUpper(hex64), sum + "0", sum + "\n", "sha256:" + hex64[:63] + "/", "sha256:" + hex64[:62] + "..", "sha256::" + hex64[1:],
	} {
		if d, err := ParseDigest(in); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want refused, got %q, %v", in, d, err)
		}
	}
	var v struct{ D *Digest }
	if err := json.Unmarshal([]byte(`{"D":"sha256:../../../etc/passwd"}`), &v); err == nil {
		t.Error("want JSON with a bad digest refused")
	}
	if err := json.Unmarshal([]byte(`{"D":null}`), &v); err != nil || v.D != nil {
		t.Errorf("want null to stay nil, got %v, %v", v.D, err)
	}
}

func TestCut(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		in, name string
		at       Selector
	}{
		{"app:1@{0}", "app:1", Selector{}},
		{"app@{12}", "app", Selector{N: 12}},
		{"app@{2h}", "app", Selector{Ago: 2 * time.Hour}},
		{"app@{1h30m ago}", "app", Selector{Ago: 90 * time.Minute}},
		{"app@{1w2d}", "app", Selector{Ago: 9 * 24 * time.Hour}},
		{"app@{yesterday}", "app", Selector{Ago: 24 * time.Hour}},
		{"app@{2026-11-22T10:00:00Z}", "app", Selector{Time: now.Add(-26 * time.Hour)}},
	} {
		name, at, ok, err := Cut(c.in)
		if name != c.name || at != c.at || !ok || err != nil {
			t.Errorf("%s: got %q %+v %v %v", c.in, name, at, ok, err)
		}
	}
	if _, at, _, err := Cut("app@{2026-11-22 15:04}"); err != nil || !at.Time.Equal(time.Date(2026, 11, 22, 15, 4, 0, 0, time.Local)) {
		t.Errorf("got %v, %v", at.Time, err)
	}
	if got, ok := (Selector{Ago: time.Hour}).At(now); !ok || !got.Equal(now.Add(-time.Hour)) {
		t.Errorf("got %v %v", got, ok)
	}
	for _, in := range []string{"app@{}", "app@{-1}", "app@{x}", "app@{0h}", "app@{99999999999999999999}", "app@{9999999999w}", "app@{2147483647w2147483647w}", "app@{2h-1m}"} {
		if _, at, _, err := Cut(in); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: want refused, got %+v, %v", in, at, err)
		}
	}
	for _, in := range []string{"app", "app@" + sum, "app@{1", "app{1}"} {
		if name, _, ok, err := Cut(in); ok || err != nil || name != in {
			t.Errorf("%s: want no selector, got %q %v %v", in, name, ok, err)
		}
	}
}

// What is accepted survives a round trip and is a local path.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"nginx", "a/b:c", "localhost:5000/x@" + sum, "[::1]:5/a", "docker.io/library/a/b", "A/b", "x.y/z", "index.docker.io/q", "docker.io/docker.io/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !errors.Is(err, errdef.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, again := range []string{r.String(), r.Familiar()} {
			if got, err := Parse(again); err != nil || got != r {
				t.Fatalf("%q -> %q -> %+v, %v", s, again, got, err)
			}
		}
		path := r.String()
		if !filepath.IsLocal(path) || filepath.Clean(path) != path || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' }) {
			t.Fatalf("%q is no safe path", path)
		}
		for part := range strings.SplitSeq(r.Name(), "/") {
			if part[0] == '.' || part[0] == ':' || part[0] == '@' {
				t.Fatalf("%q: component %q", s, part)
			}
		}
	})
}

func FuzzDigestAndCut(f *testing.F) {
	f.Add(sum)
	f.Add("a@{1h2m}")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && (d.Algorithm()+":"+d.Hex() != s || strings.ContainsAny(d.Hex(), "./\x00")) {
			t.Fatalf("%q", s)
		}
		if _, at, ok, err := Cut(s); ok && err == nil && (at.N < 0 || at.Ago < 0) {
			t.Fatalf("%q: %+v", s, at)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		Parse("registry.example.org:5000/team/app:v1.2.3")
	}
}
