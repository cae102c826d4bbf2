package serve

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hull/ref"
)

// fixed is a store with one manifest, which takes any upload: that takes a while to finish.
type fixed struct{ Store }

func (fixed) Repository(string, string) (Repository, error) { return fixedRepository{}, nil }

type fixedRepository struct{ Repository }

const (
	manifestSize = 64 << 10
	finishTime   = 5 * time.Minute
)

func (fixedRepository) Manifest(context.Context, string) ([]byte, string, ref.Digest, error) {
	return make([]byte, manifestSize), "text/plain", ref.Digest("sha256:" + strings.Repeat("0", 64)), nil
}

func (fixedRepository) Append(_ context.Context, _ string, _, _ int64, body Body) (int64, error) {
	return io.Copy(io.Discard, body)
}

func (fixedRepository) Finish(context.Context, string, ref.Digest) error {
	time.Sleep(finishTime)
	return nil
}

// connected runs f with a connection to a registry, on a clock of its own.
func connected(t *testing.T, f func(t *testing.T, c net.Conn, r *bufio.Reader)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		end := make(chan struct{})
		l := &single{conn: make(chan net.Conn, 1), closed: end}
		l.conn <- far
		srv := server(New(fixed{}, Options{Writable: true}), nil)
		srv.Protocols.SetHTTP1(true)
		defer srv.Close()
		defer close(end)
		defer near.Close()
		go srv.Serve(l) // until end
		f(t, near, bufio.NewReader(near))
	})
}

// A client may take its time with a blob, and the disk with it, whatever was asked on the same connection before.
func TestSlowUpload(t *testing.T) {
	connected(t, func(t *testing.T, c net.Conn, r *bufio.Reader) {
		ask := func(q *http.Request) *http.Response {
			t.Helper()
			sent := make(chan error, 1)
			go func() { sent <- q.Write(c) }()
			res, err := http.ReadResponse(r, q)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			return res
		}
		get, _ := http.NewRequest("GET", "http://127.0.0.1/v2/app/manifests/latest", nil)
		if res := ask(get); res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		const chunk = 8 << 10 // no buffer of net/http holds it back
		body, w := io.Pipe()
		defer body.Close()
		go func() {
			for range 20 {
				time.Sleep(bodyIdle / 2)
				w.Write(make([]byte, chunk))
			}
			w.Close()
		}()
		put, _ := http.NewRequest("PUT", "http://127.0.0.1/v2/app/blobs/uploads/1?digest=sha256:"+strings.Repeat("0", 64), body)
		put.ContentLength = 20 * chunk
		if res := ask(put); res.StatusCode != http.StatusCreated {
			t.Fatal(res.Status)
		}
	})
}

// A client that does not read its answer, or does not send its body, is left.
func TestStalled(t *testing.T) {
	for _, request := range []string{
		"GET /v2/app/manifests/latest HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"GET /v2/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"PUT /v2/app/blobs/uploads/1?digest=sha256:" + strings.Repeat("0", 64) + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n12345",
	} {
		connected(t, func(t *testing.T, c net.Conn, r *bufio.Reader) {
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
			time.Sleep(bodyIdle + finishTime)
			if n, _ := io.Copy(io.Discard, r); n > 0 {
				t.Errorf("%.40q: an answer was kept for a client that read nothing for minutes", request)
			}
		})
	}
}
