package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
	"hull/registry/registrytest"
)

// canary is a secret that no error, notice or request to others may have.
const canary = "canary-8d1f"

func login(string) Credential { return Credential{Username: "me", Password: canary} }

// notices collects what is told, from any goroutine.
type notices struct {
	mu   sync.Mutex
	list []string
}

func (n *notices) add(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, s)
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.list, "\n")
}

func open(t *testing.T, s *registrytest.Server, o Options) *Repository {
	t.Helper()
	return openNamed(t, s.Addr+"/app", o)
}

func openNamed(t *testing.T, name string, o Options) *Repository {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	if o.Backoff == 0 {
		o.Backoff = time.Millisecond
	}
	repo, err := Open(r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(repo.Close)
	return repo
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// source is what Upload reads.
func source(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func readBlob(t *testing.T, r *Repository, d ref.Digest, offset int64) ([]byte, int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	body, at, err := r.Blob(ctx, d, offset)
	if err != nil {
		return nil, 0, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return b, at, err
}

func TestManifest(t *testing.T) {
	for _, o := range []registrytest.Options{{}, {User: "me", Password: canary}, {User: "me", Password: canary, Bearer: true}} {
		s := registrytest.New(t, o)
		img := s.AddImage("app", "1", registrytest.Platform{}, nil)
		r := open(t, s, Options{Credential: login})
		for _, reference := range []string{"1", string(img.Digest)} {
			data, mediaType, err := r.Manifest(t.Context(), reference)
			if err != nil || mediaType != TypeManifest || registrytest.Digest(data) != img.Digest {
				t.Errorf("%+v: %s: want the manifest, got %d bytes of %s, %v", o, reference, len(data), mediaType, err)
			}
		}
		_, _, err := r.Manifest(t.Context(), "nosuch")
		if want := "manifest for " + s.Addr + "/app:nosuch not found: manifest unknown: manifest unknown"; !errors.Is(err, errdef.ErrNotFound) || err.Error() != want {
			t.Errorf("want %q, got %v", want, err)
		}
		if r.ServedBy() != s.Addr {
			t.Errorf("want served by %s, got %q", s.Addr, r.ServedBy())
		}
	}
}

// A42, A43: a manifest is what its digest, its type and itself say.
func TestManifestWrong(t *testing.T) {
	for name, f := range map[string]struct {
		effect registrytest.Effect
		want   string
	}{
		"flipped":         {registrytest.Flip(20), "sends a manifest that is not"},
		"wrong digest":    {registrytest.WrongDigest(), "which it is not"},
		"another type":    {registrytest.Header("Content-Type", TypeIndex), "the manifest itself says"},
		"too large":       {registrytest.Body(200, TypeManifest, "{"+strings.Repeat(" ", maxManifest)+"}"), "more than"},
		"no JSON":         {registrytest.Body(200, TypeManifest, "<html>"), "that is no JSON"},
		"image and index": {registrytest.Body(200, TypeIndex, `{"manifests":[],"layers":[]}`), "an image and an index"},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, registrytest.Options{})
			img := s.AddImage("app", "1", registrytest.Platform{}, nil)
			s.On("GET", "/manifests/", f.effect)
			reference := "1"
			if name == "flipped" {
				reference = string(img.Digest)
			}
			_, _, err := open(t, s, Options{}).Manifest(t.Context(), reference)
			if err == nil || !strings.Contains(err.Error(), f.want) {
				t.Errorf("want %q, got %v", f.want, err)
			}
		})
	}
}

func TestBlob(t *testing.T) {
	data := random(300_000)
	for name, effects := range map[string][]registrytest.Effect{
		"whole":              nil,
		"reset":              {registrytest.Reset(100_000)},
		"reset at once":      {registrytest.Reset(-1)},
		"reset thrice":       {registrytest.Reset(1000), registrytest.Reset(100_000), registrytest.Reset(50_000)},
		"silent":             {registrytest.Hang(1000)},
		"silent at once":     {registrytest.Hang(-1)},
		"too many":           {registrytest.TooMany("0")},
		"500":                {registrytest.Status(500), registrytest.Status(503), registrytest.Status(502)},
		"resets, no ranges":  {registrytest.Reset(100_000), registrytest.NoRanges()},
		"resets, cut, whole": {registrytest.Reset(100_000), registrytest.Reset(10), registrytest.NoRanges()},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true})
			d := s.AddBlob("app", data)
			for i, e := range effects {
				s.On("GET", "/blobs/", e).After(i).Times(1)
			}
			got, at, err := readBlob(t, open(t, s, Options{Credential: login, Idle: 300 * time.Millisecond}), d, 0)
			if err != nil || at != 0 || !bytes.Equal(got, data) {
				t.Errorf("want the blob, got %d bytes from %d on, %v", len(got), at, err)
			}
		})
	}
}

