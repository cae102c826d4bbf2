package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/registry"
	"hull/registry/registrytest"

	"github.com/klauspost/compress/gzip"
)

// noisy is a layer of one file that does not become smaller, so that it takes some packets.
func noisy(t *testing.T, name string, n int) registrytest.Layer {
	t.Helper()
	data := make([]byte, n)
	rand.NewChaCha8([32]byte([]byte(strings.Repeat(name, 32)[:32]))).Read(data)
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(n), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Close()
	z := gzip.NewWriter(&packed)
	z.Write(plain.Bytes())
	z.Close()
	return registrytest.Layer{Blob: packed.Bytes(), DiffID: registrytest.Digest(plain.Bytes())}
}

const noisySize = 300 << 10

// shelf is a registry with the image app:1 of two layers.
func shelf(t *testing.T, o registrytest.Options) (*registrytest.Server, []registrytest.Layer) {
	t.Helper()
	s := registrytest.New(t, o)
	layers := []registrytest.Layer{noisy(t, "a", noisySize), noisy(t, "b", noisySize)}
	s.AddImage("app", "1", registrytest.Platform{}, nil, layers...)
	return s, layers
}

// impatient opens a repository whose waits are short.
func impatient(t *testing.T, s *registrytest.Server, repo string, push bool) *registry.Repository {
	t.Helper()
	r, err := registry.Open(named(t, s, repo), registry.Options{
		Push: push, Backoff: time.Millisecond, Idle: 300 * time.Millisecond,
		Credential: func(string) registry.Credential { return registry.Credential{Username: "me", Password: "secret"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func named(t *testing.T, s *registrytest.Server, repo string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s.Addr + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hasFiles verifies that the image has what the layers have.
func hasFiles(t *testing.T, e *Engine, name string) {
	t.Helper()
	img, err := e.Image(t.Context(), name)
	if err != nil {
		t.Error(err)
		return
	}
	for i, file := range []string{"a", "b"} {
		if st, err := os.Stat(filepath.Join(img.Layers[i].Dir, file)); err != nil || st.Size() != noisySize {
			t.Errorf("%s: %v", file, err)
		}
	}
}

var private = registrytest.Options{User: "me", Password: "secret", Bearer: true}

// What a registry, or the way to it, does wrong: either the image comes all the same, or there is an error, nothing is
// listed, and it comes when the registry is well again. Bytes that came are not asked for again.
func TestPullFromBadRegistry(t *testing.T) {
	other, _ := shelf(t, registrytest.Options{}) // takes everybody, and must see no credentials
	for name, c := range map[string]struct {
		opt  registrytest.Options
		do   func(s *registrytest.Server)
		want string // of the error; "" is none
	}{
		"resets":         {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Reset(100_000)).Times(4) }},
		"cut short":      {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Cut(200_000)).Times(2) }},
		"cut to nothing": {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Cut(0)) }, want: "bytes"},
		"too long":       {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Extra(10)) }, want: "bytes"},
		"flipped once":   {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Flip(150_000)).After(1).Times(1) }},
		"flipped":        {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Flip(150_000)) }, want: "digest"},
		"other manifest": {do: func(s *registrytest.Server) { s.On("GET", "/manifests/", registrytest.WrongDigest()) }, want: "manifest"},
		"429":            {do: func(s *registrytest.Server) { s.On("GET", "", registrytest.TooMany("0")).Times(3) }},
		"503":            {do: func(s *registrytest.Server) { s.On("GET", "", registrytest.Status(503)).Times(3) }},
		"tokens end": {opt: private, do: func(s *registrytest.Server) {
			s.On("GET", "/blobs/", func(next http.Handler) http.Handler {
				s.ExpireTokens()
				return next
			}).After(1).Times(2)
		}},
		"drips":          {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Drip(10_000, time.Millisecond)) }},
		"hangs once":     {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Hang(100_000)).Times(1) }},
		"hangs":          {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Hang(-1)) }, want: "silent"},
		"redirects":      {opt: private, do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Redirect(307, "http://"+other.Addr)) }},
		"no ranges":      {opt: registrytest.Options{NoRanges: true}, do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Reset(100_000)).Times(2) }},
		"login refused":  {opt: registrytest.Options{User: "you", Password: "other"}, do: func(*registrytest.Server) {}, want: "denied"},
		"blob not there": {do: func(s *registrytest.Server) { s.On("GET", "/blobs/", registrytest.Status(404)) }, want: "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, layers := shelf(t, c.opt)
			e := fresh(t)
			pull := func() error {
				repo := impatient(t, s, "app", false)
				_, err := e.images().Pull(t.Context(), repo, named(t, s, "app:1"), image.PullOptions{})
				return err
			}
			c.do(s)
			err := pull()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want the error %q, got %v", c.want, err)
			}
			if err == nil {
				hasFiles(t, e, s.Addr+"/app:1")
				return
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error has the password: %v", err)
			}
			if list, err := e.ListImages(t.Context(), nil); err != nil || len(list) != 0 {
				t.Errorf("want nothing listed, got %+v, %v", list, err)
			}
			if c.opt.User == "you" {
				return
			}
			s.Heal()
			if err := pull(); err != nil {
				t.Fatal(err)
			}
			hasFiles(t, e, s.Addr+"/app:1")
			_ = layers
		})
	}
	t.Cleanup(func() {
		for _, q := range other.Requests() {
			if q.Authorization != "" {
				t.Errorf("credentials went to another host: %s %s", q.Method, q.Path)
			}
		}
	})
}

