package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
)

// serve answers with h on a unix socket, and counts the connections.
func serve(t *testing.T, h http.HandlerFunc) (c *Client, dials *atomic.Int32) {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	dials = new(atomic.Int32)
	c = New(func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}, Options{Version: Version})
	t.Cleanup(func() {
		c.Close()
		srv.Close()
		wg.Wait()
	})
	return c, dials
}

// TestConnections: requests in a row share a connection, those at the same time and cut short ones do not.
func TestConnections(t *testing.T) {
	c, dials := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/wait"):
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/json"):
			io.WriteString(w, `{"Id":"x"}`+"\n")
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	ctx := t.Context()
	for range 3 {
		if err := c.ContainerStart(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ContainerInspect(ctx, "x", false); err != nil {
			t.Fatal(err)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("connections of requests in a row: want 1, got %d", n)
	}
	w, err := c.ContainerWait(ctx, "x", container.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ContainerStart(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := c.ContainerStart(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("connections with a wait under way: want 2, got %d", n)
	}
}

// TestCancel: a cancelled context ends a request at any point, and its cause is the error.
func TestCancel(t *testing.T) {
	reason := errors.New("the reason")
	for _, flush := range []bool{false, true} {
		begun := make(chan struct{})
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if flush {
				w.(http.Flusher).Flush()
			}
			close(begun)
			<-r.Context().Done()
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-begun
			cancel(reason)
		}()
		w, err := c.ContainerWait(ctx, "x", container.WaitConditionRemoved)
		if err == nil {
			_, err = w.Status()
		}
		if !errors.Is(err, reason) {
			t.Errorf("flushed %v: want %v, got %v", flush, reason, err)
		}
	}
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		status int
		header string
		kind   error
	}{
		{400, "", errdef.ErrInvalid},
		{400, "no-command", errdef.ErrNoCommand},
		{400, "cannot-run", errdef.ErrCannotRun},
		{500, "corrupt", errdef.ErrCorrupt},
		{401, "", errdef.ErrUnauthorized},
		{403, "", errdef.ErrForbidden},
		{404, "", errdef.ErrNotFound},
		{409, "", errdef.ErrConflict},
		{500, "", nil},
		{501, "", errdef.ErrNotImplemented},
		{503, "", errdef.ErrUnavailable},
		{504, "", errdef.ErrDeadline},
	} {
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(kindHeader, tt.header)
			w.WriteHeader(tt.status)
			io.WriteString(w, `{"message":"what happened"}`)
		})
		_, err := c.Info(t.Context())
		var e *Error
		if errdef.Kind(err) != tt.kind || err.Error() != "what happened" || !errors.As(err, &e) || e.Status != tt.status {
			t.Errorf("%d %s: want kind %v, got %v %#v", tt.status, tt.header, tt.kind, errdef.Kind(err), err)
		}
	}
}

// TestStrangeAnswers: text instead of JSON, and more of it than anyone wants.
func TestStrangeAnswers(t *testing.T) {
	for body, want := range map[string]string{
		"plain text\n":                    "plain text",
		"":                                "bad gateway",
		`{"other":1}`:                     `{"other":1}`,
		strings.Repeat("x", maxError+100): strings.Repeat("x", maxError),
		`{"message":"a"}` + strings.Repeat(" ", 9): "a",
	} {
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, body)
		})
		if _, err := c.Info(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%.20q: want %.20q, got %.20v", body, want, err)
		}
	}
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"ID":`) })
	if _, err := c.Info(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half an answer: want unexpected EOF, got %v", err)
	}
}

// TestHalfClose: the end of stdin arrives, and the output still comes.
func TestHalfClose(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		k, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer k.Close()
		// The first output comes with the head, in one piece.
		io.WriteString(k, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"+string(frame(1, "early ")))
		b, err := io.ReadAll(rw)
		if err != nil {
			t.Error(err)
		}
		k.Write(frame(1, "got "+string(b)))
		k.Write(frame(2, "end"))
	})
	s, err := c.ContainerAttach(t.Context(), "x", AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	io.WriteString(s, "stdin")
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := s.Copy(&out, &errs); err != nil || out.String() != "early got stdin" || errs.String() != "end" {
		t.Errorf("got %q, %q, %v", out.String(), errs.String(), err)
	}
}

// TestAttachRefused: an answer that is no stream is the error it says.
func TestAttachRefused(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"message":"not now"}`)
	})
	if _, err := c.ContainerAttach(t.Context(), "x", AttachOptions{}); errdef.Kind(err) != errdef.ErrConflict {
		t.Errorf("want a conflict, got %v", err)
	}
}