func TestBlobFromOffset(t *testing.T) {
	data := random(100_000)
	for _, noRanges := range []bool{false, true} {
		s := registrytest.New(t, registrytest.Options{NoRanges: noRanges})
		d := s.AddBlob("app", data)
		s.On("GET", "/blobs/", registrytest.Reset(20_000)).Times(1)
		got, at, err := readBlob(t, open(t, s, Options{}), d, 40_000)
		want := int64(40_000)
		if noRanges {
			want = 0
		}
		if err != nil || at != want || !bytes.Equal(got, data[want:]) {
			t.Errorf("no ranges %v: want from %d on, got %d bytes from %d on, %v", noRanges, want, len(got), at, err)
		}
	}
	s := registrytest.New(t, registrytest.Options{})
	d := s.AddBlob("app", data)
	if got, at, err := readBlob(t, open(t, s, Options{}), d, int64(len(data))); err != nil || at != 0 || !bytes.Equal(got, data) {
		t.Errorf("want a blob asked for behind its end from its beginning, got %d bytes from %d on, %v", len(got), at, err)
	}
}

// TestBlobProgress: failures count only in a row.
func TestBlobProgress(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	data := random(1 << 20)
	d := s.AddBlob("app", data)
	s.On("GET", "/blobs/", registrytest.Reset(40_000))
	got, _, err := readBlob(t, open(t, s, Options{}), d, 0)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("want the blob after twenty resets, got %d bytes, %v", len(got), err)
	}
	s.Heal()
	s.Forget()
	s.On("GET", "/blobs/", registrytest.Reset(0))
	if _, _, err := readBlob(t, open(t, s, Options{}), d, 0); err == nil {
		t.Error("want an end without progress")
	}
	if n := s.Count("GET", "/blobs/"); n < 3 || n > 12 {
		t.Errorf("want a handful of tries without progress, got %d", n)
	}
}

// TestTokenExpires: one that is not taken any more is asked for anew, once.
func TestTokenExpires(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true})
	d := s.AddBlob("app", random(1000))
	r := open(t, s, Options{Credential: login})
	for range 3 {
		if _, _, err := readBlob(t, r, d, 0); err != nil {
			t.Fatal(err)
		}
		s.ExpireTokens()
	}
	if n := s.Count("GET", "/token"); n != 3 {
		t.Errorf("want 3 tokens for 3 expiries, got %d", n)
	}
}

func TestWrongPassword(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		s := registrytest.New(t, registrytest.Options{User: "me", Password: "another", Bearer: bearer})
		s.AddImage("app", "1", registrytest.Platform{}, nil)
		_, _, err := open(t, s, Options{Credential: login}).Manifest(t.Context(), "1")
		if !errors.Is(err, errdef.ErrNotFound) || !strings.Contains(err.Error(), "pull access denied for "+s.Addr+"/app, repository does not exist or may require 'hull login'") {
			t.Errorf("bearer %v: want Docker's words, got %v", bearer, err)
		}
		if n := len(s.Requests()); n > 4 {
			t.Errorf("bearer %v: want no more than 4 requests with a wrong password, got %d", bearer, n)
		}
	}
}

