package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
	"hull/registry/registrytest"
)

// serveOne serves h over HTTP/2 at one end of a connection, and returns the other.
func serveOne(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func name(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestThrough: a repository at the other end of a connection is as any other, several requests at once.
func TestThrough(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	data := bytes.Repeat([]byte("layer"), 1<<20)
	d := s.AddBlob("app", data)
	m := s.AddImage("app", "1", registrytest.Platform{}, nil)
	repo, err := Through(t.Context(), serveOne(t, s.HTTP.Config.Handler), "ssh://box", name(t, "app:1"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	manifest, _, err := repo.Manifest(t.Context(), "1")
	if err != nil || Digest(manifest) != m.Digest {
		t.Fatalf("manifest: %v", err)
	}
	slow, _, err := repo.Blob(t.Context(), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	rest, at, err := repo.Blob(t.Context(), d, 100) // while nobody reads the other one
	if err != nil || at != 100 {
		t.Fatalf("from 100: at %d, %v", at, err)
	}
	defer rest.Close()
	if got, err := io.ReadAll(rest); err != nil || !bytes.Equal(got, data[100:]) {
		t.Errorf("from 100: %d bytes, %v", len(got), err)
	}
	if got, err := io.ReadAll(slow); err != nil || !bytes.Equal(got, data) {
		t.Errorf("whole: %d bytes, %v", len(got), err)
	}
	up := []byte("pushed")
	ud := Digest(up)
	if has, err := repo.Has(t.Context(), ud); has || err != nil {
		t.Errorf("before: %v, %v", has, err)
	}
	if err := repo.Upload(t.Context(), ud, int64(len(up)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(up)), nil }); err != nil {
		t.Error(err)
	}
	if got := s.Blob("app", ud); !bytes.Equal(got, up) {
		t.Errorf("uploaded: %q", got)
	}
	if _, _, err = repo.Manifest(t.Context(), "2"); !errors.Is(err, errdef.ErrNotFound) || err.Error() != "ssh://box has no image app:2" {
		t.Errorf("no such tag: %v", err)
	}
}

// TestThroughNames: a name says at the other engine what it says here.
func TestThroughNames(t *testing.T) {
	for in, want := range map[string]string{
		"app:1": "/v2/app/manifests/1", "docker.io/library/app:1": "/v2/app/manifests/1", "me/app:1": "/v2/me/app/manifests/1",
		"ghcr.io/me/app:1": "/v2/ghcr.io/me/app/manifests/1", "localhost:5000/app:1": "/v2/localhost:5000/app/manifests/1",
	} {
		s := registrytest.New(t, registrytest.Options{})
		repo, err := Through(t.Context(), serveOne(t, s.HTTP.Config.Handler), "ssh://box", name(t, in), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := repo.Manifest(t.Context(), "1"); err == nil {
			t.Errorf("%s is there", in)
		}
		repo.Close()
		if s.Count("GET", want) != 1 {
			t.Errorf("%s asks for %+v", in, s.Requests())
		}
	}
}

// TestThroughEnd: when the connection ends nobody makes another one, and nobody waits for it.
func TestThroughEnd(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	d := s.AddBlob("app", bytes.Repeat([]byte("x"), 8<<20))
	conn := serveOne(t, s.HTTP.Config.Handler)
	repo, err := Through(t.Context(), conn, "ssh://box", name(t, "app"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	body, _, err := repo.Blob(t.Context(), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := io.Copy(io.Discard, body); err == nil || !strings.Contains(err.Error(), "the connection to ssh://box has ended") {
		t.Errorf("read: %v", err)
	}
}

// TestThroughStranger: whoever does not speak the protocol is said to, and who never answers is waited for as long as the
// caller likes.
func TestThroughStranger(t *testing.T) {
	for _, says := range []string{"Welcome!\n", "HTTP/1.1 200 OK\r\n\r\n", ""} {
		near, far := net.Pipe()
		go func() { // ends with far
			go func() {
				io.WriteString(far, says)
				if says != "" {
					far.Close()
				}
			}()
			io.Copy(io.Discard, far)
		}()
		ctx := t.Context()
		want := "ssh://box speaks no hull registry"
		if says == "" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, 50*time.Millisecond, errors.New("we have waited"))
			defer cancel()
			want = "we have waited"
		}
		if _, err := Through(ctx, near, "ssh://box", name(t, "app"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", says, err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%q: the connection is still open: %v", says, err)
		}
		far.Close()
	}
}

// TestThroughHostile: a peer sends us nowhere, and gets nothing that is for others.
func TestThroughHostile(t *testing.T) {
	var elsewhere atomic.Int32
	other := registrytest.New(t, registrytest.Options{})
	other.HTTP.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	var secret atomic.Bool
	conn := serveOne(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "" {
			secret.Store(true)
		}
		switch {
		case q.URL.Path == "/v2/":
		case strings.Contains(q.URL.Path, "/manifests/"):
			http.Redirect(w, q, "http://"+other.Addr+"/v2/app/manifests/1", http.StatusTemporaryRedirect)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+other.Addr+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	repo, err := Through(t.Context(), conn, "ssh://box", name(t, "app"), Options{
		Credential: func(string) Credential { return Credential{Username: "me", Password: "secret"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	if _, _, err := repo.Manifest(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "ssh://box sends us to "+other.Addr+": refused") {
		t.Errorf("a redirect: %v", err)
	}
	if _, _, err := repo.Blob(t.Context(), Digest(nil), 0); err == nil {
		t.Error("a login is asked for, and there is a blob")
	}
	if elsewhere.Load() != 0 || secret.Load() {
		t.Errorf("%d requests went elsewhere; credentials were sent: %v", elsewhere.Load(), secret.Load())
	}
}
