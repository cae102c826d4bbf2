package registrytest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/ref"
)

// host is the platform of images that name none.
var host = Platform{OS: "linux", Architecture: runtime.GOARCH}

// serve logs a request and hands it to the faults that are meant for it, and then to the registry.
func (s *Server) serve(w http.ResponseWriter, q *http.Request) {
	// Logged before it is answered: who got the answer finds it.
	r := &Request{
		Method: q.Method, Path: q.URL.Path, Query: q.URL.RawQuery, Authorization: q.Header.Get("Authorization"),
		Range: q.Header.Get("Range"), Header: q.Header.Clone(), Status: http.StatusOK,
	}
	c := &counting{w, s, r}
	s.logged.Lock()
	s.log = append(s.log, r)
	s.logged.Unlock()
	var h http.Handler = http.HandlerFunc(s.answer)
	for _, effect := range s.effects(q) {
		h = effect(h)
	}
	h.ServeHTTP(c, q.WithContext(context.WithValue(q.Context(), closing{}, s.closed)))
}

// closing is the key of a channel that is closed when the registry ends.
type closing struct{}

// gone waits until the client goes away or the registry ends, at most for a time that is not negative.
func gone(q *http.Request, limit time.Duration) bool {
	var late <-chan time.Time
	if limit >= 0 {
		late = time.After(limit)
	}
	closed, _ := q.Context().Value(closing{}).(chan struct{})
	select {
	case <-late:
		return false
	case <-q.Context().Done():
	case <-closed:
	}
	return true
}

// counting logs what is answered, before it is.
type counting struct {
	http.ResponseWriter
	s *Server
	r *Request
}

func (c *counting) WriteHeader(status int) {
	c.s.logged.Lock()
	c.r.Status = status
	c.s.logged.Unlock()
	c.ResponseWriter.WriteHeader(status)
}

func (c *counting) Write(p []byte) (int, error) {
	c.s.logged.Lock()
	c.r.Sent += int64(len(p))
	c.s.logged.Unlock()
	return c.ResponseWriter.Write(p)
}

func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// answer is the registry.
func (s *Server) answer(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path == "/token" {
		s.token(w, q)
		return
	}
	path, ok := strings.CutPrefix(q.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, q)
		return
	}
	name, kind, rest := split(path)
	if !s.allowed(w, q, name) {
		return
	}
	switch {
	case path == "":
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		io.WriteString(w, "{}")
	case path == "_catalog":
		s.catalog(w, q)
	case kind == "manifests":
		s.manifest(w, q, name, rest)
	case kind == "tags":
		s.tags(w, q, name)
	case kind == "blobs" && (rest == "uploads/" || rest == "uploads"):
		s.begin(w, q, name)
	case kind == "blobs" && strings.HasPrefix(rest, "uploads/"):
		s.upload(w, q, name, strings.TrimPrefix(rest, "uploads/"))
	case kind == "blobs":
		s.blob(w, q, name, ref.Digest(rest))
	default:
		fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	}
}

