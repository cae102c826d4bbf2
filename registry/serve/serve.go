// Package serve offers repositories as a registry: the protocol of the OCI distribution specification, over any Store.
//
//	h := serve.New(store, serve.Options{Writable: true})
//	err := serve.Run(ctx, h, serve.Listen{Address: "127.0.0.1:5000"})
//	err := serve.One(ctx, h, stdin, stdout)        // or one connection, HTTP/2 without TLS
//
// Reading is GET and HEAD of manifests, blobs (with ranges), tags and referrers; writing, if it is allowed, uploads in one
// piece, in parts or as a stream, mounts, manifests, and deletions.
//
// Beware: there are no users here. Who can connect can read everything, and change everything of a writable registry,
// unless the listener asks for certificates.
package serve

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"hull/ref"
)

// Store is what is offered.
type Store interface {
	// Repositories returns all names under which there is something, in order, in the form that Repository takes.
	Repositories(ctx context.Context) ([]string, error)
	// Repository opens the one that a client calls name; ns is the registry it believes to ask, "" when it does not say.
	// The name is as the client sent it: what is none is errdef.ErrInvalid.
	Repository(name, ns string) (Repository, error)
}

// Repository is one of them. What is not there has an error of kind errdef.ErrNotFound, what does not fit errdef.ErrInvalid,
// and what the state of things forbids errdef.ErrConflict.
type Repository interface {
	Tags(ctx context.Context) ([]string, error)
	// Manifest returns what a tag or a digest names, byte for byte as it came.
	Manifest(ctx context.Context, reference string) (data []byte, mediaType string, d ref.Digest, err error)
	Blob(ctx context.Context, d ref.Digest) (*os.File, error)
	// Referrers returns an index of the manifests whose subject is d.
	Referrers(ctx context.Context, d ref.Digest, artifactType string) ([]byte, error)

	// Mount makes a blob of any repository one of this; false when nobody has it.
	Mount(ctx context.Context, d ref.Digest) (bool, error)
	// Begin begins an upload. ErrBusy is among the causes of its error when there are too many.
	Begin(ctx context.Context) (id string, err error)
	// Resume is Begin of the blob d, with the size bytes that an upload of it which broke may have left.
	Resume(ctx context.Context, d ref.Digest) (id string, size int64, err error)
	Uploaded(ctx context.Context, id string) (int64, error)
	// Append adds to an upload at byte at (-1 is wherever it is) the n bytes (-1 any number) of body. What came before body
	// broke stays; of more than n nothing does.
	Append(ctx context.Context, id string, at, n int64, body Body) (size int64, err error)
	// Finish makes the upload the blob d, or drops it with errdef.ErrInvalid when it is something else.
	Finish(ctx context.Context, id string, d ref.Digest) error
	Cancel(ctx context.Context, id string) error
	// PutManifest stores data, which has the digest d, and lets the tags name it. It returns the digest it refers to, or "".
	// An error that is errdef.ErrNotFound says that the repository lacks what the manifest names.
	PutManifest(ctx context.Context, d ref.Digest, tags []string, mediaType string, data []byte) (subject ref.Digest, err error)
	DeleteTag(ctx context.Context, tag string) error
	DeleteManifest(ctx context.Context, d ref.Digest) error
	DeleteBlob(ctx context.Context, d ref.Digest) error
}

// Options of New.
type Options struct {
	Writable bool
	Log      *slog.Logger // a line for each request, at level Debug; nil is nowhere
}

// New returns the handler of a registry.
func New(s Store, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{s, o}
}

type handler struct {
	s Store
	o Options
}

func (h *handler) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	begin := time.Now()
	a := &answer{ResponseWriter: w, status: http.StatusOK}
	h.serve(a, q)
	h.o.Log.Debug("request", "method", q.Method, "path", q.URL.Path, "status", a.status, "took", time.Since(begin), "from", q.RemoteAddr, "agent", q.UserAgent())
}

