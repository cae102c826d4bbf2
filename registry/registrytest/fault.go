package registrytest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hull/ref"
)

// Effect is what goes wrong: it stands before the registry's own answer.
type Effect func(next http.Handler) http.Handler

// Fault is an effect and when it happens.
type Fault struct {
	s            *Server
	method, part string
	effect       Effect
	skip, times  int
	after        time.Time
}

// On has the effect on all requests of a method ("" is any) whose path has part in it, until the fault is narrowed.
// Several on one request happen one inside the other, the newest outermost.
func (s *Server) On(method, part string, e Effect) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &Fault{s: s, method: method, part: part, effect: e, times: -1}
	s.faults = append(s.faults, f)
	return f
}

// Times ends the fault after n requests.
func (f *Fault) Times(n int) *Fault {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.times = n
	return f
}

// After lets n requests pass before.
func (f *Fault) After(n int) *Fault {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.skip = n
	return f
}

// Heal ends all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// effects are those a request meets.
func (s *Server) effects(q *http.Request) (out []Effect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.method != "" && f.method != q.Method || !strings.Contains(q.URL.Path, f.part) || f.times == 0 {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		if f.times > 0 {
			f.times--
		}
		out = append(out, f.effect)
	}
	return out
}

// changed is an effect that changes a finished answer.
func changed(change func(r *httptest.ResponseRecorder, w http.ResponseWriter, q *http.Request)) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r := httptest.NewRecorder()
			next.ServeHTTP(r, q)
			change(r, w, q)
		})
	}
}

// copied sends what was recorded, but for the body.
func copied(w http.ResponseWriter, r *httptest.ResponseRecorder) {
	for k, v := range r.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(r.Code)
}

// Reset breaks the connection after n bytes of the answer's body, as a crash does.
func Reset(n int64) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, _ *http.Request) {
		if n >= 0 {
			w.Header().Set("Content-Length", strconv.Itoa(r.Body.Len()))
			copied(w, r)
			io.CopyN(w, r.Body, n)
			http.NewResponseController(w).Flush()
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
			t.NetConn().(*net.TCPConn).SetLinger(0)
		} else {
			conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
	})
}

// Cut ends the answer's body after n bytes and says that it is all.
func Cut(n int64) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, _ *http.Request) {
		body := r.Body.Bytes()[:min(n, int64(r.Body.Len()))]
		r.Header().Set("Content-Length", strconv.Itoa(len(body)))
		copied(w, r)
		w.Write(body)
	})
}

// Extra puts n bytes behind the answer's body.
func Extra(n int) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, _ *http.Request) {
		r.Header().Set("Content-Length", strconv.Itoa(r.Body.Len()+n))
		copied(w, r)
		w.Write(append(r.Body.Bytes(), make([]byte, n)...))
	})
}

// Flip changes the byte at offset n of the answer's body.
func Flip(n int64) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, _ *http.Request) {
		body := bytes.Clone(r.Body.Bytes())
		if n < int64(len(body)) {
			body[n] ^= 1
		}
		copied(w, r)
		w.Write(body)
	})
}

// Status answers so instead, with the header's fields in pairs, and an error of the specification.
func Status(status int, header ...string) Effect {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			io.Copy(io.Discard, q.Body)
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			fail(w, status, strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "")), "told to")
		})
	}
}

// Body answers so instead, with any body.
func Body(status int, mediaType, body string) Effect {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
}

// TooMany answers 429 with a Retry-After.
func TooMany(after string) Effect {
	return Status(http.StatusTooManyRequests, "Retry-After", after)
}

// Header sets a field of the answer's header, whatever the registry says there; "" removes it.
func Header(key, value string) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, _ *http.Request) {
		r.Header().Set(key, value)
		if value == "" {
			r.Header().Del(key)
		}
		copied(w, r)
		w.Write(r.Body.Bytes())
	})
}

// WrongDigest claims another digest than the answer's.
func WrongDigest() Effect {
	return Header("Docker-Content-Digest", string(ref.Digest("sha256:"+strings.Repeat("0", 64))))
}

// Redirect sends the request to the same path elsewhere: base is a URL without one.
func Redirect(status int, base string) Effect {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Location", base+q.URL.RequestURI())
			w.WriteHeader(status)
		})
	}
}

// Drip sends the body in pieces of n bytes with a pause before each.
func Drip(n int, pause time.Duration) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, q *http.Request) {
		r.Header().Set("Content-Length", strconv.Itoa(r.Body.Len()))
		copied(w, r)
		for r.Body.Len() > 0 {
			if gone(q, pause) {
				return
			}
			w.Write(r.Body.Next(n))
			http.NewResponseController(w).Flush()
		}
	})
}

// Hang sends n bytes of the body, or with a negative n not even a header, and then nothing until the client goes away.
func Hang(n int64) Effect {
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, q *http.Request) {
		if n >= 0 {
			r.Header().Set("Content-Length", strconv.Itoa(r.Body.Len()))
			copied(w, r)
			io.CopyN(w, r.Body, n)
			http.NewResponseController(w).Flush()
		}
		gone(q, -1)
	})
}

// NoRanges answers with the whole.
func NoRanges() Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			q.Header.Del("Range")
			next.ServeHTTP(w, q)
		})
	}
}

// BreakUpload takes n bytes of what is sent and then resets the connection.
func BreakUpload(n int64) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			q.Body = io.NopCloser(io.MultiReader(io.LimitReader(q.Body, n), broken{}))
			next.ServeHTTP(httptest.NewRecorder(), q)
			Reset(-1)(http.NotFoundHandler()).ServeHTTP(w, q)
		})
	}
}

// DripUpload takes what is sent in pieces of n bytes with a pause before each.
func DripUpload(n int, pause time.Duration) Effect {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			q.Body = io.NopCloser(&dripping{q.Body, q, n, pause})
			next.ServeHTTP(w, q)
		})
	}
}

type dripping struct {
	io.Reader
	q     *http.Request
	n     int
	pause time.Duration
}

func (d *dripping) Read(p []byte) (int, error) {
	if gone(d.q, d.pause) {
		return 0, fmt.Errorf("the client is gone")
	}
	return d.Reader.Read(p[:min(len(p), d.n)])
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, fmt.Errorf("told to break") }

// Endless adds a link to a next page to every page: the same one, with a number.
func Endless() Effect {
	var n atomic.Int64
	return changed(func(r *httptest.ResponseRecorder, w http.ResponseWriter, q *http.Request) {
		r.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, q.URL.Path, n.Add(1)))
		copied(w, r)
		w.Write(r.Body.Bytes())
	})
}
