package engine

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hull/errdef"
	"hull/image"
	"hull/registry"
	"hull/registry/registrytest"
	"hull/registry/serve"

	"github.com/klauspost/compress/gzip"
)

// lean is an engine with app:1 of s, of which the blobs of the layers were dropped.
func lean(t *testing.T, s *registrytest.Server, o Remote) *Engine {
	t.Helper()
	e := fresh(t)
	if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{Remote: o}); err != nil {
		t.Fatal(err)
	}
	c, err := e.GC(t.Context(), GCOptions{Drop: new(true)})
	if err != nil || len(c.Dropped) != 2 || len(c.Stay) > 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	s.Forget()
	return e
}

var me = Remote{Credential: func(string) registry.Credential { return registry.Credential{Username: "me", Password: "secret"} }}

// pushed verifies that repo:1 is byte for byte the image app:1 of from.
func pushed(t *testing.T, from, to *registrytest.Server, repo string, layers []registrytest.Layer) {
	t.Helper()
	want, _ := from.Manifest("app", "1")
	if got, _ := to.Manifest(repo, "1"); !bytes.Equal(got, want) {
		t.Errorf("%s: another manifest", repo)
	}
	for _, l := range layers {
		if !bytes.Equal(to.Blob(repo, registrytest.Digest(l.Blob)), l.Blob) {
			t.Errorf("%s: a layer is not what it was", repo)
		}
	}
}

