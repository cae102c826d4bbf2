package api

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"hull/engine"
)

// client returns an HTTP client of a fresh engine's handler, in process.
func client(t *testing.T) *http.Client {
	t.Helper()
	dial, stop := Pipe(New(engine.Open(t.TempDir(), t.TempDir(), engine.Options{}), Options{}))
	t.Cleanup(stop)
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
}

func do(t *testing.T, c *http.Client, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://hull"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestPing(t *testing.T) {
	c := client(t)
	for _, path := range []string{"/_ping", "/v1.24/_ping", "/v1.55/_ping"} {
		res, body := do(t, c, "GET", path, "")
		if res.StatusCode != 200 || body != "OK" || res.Header.Get("Api-Version") != Version {
			t.Errorf("GET %s: %s %q, Api-Version %q", path, res.Status, body, res.Header.Get("Api-Version"))
		}
	}
	if res, body := do(t, c, "HEAD", "/_ping", ""); res.StatusCode != 200 || body != "" {
		t.Errorf("HEAD /_ping: %s %q", res.Status, body)
	}
}

func TestRefusals(t *testing.T) {
	c := client(t)
	for _, tt := range []struct {
		method, path string
		header       []string
		code         int
		message      string
	}{
		{"GET", "/nothing", nil, 404, "page not found"},
		{"PUT", "/_ping", nil, 404, "page not found"},
		{"GET", "/v1.23/_ping", nil, 400, "too old"},
		{"GET", "/v1.999/_ping", nil, 400, "too new"},
		{"GET", "/v2.0/_ping", nil, 404, "page not found"},
		{"GET", "/_ping", []string{"Origin", "https://example.com"}, 403, "web pages"},
		{"GET", "/_ping", []string{"Sec-Fetch-Site", "cross-site"}, 403, "web pages"},
	} {
		res, body := do(t, c, tt.method, tt.path, "", tt.header...)
		if res.StatusCode != tt.code || !strings.Contains(body, tt.message) || !strings.HasPrefix(body, `{"message":`) {
			t.Errorf("%s %s: want %d %q, got %s %s", tt.method, tt.path, tt.code, tt.message, res.Status, body)
		}
	}
}

func TestMatchPath(t *testing.T) {
	for _, tt := range []struct {
		pattern, path, name string
		ok                  bool
	}{
		{"/containers/{name}/json", "/containers/web/json", "web", true},
		{"/containers/{name}/json", "/containers//json", "", false},
		{"/containers/{name}/json", "/containers/a/b/json", "", false},
		{"/containers/{name}", "/containers/web", "web", true},
		{"/images/{name...}/json", "/images/example.com/a/b:1/json", "example.com/a/b:1", true},
		{"/images/{name...}/json", "/images/json", "", false},
	} {
		name, ok := matchPath(tt.pattern, tt.path)
		if name != tt.name || ok != tt.ok {
			t.Errorf("matchPath(%q, %q) = %q, %v; want %q, %v", tt.pattern, tt.path, name, ok, tt.name, tt.ok)
		}
	}
}

// TestPipeHalfClose: the end of what the client writes must reach the handler while it still answers.
func TestPipeHalfClose(t *testing.T) {
	dial, stop := Pipe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		b, err := io.ReadAll(rw)
		if err != nil {
			t.Error(err)
		}
		_, _ = c.Write(append([]byte("got "), b...))
	}))
	defer stop()
	c, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: hull\r\n\r\nstdin"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := []byte("got stdin"); err != nil || !bytes.Equal(want, got) {
		t.Errorf("want %q, got %q, %v", want, got, err)
	}
}

func TestPipeClosed(t *testing.T) {
	dial, stop := Pipe(http.NotFoundHandler())
	stop()
	if _, err := dial(t.Context()); err == nil {
		t.Error("dial after close succeeded")
	}
}
