// Package api serves the Docker Engine API over an engine: it decodes a request, makes one call and encodes the
// answer. Verbs that Docker has not live below /hull/v1/.
//
//	h := api.New(e, api.Options{})
//	resp, err := api.Call(h)(req) // in process
//	dial, stop := api.Pipe(h)     // the same, for what streams
//	defer stop()
//
// The wire types are github.com/moby/moby/api's and end here: the engine knows none of them. There is one route
// table (routes.go), one file per noun, one mapping of errors to status codes (error.go).
//
// Beware: the handler authenticates nobody. Who may reach the socket is the whole access rule, so it refuses
// what a browser could be tricked into sending.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"hull/engine"
	"hull/errdef"
)

// Version is the newest Engine API version answered, and MinVersion the oldest.
const (
	Version    = "1.55"
	MinVersion = "1.24"
)

const maxMinor, minMinor = 55, 24

// Options of a handler.
type Options struct {
	Log *slog.Logger // nil: bugs are logged nowhere
	// Closing ends, when it is done, the streams that would not end by themselves; nil never does.
	Closing context.Context
	// Stall is how long a client that gets a tar may take nothing of it; 0 is five minutes.
	Stall time.Duration
	// Builder executes builds; nil: this program has none.
	Builder Builder
	// Local says that all clients are this process.
	Local bool
}

// New returns the handler of e. It is safe for concurrent use.
func New(e *engine.Engine, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Closing == nil {
		o.Closing = context.Background()
	}
	if o.Stall == 0 {
		o.Stall = 5 * time.Minute
	}
	return &server{engine: e, log: o.Log, closing: o.Closing, stall: o.Stall, builder: o.Builder, local: o.Local, agent: "Hull/" + e.Version().Version + " (linux)"}
}

type server struct {
	engine  *engine.Engine
	log     *slog.Logger
	closing context.Context
	stall   time.Duration
	builder Builder
	local   bool
	agent   string
}

// whileOpen is the context of q for a stream that may never end: the end of the server ends it too.
func (s *server) whileOpen(q *request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(q.Context())
	stop := context.AfterFunc(s.closing, func() { cancel(errClosing) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// request is one call being answered: path values and API version beside what net/http gives.
type request struct {
	*http.Request
	w     http.ResponseWriter
	minor int    // of the API version asked for: 1.minor
	name  string // the {name} of the pattern
	form  url.Values
	stall time.Duration // see Options
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{Request: r, w: w, form: r.URL.Query(), stall: s.stall}
	defer s.rescue(q)
	h := w.Header()
	h.Set("Api-Version", Version)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", "linux")
	h.Set("Server", s.agent)
	if err := s.serve(q); err != nil {
		s.fail(q, err)
	}
}

func (s *server) serve(q *request) error {
	if err := refuseBrowser(q.Request); err != nil {
		return err
	}
	path, err := q.cutVersion(q.URL.Path)
	if err != nil {
		return err
	}
	rt, name, err := match(q.Method, path)
	if err != nil {
		return err
	}
	q.name = name
	return rt.handle(s, q)
}

// rescue answers a request whose handler panicked: a bug, but one that must not take others down.
func (s *server) rescue(q *request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("panic in handler", "path", q.URL.Path, "panic", p, "stack", string(debug.Stack()))
	s.fail(q, fmt.Errorf("internal error: %v (this is a bug of Hull)", p))
}

// refuseBrowser turns away what a web page made a browser send: DNS rebinding and cross-site requests reach
// any socket a browser can dial.
func refuseBrowser(r *http.Request) error {
	site := r.Header.Get("Sec-Fetch-Site")
	if r.Header.Get("Origin") != "" || (site != "" && site != "none") {
		return errdef.Forbidden("requests from web pages are refused")
	}
	return nil
}

// cutVersion takes a leading /v1.N off path and keeps N.
func (q *request) cutVersion(path string) (string, error) {
	q.minor = maxMinor
	v, ok := strings.CutPrefix(path, "/v1.")
	if !ok {
		return path, nil
	}
	num, rest, ok := strings.Cut(v, "/")
	minor, err := strconv.ParseUint(num, 10, 16)
	if !ok || err != nil {
		return path, nil
	}
	switch {
	case minor > maxMinor:
		return "", errdef.Invalid("client version 1.%d is too new. Maximum supported API version is %s", minor, Version)
	case minor < minMinor:
		return "", errdef.Invalid("client version 1.%d is too old. Minimum supported API version is %s, please upgrade your client to a newer version", minor, MinVersion)
	}
	q.minor = int(minor)
	return "/" + rest, nil
}