func TestIdentityToken(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true})
	s.AddImage("app", "1", registrytest.Platform{}, nil)
	id := s.Identity()
	r := open(t, s, Options{Credential: func(string) Credential { return Credential{IdentityToken: id} }})
	if _, _, err := r.Manifest(t.Context(), "1"); err != nil {
		t.Error(err)
	}
}

func TestUpload(t *testing.T) {
	data := random(300_000)
	for name, f := range map[string]struct {
		o       registrytest.Options
		effects []registrytest.Effect
		sent    int // how much of it may be sent again
	}{
		"whole":              {},
		"broken":             {effects: []registrytest.Effect{registrytest.BreakUpload(100_000)}},
		"broken twice":       {effects: []registrytest.Effect{registrytest.BreakUpload(100_000), registrytest.BreakUpload(100_000)}},
		"broken, not kept":   {o: registrytest.Options{NoResume: true}, effects: []registrytest.Effect{registrytest.BreakUpload(100_000)}},
		"token expires":      {o: registrytest.Options{User: "me", Password: canary, Bearer: true}, effects: []registrytest.Effect{registrytest.BreakUpload(100_000)}},
		"basic":              {o: registrytest.Options{User: "me", Password: canary}},
		"500":                {effects: []registrytest.Effect{registrytest.Status(500)}},
		"too large at once":  {effects: []registrytest.Effect{registrytest.Status(413)}},
		"too many, then 503": {effects: []registrytest.Effect{registrytest.TooMany("0"), registrytest.Status(503)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, f.o)
			for i, e := range f.effects {
				s.On("PUT", "/blobs/", e).After(i).Times(1)
			}
			r := open(t, s, Options{Credential: login, Push: true})
			d := registrytest.Digest(data)
			if has, err := r.Has(t.Context(), d); err != nil || has {
				t.Fatalf("want no blob yet, got %v, %v", has, err)
			}
			s.ExpireTokens()
			if err := r.Upload(t.Context(), d, int64(len(data)), source(data)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(s.Blob("app", d), data) {
				t.Error("want the blob at the registry")
			}
			if has, err := r.Has(t.Context(), d); err != nil || !has {
				t.Errorf("want the blob there, got %v, %v", has, err)
			}
		})
	}
}

func TestMount(t *testing.T) {
	for _, noMount := range []bool{false, true} {
		s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true, NoMount: noMount})
		data := random(1000)
		d := s.AddBlob("other", data)
		r := open(t, s, Options{Credential: login, Push: true})
		done, err := r.Mount(t.Context(), d, "other")
		if err != nil || done == noMount {
			t.Errorf("no mount %v: got %v, %v", noMount, done, err)
		}
		if !done {
			if err := r.Upload(t.Context(), d, int64(len(data)), source(data)); err != nil {
				t.Error(err)
			}
			if n := s.Count("POST", "/uploads/"); n != 2 { // the second is after the challenge
				t.Errorf("want the upload to go on with the session of the mount, got %d sessions", n)
			}
		}
		if s.Blob("app", d) == nil {
			t.Errorf("no mount %v: want the blob there", noMount)
		}
	}
}

func TestPutManifest(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, s, Options{Push: true})
	data := []byte(`{"schemaVersion":2,"mediaType":"` + TypeManifest + `","layers":[]}`)
	if err := r.PutManifest(t.Context(), "2", TypeManifest, data); err != nil {
		t.Fatal(err)
	}
	if has, err := r.HasManifest(t.Context(), registrytest.Digest(data)); err != nil || !has {
		t.Errorf("want the manifest there, got %v, %v", has, err)
	}
	if got, mediaType := s.Manifest("app", "2"); !bytes.Equal(got, data) || mediaType != TypeManifest {
		t.Errorf("want the bytes as they were, got %s of %s", got, mediaType)
	}
}