// What was dropped arrives everywhere as it was: where it is already, in another repository, at another registry, whatever
// goes wrong on the way, and with a login.
func TestPushAfterDrop(t *testing.T) {
	for name, c := range map[string]struct {
		o      registrytest.Options
		remote Remote
		fault  func(s *registrytest.Server)
	}{
		"well":          {},
		"with a login":  {o: private, remote: me},
		"without range": {fault: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.NoRanges()) }},
		"cut off":       {fault: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Reset(100<<10)).Times(1) }},
		"a wrong byte":  {fault: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Flip(1000)).Times(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			s, layers := shelf(t, c.o)
			e := lean(t, s, c.remote)
			to := registrytest.New(t, registrytest.Options{})
			for _, target := range []string{s.Addr + "/team/app:1", to.Addr + "/copy:1"} {
				if err := e.TagImage(t.Context(), s.Addr+"/app:1", target); err != nil {
					t.Fatal(err)
				}
			}
			push := func(name string) {
				t.Helper()
				if err := e.PushImage(t.Context(), name, "1", PushOptions{Remote: c.remote}); err != nil {
					t.Fatal(err)
				}
			}
			push(s.Addr + "/app")
			push(s.Addr + "/team/app")
			pushed(t, s, s, "team/app", layers)
			if n := s.Count("GET", "/blobs/"); n > 0 {
				t.Errorf("%d blobs were fetched to be pushed to where they are", n)
			}
			if c.fault != nil {
				c.fault(s)
			}
			push(to.Addr + "/copy")
			pushed(t, s, to, "copy", layers)
			if left, _ := filepath.Glob(filepath.Join(e.root, "ingest", "*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			d, err := e.Disk(t.Context())
			if err != nil || d.Dropped == 0 || d.Droppable != 0 {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// Without a login, or when nobody has it any more, a push and a save say of which image what is missing, and from where.
func TestDroppedAndGone(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) (*Engine, *registrytest.Server){
		"no login": func(t *testing.T) (*Engine, *registrytest.Server) {
			s, _ := shelf(t, private)
			return lean(t, s, me), s
		},
		"gone": func(t *testing.T) (*Engine, *registrytest.Server) {
			s, _ := shelf(t, registrytest.Options{})
			e := lean(t, s, Remote{})
			s.Delete("app")
			return e, s
		},
		"wrong": func(t *testing.T) (*Engine, *registrytest.Server) {
			s, _ := shelf(t, registrytest.Options{})
			e := lean(t, s, Remote{})
			s.On("GET", "/blobs/", registrytest.Flip(1000))
			return e, s
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, s := prepare(t)
			to := registrytest.New(t, registrytest.Options{})
			if err := e.TagImage(t.Context(), s.Addr+"/app:1", to.Addr+"/copy:1"); err != nil {
				t.Fatal(err)
			}
			errs := []error{e.PushImage(t.Context(), to.Addr+"/copy", "1", PushOptions{})}
			for _, format := range []string{image.FormatDual, image.FormatDockerArchive} {
				out, err := e.SaveImages(t.Context(), []string{s.Addr + "/app:1"}, image.SaveOptions{Format: format}, Remote{})
				if err == nil {
					out.Close()
				}
				errs = append(errs, err)
			}
			for i, err := range errs {
				if !errors.Is(err, errdef.ErrUnavailable) {
					t.Errorf("%d: got %v", i, err)
					continue
				}
				for _, part := range []string{"image " + s.Addr + "/app:1", "blob sha256:", s.Addr + "/app", "hull registry test", "log in to " + s.Addr} {
					if i == 0 && part == "image "+s.Addr+"/app:1" {
						part = "image " + to.Addr + "/copy:1"
					}
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%d: %q is not said: %v", i, part, err)
					}
				}
			}
			if m, _ := to.Manifest("copy", "1"); m != nil {
				t.Error("half an image was pushed")
			}
		})
	}
}

// An image upon one whose blobs were dropped can be made, saved, pushed and is itself dropped once it is pushed.
func TestChildOfDropped(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	e := lean(t, s, Remote{})
	parent, err := e.Image(t.Context(), s.Addr+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	to := registrytest.New(t, registrytest.Options{})
	top := noisy(t, "c", 1000)
	z, err := gzip.NewReader(bytes.NewReader(top.Blob))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.images().Derive(t.Context(), parent.ID, z, image.DeriveOptions{Ref: to.Addr + "/child:1"}); err != nil {
		t.Fatal(err)
	}
	if c, err := e.GC(t.Context(), GCOptions{Drop: new(true)}); err != nil || len(c.Dropped) > 0 {
		t.Errorf("what nobody has was dropped: %+v, %v", c, err)
	}
	if err := e.PushImage(t.Context(), to.Addr+"/child", "1", PushOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if !bytes.Equal(to.Blob("child", registrytest.Digest(l.Blob)), l.Blob) {
			t.Error("a layer of the parent is not there")
		}
	}
	c, err := e.GC(t.Context(), GCOptions{Drop: new(true)})
	if err != nil || len(c.Dropped) != 1 || c.Dropped[0].From != to.Addr+"/child" {
		t.Errorf("%+v, %v", c, err)
	}
	hasFiles(t, e, to.Addr+"/child:1")
}

// A pull and a check know what was dropped on purpose.
func TestPullAfterDrop(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	e := lean(t, s, Remote{})
	if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	s.AddImage("other", "1", registrytest.Platform{}, map[string]any{"author": "another"}, layers...)
	if err := e.PullImage(t.Context(), s.Addr+"/other", "1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if n := s.Count("GET", registrytest.Digest(l.Blob).Hex()); n > 0 {
			t.Errorf("a layer that is unpacked was fetched %d times", n)
		}
	}
	found, err := e.CheckStore(t.Context(), CheckOptions{})
	if err != nil || len(found) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
	img, err := e.Image(t.Context(), s.Addr+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(img.Layers[0].Dir, "evil"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err = e.CheckStore(t.Context(), CheckOptions{Repair: true})
	if err != nil || len(found) == 0 || slices.ContainsFunc(found, func(d image.Damage) bool { return !d.Repaired }) {
		t.Errorf("%+v, %v", found, err)
	}
	hasFiles(t, e, s.Addr+"/app:1")
}

// Who pulls from this engine gets what it has dropped.
func TestOfferDropped(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	e := lean(t, s, Remote{})
	o := e.images().Offer()
	o.From = e.origins(Remote{})
	r := o.Repository(named(t, s, "app"))
	d := registrytest.Digest(layers[1].Blob)
	for range 2 {
		f, err := r.Blob(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if f.Close(); err != nil || !bytes.Equal(data, layers[1].Blob) {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	}
	if n := s.Count("GET", d.Hex()); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}

// TestOfferDroppedPrivate: what a private registry holds is fetched with the logins of whoever serves. Only that registry is
// shown one, and no client.
func TestOfferDroppedPrivate(t *testing.T) {
	s, layers := shelf(t, private)
	var mu sync.Mutex // protects asked
	asked := map[string]bool{}
	mine := Remote{Credential: func(name string) registry.Credential {
		mu.Lock()
		defer mu.Unlock()
		if asked[name] = true; name != s.Addr {
			return registry.Credential{}
		}
		return registry.Credential{Username: "me", Password: "secret"}
	}}
	e := lean(t, s, mine)
	if err := e.TagImage(t.Context(), s.Addr+"/app:1", "app:1"); err != nil {
		t.Fatal(err)
	}
	d := registrytest.Digest(layers[1].Blob)
	get := func(remote Remote) *httptest.ResponseRecorder {
		t.Helper()
		h, err := e.Offer(serve.Options{}, remote)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1/v2/app/blobs/"+string(d), nil))
		return w
	}
	if w := get(Remote{}); w.Code < 400 {
		t.Errorf("without a login: %d", w.Code)
	}
	clear(asked)
	w := get(mine)
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), layers[1].Blob) {
		t.Errorf("with a login: %d, %d bytes", w.Code, w.Body.Len())
	}
	if len(asked) != 1 || !asked[s.Addr] {
		t.Errorf("logins were looked up for %v", asked)
	}
	for key, values := range w.Header() {
		if strings.Contains(strings.Join(values, " "), "secret") || key == "Authorization" {
			t.Errorf("the client gets %s: %v", key, values)
		}
	}
}