// TestUpload: a server may answer while it reads, and may refuse before it has read all.
func TestUpload(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("quiet") == "1" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"message":"no archive"}`)
			return
		}
		b := make([]byte, 4)
		io.ReadFull(r.Body, b)
		http.NewResponseController(w).EnableFullDuplex()
		io.WriteString(w, `{"stream":"first `+string(b)+`"}`+"\n")
		w.(http.Flusher).Flush()
		n, _ := io.Copy(io.Discard, r.Body)
		if n != 1<<20-4 {
			t.Errorf("the rest: want %d bytes, got %d", 1<<20-4, n)
		}
		io.WriteString(w, `{"error":"old form","errorDetail":{"code":404,"message":"it failed"}}`+"\n")
	})
	m, err := c.ImageLoad(t.Context(), strings.NewReader("abcd"+strings.Repeat("x", 1<<20-4)), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	err = m.Each(func(m jsonstream.Message) { seen = append(seen, m.Stream) })
	if !slices.Equal(seen, []string{"first abcd"}) || errdef.Kind(err) != errdef.ErrNotFound || err.Error() != "it failed" {
		t.Errorf("got %q, %v", seen, err)
	}
	if _, err := c.ImageLoad(t.Context(), strings.NewReader(strings.Repeat("x", 8<<20)), true, nil); errdef.Kind(err) != errdef.ErrInvalid {
		t.Errorf("early refusal: want its reason, got %v", err)
	}
}

// TestCreateBody: a request holds what is set, an empty list that is not nil too, and reads back as it was.
func TestCreateBody(t *testing.T) {
	swappiness, grace, memory := int64(3), 5, []string{}
	full := container.CreateRequest{
		Config: &container.Config{
			Hostname: "h", Tty: true, Env: []string{"A=<b>\u2028\"", ""}, Image: "i", StopTimeout: &grace, Labels: map[string]string{"a": "b"},
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, Volumes: map[string]struct{}{"/x": {}},
		},
		HostConfig: &container.HostConfig{
			Binds: []string{"/a:/b"}, MaskedPaths: memory, ConsoleSize: [2]uint{24, 80}, CapAdd: []string{"ALL"},
			RestartPolicy: container.RestartPolicy{Name: "no"}, Tmpfs: map[string]string{"/t": ""},
			DNS:       []netip.Addr{netip.MustParseAddr("127.0.0.1")},
			Resources: container.Resources{Memory: 1 << 40, MemorySwappiness: &swappiness, Devices: []container.DeviceMapping{{PathOnHost: "/dev/x"}}},
		},
		NetworkingConfig: &network.NetworkingConfig{},
	}
	for _, req := range []container.CreateRequest{full, {Config: &container.Config{Image: "i"}}, {}} {
		var body []byte
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ = io.ReadAll(r.Body)
			io.WriteString(w, "{}")
		})
		if _, err := c.ContainerCreate(t.Context(), CreateOptions{}, req); err != nil {
			t.Fatal(err)
		}
		slow, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		var want, got container.CreateRequest
		if err := errors.Join(json.Unmarshal(slow, &want), json.Unmarshal(body, &got)); err != nil || !reflect.DeepEqual(want, got) {
			t.Errorf("want\n%s\ngot\n%s\n%v", slow, body, err)
		}
		if bytes.Contains(body, []byte("null")) {
			t.Errorf("what is not set is sent: %s", body)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for server, want := range map[string]string{"": MinVersion, "1.41": "1.41", Version: Version, "1.99": Version, "2.0": Version, "1.39": "", "1.9": ""} {
		got, err := negotiate(server)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("negotiate(%q): want %q, got %q, %v", server, want, got, err)
		}
	}
	var paths []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Api-Version", "1.44")
		io.WriteString(w, "{}")
	})
	c.version = ""
	c.Info(t.Context())
	c.Info(t.Context())
	if want := []string{"/_ping", "/v1.44/info", "/v1.44/info"}; !slices.Equal(want, paths) {
		t.Errorf("want %q, got %q", want, paths)
	}
}

// TestPaths: a name is one element of a path whatever is in it, and a reference keeps its slashes and nothing else.
func TestPaths(t *testing.T) {
	var path string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.EscapedPath()
		io.WriteString(w, "{}")
	})
	for name, want := range map[string]string{
		"/web": "/containers/web/json", "a/../b": "/containers/a%2F..%2Fb/json", "a?b#c": "/containers/a%3Fb%23c/json", "%2e": "/containers/%252e/json",
	} {
		path = ""
		c.ContainerInspect(t.Context(), name, false)
		if path != "/v"+Version+want {
			t.Errorf("container %q: want %s, got %s", name, want, path)
		}
	}
	for _, name := range []string{"", " ", "/", ".", ".."} {
		if _, _, err := c.ContainerInspect(t.Context(), name, false); errdef.Kind(err) != errdef.ErrInvalid {
			t.Errorf("container %q: want invalid, got %v", name, err)
		}
	}
	for ref, want := range map[string]string{
		"r.example:5000/a/b:c": "/images/r.example:5000/a/b:c/json", "a@sha256:12": "/images/a@sha256:12/json", "a b?": "/images/a%20b%3F/json",
	} {
		path = ""
		c.ImageInspect(t.Context(), ref, "")
		if path != "/v"+Version+want {
			t.Errorf("image %q: want %s, got %s", ref, want, path)
		}
	}
	for _, ref := range []string{"", "/a", "a/", "a//b", "a/../b", "./a"} {
		if _, _, err := c.ImageInspect(t.Context(), ref, ""); errdef.Kind(err) != errdef.ErrInvalid {
			t.Errorf("image %q: want invalid, got %v", ref, err)
		}
	}
}

func TestDialHost(t *testing.T) {
	for host, kind := range map[string]error{
		"unix:///run/x": nil, "unix://": errdef.ErrInvalid, "/run/x": errdef.ErrInvalid, "http://x": errdef.ErrInvalid,
		"tcp://x:1": errdef.ErrNotImplemented, "ssh://-x": errdef.ErrInvalid, "ssh://x/path": errdef.ErrInvalid,
	} {
		if _, err := DialHost(host, SSH{}); errdef.Kind(err) != kind {
			t.Errorf("DialHost(%q): want %v, got %v", host, kind, err)
		}
	}
	dial, err := DialHost("unix://"+filepath.Join(t.TempDir(), "nobody"), SSH{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(dial, Options{Host: "unix://x", Version: Version}).Info(t.Context()); errdef.Kind(err) != errdef.ErrUnavailable {
		t.Errorf("nobody there: want unavailable, got %v", err)
	}
}

// TestNotHull: what only Hull has is told apart from what is not there.
func TestNotHull(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"page not found"}`)
	})
	if err := c.EventExit(t.Context(), "x"); errdef.Kind(err) != errdef.ErrNotImplemented {
		t.Errorf("want not implemented, got %v", err)
	}
}