// A52, A53: a list of tags stays at its registry, and ends.
func TestTags(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{PageSize: 3})
	for i := range 10 {
		s.AddManifest("app", fmt.Sprintf("v%d", i), TypeManifest, []byte("{}"))
	}
	r := open(t, s, Options{})
	tags, err := r.Tags(t.Context())
	if err != nil || len(tags) != 10 {
		t.Errorf("want 10 tags, got %v, %v", tags, err)
	}
	s.On("GET", "/tags/", registrytest.Endless())
	if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "pages") {
		t.Errorf("want an end of the pages, got %v", err)
	}
	s.Heal()
	// Each page is small enough, and there are always more.
	s.On("GET", "/tags/", registrytest.Body(200, "application/json", `{"tags":["`+strings.Repeat("x", 3<<20)+`"]}`))
	s.On("GET", "/tags/", registrytest.Endless())
	if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "bytes of that list") {
		t.Errorf("want an end of the bytes, got %v", err)
	}
	s.Heal()
	s.On("GET", "/tags/", registrytest.Header("Link", `<http://127.0.0.2:1/v2/app/tags/list>; rel="next"`))
	if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("want another host refused, got %v", err)
	}
}

// A51: no credentials go along, in either direction.
func TestRedirect(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true})
	b := registrytest.New(t, registrytest.Options{})
	data := random(50_000)
	d := s.AddBlob("app", data)
	b.AddBlob("app", data)
	s.On("GET", "/blobs/", registrytest.Redirect(http.StatusTemporaryRedirect, b.HTTP.URL)).After(1)
	b.On("GET", "/blobs/", registrytest.Reset(10_000)).Times(1)
	got, _, err := readBlob(t, open(t, s, Options{Credential: login}), d, 0)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("want the blob, got %d bytes, %v", len(got), err)
	}
	if len(b.Requests()) != 2 {
		t.Errorf("want 2 requests at the other host, got %d", len(b.Requests()))
	}
	for _, q := range b.Requests() {
		if q.Authorization != "" {
			t.Errorf("want no credentials at the other host, got %s", q.Authorization)
		}
	}
	// A host that asks for a password after a redirect does not get it.
	b.Heal()
	b.On("GET", "/blobs/", registrytest.Status(401, "WWW-Authenticate", `Basic realm="x"`))
	if _, _, err := readBlob(t, open(t, s, Options{Credential: login}), d, 0); err == nil {
		t.Error("want refused")
	}
	for _, q := range b.Requests() {
		if q.Authorization != "" {
			t.Errorf("want no credentials at the other host, got %s", q.Authorization)
		}
	}
	s.Heal()
	s.On("GET", "/blobs/", registrytest.Redirect(http.StatusFound, s.HTTP.URL))
	if _, _, err := readBlob(t, open(t, s, Options{Credential: login}), d, 0); err == nil || !strings.Contains(err.Error(), "redirects more than") {
		t.Errorf("want an end of redirects, got %v", err)
	}
}

// Who waits for somebody else's request for a token may give up; and when the one who asks gives up, another asks.
func TestTokenWaiters(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{User: "me", Password: canary, Bearer: true})
	d := s.AddBlob("app", random(100))
	r := open(t, s, Options{Credential: login})
	s.On("GET", "/token", registrytest.Hang(-1)).Times(1)
	read := func(ctx context.Context) error {
		body, _, err := r.Blob(ctx, d, 0)
		if err == nil {
			body.Close()
		}
		return err
	}
	var wg sync.WaitGroup
	asker, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var asked error
	wg.Go(func() { asked = read(asker) })
	for s.Count("GET", "/token") == 0 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	hurried, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := read(hurried); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	var rest [5]error
	for i := range rest {
		wg.Go(func() { rest[i] = read(t.Context()) })
	}
	giveUp()
	wg.Wait()
	if !errors.Is(asked, context.Canceled) {
		t.Errorf("who asked got %v", asked)
	}
	for _, err := range rest {
		if err != nil {
			t.Errorf("who waited got %v", err)
		}
	}
	if n := s.Count("GET", "/token"); n != 2 {
		t.Errorf("%d requests for a token, want the one that hangs and one more", n)
	}
}
