package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestStalledTar: a client that stops reading a tar does not keep what is behind it.
func TestStalledTar(t *testing.T) {
	ended := make(chan any, 1)
	dial, stop := Pipe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			ended <- recover()
			panic(http.ErrAbortHandler)
		}()
		q := &request{Request: r, w: w, stall: 10 * time.Millisecond}
		_ = q.tar(zeros{})
	}))
	defer stop()
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: hull\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if p := <-ended; p != http.ErrAbortHandler {
		t.Errorf("want that the answer is broken off, got %v", p)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestTarThenMore: behind a whole tar the connection serves the next request, however late it comes.
func TestTarThenMore(t *testing.T) {
	const stall = 10 * time.Millisecond
	dial, stop := Pipe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{Request: r, w: w, stall: stall}
		_ = q.tar(io.LimitReader(zeros{}, 1000))
	}))
	defer stop()
	dialed := 0
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialed++
		return dial(ctx)
	}}}
	for range 2 {
		if res, body := do(t, c, "GET", "/", ""); res.StatusCode != http.StatusOK || len(body) != 1000 {
			t.Errorf("got %s and %d bytes", res.Status, len(body))
		}
		time.Sleep(2 * stall)
	}
	if dialed != 1 {
		t.Errorf("%d connections for two requests", dialed)
	}
}