func frame(kind byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(s))), s...)
}

func TestDemultiplex(t *testing.T) {
	long := strings.Repeat("long ", 20000)
	in := slices.Concat(frame(1, "a"), frame(2, "b"), frame(0, "c"), frame(1, ""), frame(2, long), frame(1, "d"))
	for _, r := range []io.Reader{bytes.NewReader(in), &onebyone{bytes.NewReader(in)}} {
		var out, errs bytes.Buffer
		if err := Demultiplex(&out, &errs, r); err != nil || out.String() != "acd" || errs.String() != "b"+long {
			t.Errorf("got %q, %.20q, %v", out.String(), errs.String(), err)
		}
	}
	for what, in := range map[string][]byte{
		"end in a head":  frame(1, "a")[:5],
		"end in a frame": frame(1, "abc")[:10],
		"unknown kind":   frame(9, "a"),
		"server error":   frame(3, "it broke\n"),
	} {
		if err := Demultiplex(io.Discard, io.Discard, bytes.NewReader(in)); err == nil {
			t.Errorf("%s: want an error", what)
		}
	}
}

// TestDemultiplexAtOnce: half a frame that has arrived is passed on, not held until the other half comes.
func TestDemultiplexAtOnce(t *testing.T) {
	r, w := io.Pipe()
	got := make(chan string, 8)
	var wg sync.WaitGroup
	wg.Go(func() { Demultiplex(writer(func(p []byte) { got <- string(p) }), io.Discard, r) })
	w.Write(frame(1, "abcdef")[:11])
	select {
	case s := <-got:
		if s != "abc" {
			t.Errorf("want abc, got %q", s)
		}
	case <-time.After(10 * time.Second):
		t.Error("half a frame is held back")
	}
	w.Close()
	wg.Wait()
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

type onebyone struct{ r io.Reader }

func (o *onebyone) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// FuzzDemultiplex: nothing is made up: what comes out is part of what went in, and no length allocates memory.
func FuzzDemultiplex(f *testing.F) {
	f.Add(frame(1, "a"))
	f.Add(slices.Concat(frame(2, "b"), frame(3, "err")))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 'x'})
	f.Fuzz(func(t *testing.T, in []byte) {
		var out, errs bytes.Buffer
		err := Demultiplex(&out, &errs, bytes.NewReader(in))
		if n := out.Len() + errs.Len(); n > len(in) || (err == nil && n > 0 && n+8 > len(in)) {
			t.Errorf("%d bytes of output from %d", n, len(in))
		}
	})
}

