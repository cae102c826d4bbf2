// Package registrytest is a registry for tests, in memory, that does wrong what it is told to.
//
//	s := registrytest.New(t, registrytest.Options{User: "me", Password: "secret", Bearer: true})
//	d := s.Image("app", "1", layer)
//	s.On("GET", "/blobs/", registrytest.Reset(1000)).Times(1)
//	... pull s.Addr + "/app:1" ...
//	s.Requests() // with their Authorization
//
// It takes pushes too. Repositories are made by what is put in them.
package registrytest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/ref"
)

// Options of New. The zero value is an open registry without TLS.
type Options struct {
	TLS            bool
	User, Password string        // who may come in; empty: everybody
	Bearer         bool          // with tokens, not with each request's password
	TokenLife      time.Duration // 0 is five minutes
	Realm          string        // where tokens are said to be; "" is here
	NoMount        bool          // mounts become uploads
	NoRanges       bool          // ranges are ignored
	NoResume       bool          // what a broken upload left is lost
	PageSize       int           // of lists; 0 is as asked
}

// Server is a registry, until the test ends. It is safe for concurrent use.
type Server struct {
	Addr string // host:port
	HTTP *httptest.Server

	t      testing.TB
	opt    Options
	closed chan struct{}

	// logged protects the following.
	logged sync.Mutex
	log    []*Request

	// mu protects the following.
	mu       sync.Mutex
	repos    map[string]*repo
	uploads  map[string]*session
	tokens   map[string]grant
	identity map[string]bool
	faults   []*Fault
	serial   int
}

type repo struct {
	blobs     map[ref.Digest][]byte
	manifests map[ref.Digest]manifest
	tags      map[string]ref.Digest
}

type manifest struct {
	mediaType string
	data      []byte
}

// Request is one that came in.
type Request struct {
	Method, Path, Query string
	Authorization       string
	Range               string
	Header              http.Header
	Status              int
	Sent                int64 // bytes of the answer's body
}

// New starts a registry on a loopback address.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, opt: o, closed: make(chan struct{}), repos: map[string]*repo{}, uploads: map[string]*session{}, tokens: map[string]grant{}, identity: map[string]bool{}}
	s.HTTP = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.HTTP.Config.ErrorLog = nil
	if o.TLS {
		s.HTTP.StartTLS()
	} else {
		s.HTTP.Start()
	}
	s.Addr = strings.TrimPrefix(strings.TrimPrefix(s.HTTP.URL, "http://"), "https://")
	t.Cleanup(func() {
		close(s.closed)
		s.HTTP.CloseClientConnections()
		s.HTTP.Close()
	})
	return s
}

// Digest is the digest of data.
func Digest(data []byte) ref.Digest {
	sum := sha256.Sum256(data)
	return ref.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func (s *Server) repo(name string) *repo {
	r := s.repos[name]
	if r == nil {
		r = &repo{map[ref.Digest][]byte{}, map[ref.Digest]manifest{}, map[string]ref.Digest{}}
		s.repos[name] = r
	}
	return r
}

// AddBlob stores a blob.
func (s *Server) AddBlob(repo string, data []byte) ref.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := Digest(data)
	s.repo(repo).blobs[d] = data
	return d
}

// AddManifest stores a manifest or index, under a tag unless that is empty.
func (s *Server) AddManifest(repo, tag, mediaType string, data []byte) ref.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := Digest(data)
	s.repo(repo).manifests[d] = manifest{mediaType, data}
	if tag != "" {
		s.repo(repo).tags[tag] = d
	}
	return d
}

// Descriptor is that of a blob or manifest, as manifests have it.
type Descriptor struct {
	MediaType string     `json:"mediaType"`
	Digest    ref.Digest `json:"digest"`
	Size      int64      `json:"size"`
	Platform  *Platform  `json:"platform,omitempty"`
}

// Platform is what an index says of a manifest.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Layer is one of an image: the blob, and the digest of what it is unpacked.
type Layer struct {
	MediaType string // "" is a gzipped tar of OCI
	Blob      []byte
	DiffID    ref.Digest
}

// The media types that are written.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeConfig   = "application/vnd.oci.image.config.v1+json"
	TypeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// AddImage stores an image of OCI's types for a platform, which may be the zero value for the one the test runs on in
// Linux's words, and returns the descriptor of its manifest. config is merged into the image's configuration.
func (s *Server) AddImage(repo, tag string, p Platform, config map[string]any, layers ...Layer) Descriptor {
	s.t.Helper()
	diffs := []ref.Digest{}
	list := []Descriptor{}
	for _, l := range layers {
		if l.MediaType == "" {
			l.MediaType = TypeLayer
		}
		diffs = append(diffs, l.DiffID)
		list = append(list, Descriptor{MediaType: l.MediaType, Digest: s.AddBlob(repo, l.Blob), Size: int64(len(l.Blob))})
	}
	if p == (Platform{}) {
		p = host
	}
	c := map[string]any{"os": p.OS, "architecture": p.Architecture, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}}
	if p.Variant != "" {
		c["variant"] = p.Variant
	}
	for k, v := range config {
		c[k] = v
	}
	cdata := s.json(c)
	data := s.json(map[string]any{
		"schemaVersion": 2, "mediaType": TypeManifest, "layers": list,
		"config": Descriptor{MediaType: TypeConfig, Digest: s.AddBlob(repo, cdata), Size: int64(len(cdata))},
	})
	return Descriptor{MediaType: TypeManifest, Digest: s.AddManifest(repo, tag, TypeManifest, data), Size: int64(len(data)), Platform: &p}
}

// AddIndex stores an index of manifests.
func (s *Server) AddIndex(repo, tag string, manifests ...Descriptor) Descriptor {
	s.t.Helper()
	data := s.json(map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": manifests})
	return Descriptor{MediaType: TypeIndex, Digest: s.AddManifest(repo, tag, TypeIndex, data), Size: int64(len(data))}
}

func (s *Server) json(v any) []byte {
	s.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// Blob is a blob that is there, or nil.
func (s *Server) Blob(repo string, d ref.Digest) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repo(repo).blobs[d]
}

// Manifest is a manifest that is there under a tag or digest, or nil.
func (s *Server) Manifest(repo, reference string) (data []byte, mediaType string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.repo(repo).find(reference)
	return m.data, m.mediaType
}

func (r *repo) find(reference string) manifest {
	d := ref.Digest(reference)
	if !strings.Contains(reference, ":") {
		d = r.tags[reference]
	}
	return r.manifests[d]
}

// Delete forgets all that a repository has.
func (s *Server) Delete(repo string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.repos, repo)
}

// Requests are those that came in, in their order. Sent counts what was about to be sent.
func (s *Server) Requests() []Request {
	s.logged.Lock()
	defer s.logged.Unlock()
	out := make([]Request, len(s.log))
	for i, r := range s.log {
		out[i] = *r
	}
	return out
}

// Count is how many requests of a method ("" is any) had part in their path.
func (s *Server) Count(method, part string) int {
	n := 0
	for _, r := range s.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// Forget empties the log.
func (s *Server) Forget() {
	s.logged.Lock()
	defer s.logged.Unlock()
	s.log = nil
}

// ExpireTokens makes every token that was given out one that is not taken.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = map[string]grant{}
}

// Identity makes an identity token that is good for tokens.
func (s *Server) Identity() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newIdentity()
}