// answer notes the status that is sent, and bounds how long the client takes to read what comes with it.
type answer struct {
	http.ResponseWriter
	status int
	began  bool
	size   int64 // of the body, when it may be large
}

// begin sets the deadline. It counts from here, not from the request, whose body may have taken long.
func (a *answer) begin() {
	if !a.began {
		a.began = true
		wait := bodyIdle + time.Duration(a.size/minRate)*time.Second
		_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(wait)) // stdio may have none
	}
}

func (a *answer) WriteHeader(status int) {
	a.begin()
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(p)
}

// ReadFrom lets the kernel send files.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	a.begin()
	return io.Copy(a.ResponseWriter, r)
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// request is a request that was understood so far.
type request struct {
	*http.Request
	w    *answer
	name string // as in the path
	repo Repository
	rest string // of the path, behind what says its kind
}

func (h *handler) serve(w *answer, q *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := h.turnAway(q); err != nil {
		fail(w, err)
		return
	}
	path, ok := strings.CutPrefix(q.URL.Path, "/v2")
	switch {
	case !ok:
		fail(w, unknownPath)
		return
	case path == "" || path == "/":
		reply(w, q, []byte("{}"))
		return
	case path == "/_catalog":
		h.catalog(w, q)
		return
	}
	name, kind, rest := split(strings.TrimPrefix(path, "/"))
	if name == "" {
		fail(w, unknownPath)
		return
	}
	ns := ""
	if reads(q) {
		ns = q.URL.Query().Get("ns")
	}
	repo, err := h.s.Repository(name, ns)
	if err != nil {
		fail(w, as(err, nameInvalid))
		return
	}
	if ns != "" {
		w.Header().Set("OCI-Namespace", ns)
	}
	r := &request{q, w, name, repo, rest}
	if err := r.route(kind); err != nil {
		fail(w, err)
	}
}

// split parts a path behind /v2/ into the repository, the kind of what is asked for, and the rest. A repository may be
// called like a kind: the last one counts.
func split(path string) (name, kind, rest string) {
	at := 0
	for _, k := range []string{"manifests", "blobs", "tags", "referrers"} {
		if i := strings.LastIndex(path, "/"+k+"/"); i > at {
			at, kind = i, k
			name, rest = path[:i], path[i+len(k)+2:]
		}
	}
	return name, kind, rest
}

func reads(q *http.Request) bool { return q.Method == http.MethodGet || q.Method == http.MethodHead }

// turnAway refuses what a browser may have been made to send by a page of somebody else's, and what would write.
func (h *handler) turnAway(q *http.Request) error {
	if err := checkHost(q); err != nil {
		return err
	}
	if reads(q) {
		return nil
	}
	if q.Header.Get("Origin") != "" || q.Header.Get("Sec-Fetch-Site") != "" {
		return denied.with("a web page may not write to this registry")
	}
	if !h.o.Writable {
		return readOnly
	}
	return nil
}

func (r *request) route(kind string) error {
	switch {
	case kind == "manifests":
		return r.manifests()
	case kind == "tags" && r.rest == "list":
		return r.tags()
	case kind == "referrers":
		return r.referrers()
	case kind == "blobs" && (r.rest == "uploads" || r.rest == "uploads/"):
		return r.begin()
	case kind == "blobs" && strings.HasPrefix(r.rest, "uploads/"):
		r.rest = strings.TrimPrefix(r.rest, "uploads/")
		return r.upload()
	case kind == "blobs":
		return r.blobs()
	}
	return unknownPath
}

// digest reads the rest of the path.
func (r *request) digest() (ref.Digest, error) {
	d, err := ref.ParseDigest(r.rest)
	if err != nil {
		return "", as(err, digestInvalid)
	}
	return d, nil
}

// methods is the error of a method that a path does not have.
func (r *request) methods(allowed string) error {
	r.w.Header().Set("Allow", allowed)
	return unsupported.with("%s is not supported here", r.Method)
}