// After a connection broke, only the missing bytes are asked for.
func TestPullCountsBytes(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	s.On("GET", "/blobs/", registrytest.Reset(100_000)).After(1).Times(3)
	e := fresh(t)
	if _, err := e.images().Pull(t.Context(), impatient(t, s, "app", false), named(t, s, "app:1"), image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		var sent int64
		for _, q := range s.Requests() {
			if strings.HasSuffix(q.Path, "/blobs/"+string(registrytest.Digest(l.Blob))) {
				sent += q.Sent
			}
		}
		// What was on the wire when a connection was reset may be lost, and is sent again.
		if size := int64(len(l.Blob)); sent < size || sent > size+3*100_000 {
			t.Errorf("%d bytes were sent of a blob of %d", sent, size)
		}
	}
	hasFiles(t, e, s.Addr+"/app:1")
}

// A51: a manifest may say that a layer is to be had elsewhere (CVE-2020-15157). Nobody is asked but the registry.
func TestPullAsksNobodyElse(t *testing.T) {
	s, elsewhere := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	layer := noisy(t, "a", 1000)
	d := elsewhere.AddBlob("app", layer.Blob)
	img := s.AddImage("app", "1", registrytest.Platform{}, nil, layer)
	manifest, mediaType := s.Manifest("app", string(img.Digest))
	var doc map[string]any
	if err := json.Unmarshal(manifest, &doc); err != nil {
		t.Fatal(err)
	}
	l := doc["layers"].([]any)[0].(map[string]any)
	l["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	l["urls"] = []string{elsewhere.HTTP.URL + "/v2/app/blobs/" + string(d)}
	manifest, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	s.AddManifest("app", "foreign", mediaType, manifest)
	e := fresh(t)
	if err := e.PullImage(t.Context(), s.Addr+"/app", "foreign", PullOptions{}); err != nil {
		t.Error(err) // the registry has it
	}
	s.On("GET", "/blobs/"+string(d), registrytest.Status(http.StatusNotFound))
	if err := fresh(t).PullImage(t.Context(), s.Addr+"/app", "foreign", PullOptions{}); err == nil {
		t.Error("want an error where the registry has not got it")
	}
	if q := elsewhere.Requests(); len(q) > 0 {
		t.Errorf("want nobody else asked, got %+v", q)
	}
}

// Twenty engines of one store pull one image: each layer crosses the network once.
func TestPullTwenty(t *testing.T) {
	s, layers := shelf(t, private)
	s.On("GET", "/blobs/", registrytest.Drip(50_000, time.Millisecond))
	first := fresh(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			e := Open(first.root, first.run, Options{})
			login := Remote{Credential: func(string) registry.Credential { return registry.Credential{Username: "me", Password: "secret"} }}
			if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{Remote: login}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range layers {
		if n := s.Count("GET", "/blobs/"+string(registrytest.Digest(l.Blob))); n != 1 {
			t.Errorf("a layer was asked for %d times", n)
		}
	}
	hasFiles(t, first, s.Addr+"/app:1")
}

// An image that is whole costs one question about its manifest.
func TestPullWholeAsksOnce(t *testing.T) {
	s, _ := shelf(t, registrytest.Options{})
	e := fresh(t)
	for range 2 {
		s.Forget()
		if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Requests()); n != 1 {
		t.Errorf("want one request, got %d: %+v", n, s.Requests())
	}
}

func TestPullAllTags(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{PageSize: 2})
	for i := range 5 {
		s.AddImage("app", fmt.Sprintf("t%d", i), registrytest.Platform{}, map[string]any{"author": fmt.Sprint(i)}, layers...)
	}
	e := fresh(t)
	var done []string
	err := e.PullImage(t.Context(), s.Addr+"/app", "", PullOptions{Done: func(_ image.Pulled, r ref.Ref) { done = append(done, r.Tag) }})
	if err != nil || len(done) != 6 {
		t.Errorf("got %v, %v", done, err)
	}
	hasFiles(t, e, s.Addr+"/app:t4")
	if err := e.PullImage(t.Context(), s.Addr+"/nothing", "", PullOptions{}); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// What goes wrong on the way out: the image arrives all the same, byte for byte, or the tag is not moved.
func TestPushToBadRegistry(t *testing.T) {
	for name, c := range map[string]struct {
		opt  registrytest.Options
		do   func(s *registrytest.Server)
		want string
	}{
		"well":    {do: func(*registrytest.Server) {}},
		"private": {opt: private, do: func(*registrytest.Server) {}},
		"breaks": {do: func(s *registrytest.Server) {
			s.On("", "/blobs/uploads/", registrytest.BreakUpload(100_000)).After(1).Times(2)
		}},
		"breaks, forgets": {opt: registrytest.Options{NoResume: true}, do: func(s *registrytest.Server) {
			s.On("PUT", "/blobs/uploads/", registrytest.BreakUpload(100_000)).Times(2)
		}},
		"429":           {do: func(s *registrytest.Server) { s.On("", "", registrytest.TooMany("0")).Times(3) }},
		"503":           {do: func(s *registrytest.Server) { s.On("", "", registrytest.Status(503)).Times(3) }},
		"refuses":       {do: func(s *registrytest.Server) { s.On("PUT", "/manifests/", registrytest.Status(403)) }, want: "denied"},
		"refuses blobs": {do: func(s *registrytest.Server) { s.On("POST", "/blobs/", registrytest.Status(403)) }, want: "denied"},
		"login refused": {opt: registrytest.Options{User: "you", Password: "other"}, do: func(*registrytest.Server) {}, want: "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, layers := shelf(t, registrytest.Options{})
			e := fresh(t)
			if err := e.PullImage(t.Context(), from.Addr+"/app", "1", PullOptions{}); err != nil {
				t.Fatal(err)
			}
			s := registrytest.New(t, c.opt)
			target := named(t, s, "copy:1")
			if err := e.TagImage(t.Context(), from.Addr+"/app:1", target.String()); err != nil {
				t.Fatal(err)
			}
			c.do(s)
			_, err := e.images().Push(t.Context(), impatient(t, s, "copy", true), target, image.PushOptions{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want the error %q, got %v", c.want, err)
			}
			got, gotType := s.Manifest("copy", "1")
			if err != nil {
				if got != nil {
					t.Error("there is a tag although the push failed")
				}
				return
			}
			if want, wantType := from.Manifest("app", "1"); !bytes.Equal(got, want) || gotType != wantType {
				t.Errorf("want the manifest %s %s, got %s %s", wantType, want, gotType, got)
			}
			for _, l := range layers {
				if !bytes.Equal(s.Blob("copy", registrytest.Digest(l.Blob)), l.Blob) {
					t.Error("a layer is not what it was")
				}
			}
		})
	}
}

// A second repository of a registry gets its blobs from the first.
func TestPushMounts(t *testing.T) {
	for name, o := range map[string]registrytest.Options{"mounts": {}, "does not mount": {NoMount: true}} {
		s, layers := shelf(t, o)
		e := fresh(t)
		if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := e.TagImage(t.Context(), s.Addr+"/app:1", s.Addr+"/team/app:2"); err != nil {
			t.Fatal(err)
		}
		var actions []string
		err := e.PushImage(t.Context(), s.Addr+"/team/app", "2", PushOptions{Progress: func(p image.Progress) { actions = append(actions, p.Action) }})
		if err != nil {
			t.Fatal(err)
		}
		if mounted := strings.Count(strings.Join(actions, "\n"), "Mounted from "+s.Addr+"/app"); mounted != len(layers) && !o.NoMount || mounted > 0 && o.NoMount {
			t.Errorf("%s: %q", name, actions)
		}
		for _, l := range layers {
			if !bytes.Equal(s.Blob("team/app", registrytest.Digest(l.Blob)), l.Blob) {
				t.Errorf("%s: a layer is not there", name)
			}
		}
	}
}

// An index is pushed whole when all of it is here, else this machine's image, which is said.
func TestPushIndex(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	mine := s.AddImage("app", "", registrytest.Platform{}, nil, layers...)
	arm := s.AddImage("app", "", registrytest.Platform{OS: "linux", Architecture: "riscv64"}, nil, layers[0])
	x := s.AddIndex("app", "all", mine, arm)
	for _, all := range []bool{false, true} {
		e := fresh(t)
		if err := e.PullImage(t.Context(), s.Addr+"/app", "all", PullOptions{AllPlatforms: all}); err != nil {
			t.Fatal(err)
		}
		to := registrytest.New(t, registrytest.Options{})
		if err := e.TagImage(t.Context(), s.Addr+"/app:all", to.Addr+"/copy:1"); err != nil {
			t.Fatal(err)
		}
		var got image.Pushed
		if err := e.PushImage(t.Context(), to.Addr+"/copy", "1", PushOptions{Done: func(p image.Pushed, _ ref.Ref) { got = p }}); err != nil {
			t.Fatal(err)
		}
		want := x.Digest
		if !all {
			want = mine.Digest
		}
		data, _ := to.Manifest("copy", "1")
		if got.Digest != want || registrytest.Digest(data) != want || (got.Index == x.Digest) == all {
			t.Errorf("all platforms %v: want %s, got %+v, %s", all, want, got, data)
		}
		if _, there := to.Manifest("copy", string(arm.Digest)); (there != "") != all {
			t.Errorf("all platforms %v: is the other platform's there? %q", all, there)
		}
		err := e.PushImage(t.Context(), to.Addr+"/copy", "1", PushOptions{Platform: "linux/riscv64"})
		if (err == nil) != all {
			t.Errorf("all platforms %v: of one platform: %v", all, err)
		}
	}
}

// TestCreateForPlatform: of an image for several platforms a container gets that of the one it is asked for, also when that is
// listed under no name of its own, and none when that is not here.
func TestCreateForPlatform(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	mine := s.AddImage("app", "", registrytest.Platform{}, nil, layers...)
	risc := s.AddImage("app", "", registrytest.Platform{OS: "linux", Architecture: "riscv64"}, map[string]any{"author": "risc"}, layers[0])
	s.AddIndex("app", "all", mine, risc)
	name := s.Addr + "/app:all"
	e := fresh(t)
	if err := e.PullImage(t.Context(), s.Addr+"/app", "all", PullOptions{AllPlatforms: true}); err != nil {
		t.Fatal(err)
	}
	for platform, want := range map[string]int{"": len(layers), "linux/" + runtime.GOARCH: len(layers), "linux": len(layers), "linux/riscv64": 1, "riscv64": 1} {
		id, _, err := e.Create(t.Context(), "", &Config{Image: name, Platform: platform, Cmd: []string{"true"}}, &Host{}, false)
		if err != nil {
			t.Errorf("%q: %v", platform, err)
			continue
		}
		c, err := e.Inspect(t.Context(), id)
		if err != nil || len(c.Layers) != want {
			t.Errorf("%q: want %d layers, got %+v, %v", platform, want, c, err)
		}
	}
	_, _, err := e.Create(t.Context(), "", &Config{Image: name, Platform: "linux/s390x"}, &Host{}, false)
	if want := "image with reference " + name + " was found but does not provide the specified platform (linux/s390x)"; !errors.Is(err, errdef.ErrNotFound) || err.Error() != want {
		t.Errorf("want %q, got %v", want, err)
	}
}

// A blob that was dropped to save space is fetched on the way, and a damaged one is not spread.
func TestPushDropped(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	e := fresh(t)
	if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(e.root, "blobs/sha256", registrytest.Digest(layers[0].Blob).Hex())
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	if err := e.PullImage(t.Context(), s.Addr+"/app", "1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	to := registrytest.New(t, registrytest.Options{})
	if err := e.TagImage(t.Context(), s.Addr+"/app:1", to.Addr+"/copy:1"); err != nil {
		t.Fatal(err)
	}
	if err := e.PushImage(t.Context(), to.Addr+"/copy", "1", PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(to.Blob("copy", registrytest.Digest(layers[0].Blob)), layers[0].Blob) {
		t.Error("the layer that was not here is not there")
	}
}

// Cancelled, a pull ends whatever the registry does.
func TestPullCancelledWhileItHangs(t *testing.T) {
	s, _ := shelf(t, registrytest.Options{})
	s.On("GET", "/blobs/", registrytest.Hang(1000))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
	if err := fresh(t).PullImage(ctx, s.Addr+"/app", "1", PullOptions{}); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// A repair fetches with the credentials of whoever asks for it, and says what is missing without them.
func TestCheckFetchesWithLogin(t *testing.T) {
	s, layers := shelf(t, private)
	e := fresh(t)
	login := Remote{Credential: func(name string) registry.Credential {
		if name == s.Addr {
			return registry.Credential{Username: "me", Password: "secret"}
		}
		return registry.Credential{}
	}}
	name := s.Addr + "/app:1"
	if err := e.PullImage(t.Context(), name, "", PullOptions{Remote: login, Progress: func(image.Progress) {}}); err != nil {
		t.Fatal(err)
	}
	if want := []string{s.Addr + "/app"}; !slices.Equal(e.Origins(false), want) {
		t.Errorf("got %v, want %v", e.Origins(false), want)
	}
	blob := filepath.Join(e.root, "blobs/sha256", registrytest.Digest(layers[0].Blob).Hex())
	if err := os.Truncate(blob, 10); err != nil {
		t.Fatal(err)
	}
	found, err := e.CheckStore(t.Context(), CheckOptions{Repair: true})
	if err != nil || len(found) == 0 || found[0].Repaired || !strings.Contains(found[0].Cure, s.Addr) {
		t.Fatalf("without a login: %+v, %v", found, err)
	}
	found, err = e.CheckStore(t.Context(), CheckOptions{Repair: true, Remote: login})
	if err != nil || len(found) == 0 || slices.ContainsFunc(found, func(d image.Damage) bool { return !d.Repaired }) {
		t.Fatalf("with a login: %+v, %v", found, err)
	}
	if found, err = e.CheckStore(t.Context(), CheckOptions{}); err != nil || len(found) > 0 {
		t.Errorf("after it: %+v, %v", found, err)
	}
	hasFiles(t, e, name)
}