// TestWarnings: what a server did otherwise than asked reaches whoever wants to know, once each.
func TestWarnings(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Hull-Warning", "limit clamped")
		w.Header().Add("Hull-Warning", "no time namespace")
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.ContainerStart(t.Context(), "x"); err != nil { // nobody wants to know
		t.Error(err)
	}
	var got []string
	c.warn = func(w string) { got = append(got, w) }
	if err := c.ContainerStart(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	if want := []string{"limit clamped", "no time namespace"}; !slices.Equal(got, want) {
		t.Errorf("want %q, got %q", want, got)
	}
}

// TestList: a list is whole or an error, wherever its answer ends.
func TestList(t *testing.T) {
	var body string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) })
	for _, tt := range []struct {
		body string
		want int // -1 is an error
	}{
		{`[{"Id":"a","Labels":{"x":"y"}},{"Id":"b"}]` + "\n", 2},
		{"[]\n", 0},
		{"null\n", 0},
		{`[{"Id":"a"},`, -1},
		{`[{"Id":"a"}`, -1},
		{`[{"Id":"a"}}`, -1},
		{`[{"Id":1}]`, -1},
		{`{"message":"no list"}`, -1},
		{`"text"`, -1},
		{"", -1},
	} {
		body = tt.body
		got, err := c.ImageList(t.Context(), ImageListOptions{})
		if tt.want < 0 && err == nil || tt.want >= 0 && (err != nil || len(got) != tt.want) {
			t.Errorf("%q: want %d, got %v, %v", tt.body, tt.want, got, err)
		}
	}
}
