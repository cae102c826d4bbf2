package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// asked is the answer of h to a POST of body.
func asked(t *testing.T, h http.HandlerFunc, body string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/x?q=1", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return Call(h)(req)
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCall(t *testing.T) {
	resp, err := asked(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Kind", "before")
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("Kind", "too late")
		w.WriteHeader(http.StatusOK)
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.URL.RawQuery+" "+string(b))
	}, "in")
	if err != nil {
		t.Fatal(err)
	}
	if want, got := "POST q=1 in", readAll(t, resp.Body); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
	if resp.StatusCode != http.StatusTeapot || resp.Header.Get("Kind") != "before" {
		t.Errorf("got status %d, Kind %q", resp.StatusCode, resp.Header.Get("Kind"))
	}
	resp.Body.Close()

	resp, err = asked(t, func(http.ResponseWriter, *http.Request) {}, "")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("of a handler that says nothing: %v, %v", resp, err)
	}
}

// TestCallFlushed: the head is there before the handler is done, as a wait needs it.
func TestCallFlushed(t *testing.T) {
	goOn := make(chan struct{})
	resp, err := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "first ")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-goOn
		io.WriteString(w, "second")
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if want, got := "first second", readAll(t, resp.Body); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
}

// TestCallAborted: an answer that was broken off must not look like a short one.
func TestCallAborted(t *testing.T) {
	_, err := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	}, "")
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("before the head: %v", err)
	}
	resp, err := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind the head: %v", err)
	}
}

// TestCallHijacked: a half-close arrives, in both directions.
func TestCallHijacked(t *testing.T) {
	resp, err := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nKind: raw\r\nConnection: Upgrade\r\n\r\nhello ")
		b, _ := io.ReadAll(rw)
		conn.Write(b)
		if _, err := w.Write(nil); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("write behind the hijack: %v", err)
		}
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Kind") != "raw" {
		t.Errorf("got status %d, Kind %q", resp.StatusCode, resp.Header.Get("Kind"))
	}
	conn := resp.Body.(net.Conn)
	defer conn.Close()
	io.WriteString(conn, "you")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	if want, got := "hello you", readAll(t, conn); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
}

// TestCallLeft: who waits no longer gets the reason at once, and the handler's context ends.
func TestCallLeft(t *testing.T) {
	reason := errors.New("enough")
	for name, h := range map[string]http.HandlerFunc{
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"hijack": func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.Copy(io.Discard, conn) // ends when the other end is closed
		},
		"flush": func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			http.NewResponseController(w).Flush()
			for {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan struct{})
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/", nil)
			if err != nil {
				t.Fatal(err)
			}
			cancel(reason)
			_, err = Call(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				h(w, r)
			}))(req)
			if !errors.Is(err, reason) {
				t.Errorf("want %v, got %v", reason, err)
			}
			<-ended
		})
	}
}

// TestCallClosed: closing the body of an answer that goes on ends the handler, and so does the end of the context.
func TestCallClosed(t *testing.T) {
	for name, leave := range map[string]func(*http.Response, context.CancelCauseFunc){
		"close":  func(resp *http.Response, _ context.CancelCauseFunc) { resp.Body.Close() },
		"cancel": func(_ *http.Response, cancel context.CancelCauseFunc) { cancel(io.ErrClosedPipe) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/", nil)
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				resp, err := Call(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(ended)
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}))(req)
				if err != nil {
					t.Fatal(err)
				}
				leave(resp, cancel)
				<-ended
				if _, err := io.ReadAll(resp.Body); name == "close" && err == nil {
					t.Error("a closed body can be read")
				}
			})
		})
	}
}