// split parts a path behind /v2/ into repository, kind and what follows.
func split(path string) (name, kind, rest string) {
	for _, kind := range []string{"manifests", "blobs", "tags"} {
		if i := strings.LastIndex(path, "/"+kind+"/"); i > 0 {
			return path[:i], kind, path[i+len(kind)+2:]
		}
	}
	return "", "", ""
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// grant is what a token is good for.
type grant struct {
	scopes []string
	until  time.Time
}

// allowed answers who may not come in.
func (s *Server) allowed(w http.ResponseWriter, q *http.Request, name string) bool {
	if s.opt.User == "" {
		return true
	}
	action := "pull"
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		action = "push"
	}
	if s.knows(q.Header.Get("Authorization"), name, action) {
		return true
	}
	how := `Basic realm="test"`
	if s.opt.Bearer {
		realm := s.opt.Realm
		if realm == "" {
			realm = s.HTTP.URL + "/token"
		}
		how = fmt.Sprintf("Bearer realm=%q,service=%q", realm, s.Addr)
		if name != "" {
			how += fmt.Sprintf(",scope=%q", "repository:"+name+":"+action)
		}
	}
	w.Header().Set("WWW-Authenticate", how)
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

func (s *Server) knows(authorization, name, action string) bool {
	if !s.opt.Bearer {
		return authorization == "Basic "+base64.StdEncoding.EncodeToString([]byte(s.opt.User+":"+s.opt.Password))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.tokens[strings.TrimPrefix(authorization, "Bearer ")]
	if !ok || time.Now().After(g.until) {
		return false
	}
	return name == "" || slices.ContainsFunc(g.scopes, func(scope string) bool {
		rest, ok := strings.CutPrefix(scope, "repository:"+name+":")
		return ok && slices.Contains(strings.Split(rest, ","), action)
	})
}

// token gives one for name and password, or for an identity token.
func (s *Server) token(w http.ResponseWriter, q *http.Request) {
	q.ParseForm()
	user, password, _ := q.BasicAuth()
	s.mu.Lock()
	defer s.mu.Unlock()
	known := user == s.opt.User && password == s.opt.Password
	if q.Method == http.MethodPost {
		known = s.identity[q.PostForm.Get("refresh_token")]
	}
	if !known {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	life := s.opt.TokenLife
	if life == 0 {
		life = 5 * time.Minute
	}
	s.serial++
	value := fmt.Sprintf("token-%d-%s", s.serial, s.Addr)
	s.tokens[value] = grant{strings.Fields(strings.Join(q.Form["scope"], " ")), time.Now().Add(life)}
	out := map[string]any{"token": value, "expires_in": int(life / time.Second)}
	if q.Form.Get("offline_token") == "true" {
		out["refresh_token"] = s.newIdentity()
	}
	json.NewEncoder(w).Encode(out)
}

func (s *Server) newIdentity() string {
	s.serial++
	id := fmt.Sprintf("identity-%d-%s", s.serial, s.Addr)
	s.identity[id] = true
	return id
}

func (s *Server) manifest(w http.ResponseWriter, q *http.Request, name, reference string) {
	if q.Method == http.MethodPut {
		s.putManifest(w, q, name, reference)
		return
	}
	s.mu.Lock()
	m := s.repo(name).find(reference)
	s.mu.Unlock()
	if m.data == nil {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", string(Digest(m.data)))
	s.content(w, q, m.data)
}

func (s *Server) putManifest(w http.ResponseWriter, q *http.Request, name, reference string) {
	data, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	var doc struct {
		Config *Descriptor
		Layers []Descriptor
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid")
		return
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, l := range doc.Layers {
		if s.Blob(name, l.Digest) == nil {
			fail(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
			return
		}
	}
	tag := reference
	if strings.Contains(reference, ":") {
		tag = ""
		if ref.Digest(reference) != Digest(data) {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
			return
		}
	}
	d := s.AddManifest(name, tag, q.Header.Get("Content-Type"), data)
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

func (s *Server) blob(w http.ResponseWriter, q *http.Request, name string, d ref.Digest) {
	data := s.Blob(name, d)
	if data == nil {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", string(d))
	s.content(w, q, data)
}

func (s *Server) content(w http.ResponseWriter, q *http.Request, data []byte) {
	if s.opt.NoRanges {
		q.Header.Del("Range")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if q.Method != http.MethodHead {
			w.Write(data)
		}
		return
	}
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(data))
}

func (s *Server) tags(w http.ResponseWriter, q *http.Request, name string) {
	s.mu.Lock()
	var all []string
	for tag := range s.repo(name).tags {
		all = append(all, tag)
	}
	s.mu.Unlock()
	s.list(w, q, "tags", all, map[string]any{"name": name})
}

func (s *Server) catalog(w http.ResponseWriter, q *http.Request) {
	s.mu.Lock()
	var all []string
	for name := range s.repos {
		all = append(all, name)
	}
	s.mu.Unlock()
	s.list(w, q, "repositories", all, map[string]any{})
}

// list answers with a page and a link to the next one.
func (s *Server) list(w http.ResponseWriter, q *http.Request, key string, all []string, out map[string]any) {
	slices.Sort(all)
	last := q.FormValue("last")
	all = slices.DeleteFunc(all, func(x string) bool { return x <= last })
	n, _ := strconv.Atoi(q.FormValue("n"))
	if s.opt.PageSize > 0 {
		n = s.opt.PageSize
	}
	if n > 0 && len(all) > n {
		all = all[:n]
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, q.URL.Path, next.Encode()))
	}
	out[key] = append([]string{}, all...)
	json.NewEncoder(w).Encode(out)
}
