package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/registry/registrytest"
	"hull/registry/serve"
	"hull/state"
)

// offering is an engine whose images are offered over HTTP.
type offering struct {
	*Engine
	t    *testing.T
	url  string
	addr string
}

func offerOf(t *testing.T, e *Engine, writable bool) *offering {
	t.Helper()
	h, err := e.Offer(serve.Options{Writable: writable}, Remote{})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &offering{e, t, s.URL, strings.TrimPrefix(s.URL, "http://")}
}

func emptyOffering(t *testing.T) *offering {
	return offerOf(t, Open(t.TempDir(), t.TempDir(), Options{}), true)
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body string
}

// code is the code of an error.
func (r *reply) code() string {
	var doc struct{ Errors []struct{ Code string } }
	if json.Unmarshal([]byte(r.body), &doc) != nil || len(doc.Errors) != 1 {
		return ""
	}
	return doc.Errors[0].Code
}

// ask sends a request. header is pairs of names and values.
func (o *offering) ask(method, path string, body any, header ...string) *reply {
	o.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	case io.Reader:
		r = b
	}
	q, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, r)
	if err != nil {
		o.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			q.Host = header[i+1]
		}
		q.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(q) // follows nothing
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return &reply{resp, string(data)}
}

// must is ask that has to be answered with status.
func (o *offering) must(status int, method, path string, body any, header ...string) *reply {
	o.t.Helper()
	r := o.ask(method, path, body, header...)
	if r.StatusCode != status {
		o.t.Fatalf("%s %s: want %d, got %d %s", method, path, status, r.StatusCode, r.body)
	}
	return r
}

// blob pushes a blob in one go.
func (o *offering) blob(repo, content string) ref.Digest {
	o.t.Helper()
	d := registrytest.Digest([]byte(content))
	o.must(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), content)
	return d
}

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// artifact pushes a manifest that is no image.
func (o *offering) artifact(repo, reference, content, more string) ref.Digest {
	o.t.Helper()
	config, layer := o.blob(repo, "{}"), o.blob(repo, content)
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/x.test","digest":%q,"size":2},"layers":[{"mediaType":"text/plain","digest":%q,"size":%d}]%s}`,
		ociManifest, config, layer, len(content), more)
	d := registrytest.Digest([]byte(m))
	if reference == "" {
		reference = string(d)
	}
	o.must(201, "PUT", "/v2/"+repo+"/manifests/"+reference, m, "Content-Type", ociManifest)
	return d
}

// collect sweeps, and makes everything that was pushed look as old as age first.
func (o *offering) collect(age time.Duration) {
	o.t.Helper()
	filepath.WalkDir(filepath.Join(o.Root(), "pushed"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			old := time.Now().Add(-age)
			return os.Chtimes(path, old, old)
		}
		return nil
	})
	if _, err := o.images().Sweep(o.t.Context(), nil); err != nil {
		o.t.Fatal(err)
	}
}

// TestOffer: what one engine offers another pulls with the same digest, and what that pushes back the first can run, under
// names without a host.
func TestOffer(t *testing.T) {
	s, _ := shelf(t, registrytest.Options{})
	first := emptyOffering(t)
	from := s.Addr + "/app:1"
	if err := first.PullImage(t.Context(), from, "", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := first.TagImage(t.Context(), from, "app:1"); err != nil {
		t.Fatal(err)
	}
	img, err := first.Image(t.Context(), "app:1")
	if err != nil {
		t.Fatal(err)
	}
	second := emptyOffering(t)
	for _, name := range []string{"/app:1", "/library/app:1", "/docker.io/library/app:1", "/app@" + img.Target} {
		if err := second.PullImage(t.Context(), first.addr+name, "", PullOptions{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := second.Image(t.Context(), first.addr+name)
		if err != nil || got.Target != img.Target || got.ID != img.ID {
			t.Errorf("%s: want %s, got %+v, %v", name, img.Target, got, err)
		}
		hasFiles(t, second.Engine, first.addr+name)
	}
	to := first.addr + "/team/other:2"
	if err := second.TagImage(t.Context(), first.addr+"/app:1", to); err != nil {
		t.Fatal(err)
	}
	if err := second.PushImage(t.Context(), to, "", PushOptions{}); err != nil {
		t.Fatal(err)
	}
	hasFiles(t, first.Engine, "team/other:2")
	if got, err := first.Image(t.Context(), "team/other:2"); err != nil || got.Target != img.Target {
		t.Errorf("want %s, got %+v, %v", img.Target, got, err)
	}
	log, err := first.images().Log("team/other:2")
	if err != nil || len(log) != 1 || log[0].By != byPush {
		t.Errorf("its log is %+v, %v", log, err)
	}
	if got := first.must(200, "GET", "/v2/_catalog", nil); got.body != `{"repositories":["app","team/other"]}` {
		t.Errorf("the names are %s", got.body)
	}
	// A new image, to an engine that has nothing.
	third := emptyOffering(t)
	to = third.addr + "/new:1"
	if err := errors.Join(second.TagImage(t.Context(), first.addr+"/app:1", to), second.PushImage(t.Context(), to, "", PushOptions{})); err != nil {
		t.Fatal(err)
	}
	hasFiles(t, third.Engine, "new:1")
	if left, _ := os.ReadDir(filepath.Join(third.Root(), "pushed", "docker.io")); len(left) != 0 {
		t.Errorf("%v is kept beside an image that is whole", left)
	}
	// By a name that only a proxy is asked for.
	first.must(200, "GET", "/v2/library/app/manifests/1?ns=docker.io", nil)
	first.must(404, "GET", "/v2/library/app/manifests/1?ns=ghcr.io", nil)
}

// TestOfferHostile: what a client should not send is refused in the words of the specification, and changes nothing.
func TestOfferHostile(t *testing.T) {
	o := emptyOffering(t)
	d := o.artifact("keep", "1", "kept", "")
	zero := "sha256:" + strings.Repeat("0", 64)
	long := strings.Repeat("a", 300)
	for _, c := range []struct {
		method, path string
		body         any
		header       []string
		status       int
		code         string
	}{
		{"GET", "/v2/../../etc/manifests/passwd", nil, nil, 400, "NAME_INVALID"},
		{"GET", "/v2/%2e%2e/%2e%2e/etc/manifests/passwd", nil, nil, 400, "NAME_INVALID"},
		{"GET", "/v2/keep/manifests/..%2f..%2fx", nil, nil, 404, "UNSUPPORTED"},
		{"GET", "/v2/keep/manifests/%2e%2e", nil, nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/keep%00/manifests/1", nil, nil, 400, "NAME_INVALID"},
		{"GET", "/v2/Keep/manifests/1", nil, nil, 400, "NAME_INVALID"},
		{"GET", "/v2/keep:1/manifests/1", nil, nil, 400, "NAME_INVALID"},
		{"GET", "/v2/" + long + "/manifests/1", nil, nil, 400, "NAME_INVALID"},
		{"GET", "/v2/keep/manifests/" + long, nil, nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/keep/manifests/sha256:../../x", nil, nil, 404, "UNSUPPORTED"},
		{"GET", "/v2/keep/manifests/sha256:xyz", nil, nil, 400, "DIGEST_INVALID"},
		{"GET", "/v2/keep/manifests/" + zero, nil, nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/keep/blobs/sha256:..%2f..%2fx", nil, nil, 400, "DIGEST_INVALID"},
		{"GET", "/v2/keep/blobs/" + zero, nil, nil, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/keep/blobs/" + string(d), nil, nil, 404, "BLOB_UNKNOWN"}, // it is a manifest
		{"GET", "/v2/other/manifests/" + string(d), nil, nil, 404, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/other/tags/list", nil, nil, 404, "NAME_UNKNOWN"},
		{"GET", "/v2/keep/tags/list?n=-1", nil, nil, 400, "UNSUPPORTED"},
		{"GET", "/v2/keep/referrers/sha256:x", nil, nil, 400, "DIGEST_INVALID"},
		{"GET", "/v2/keep/nothing/x", nil, nil, 404, "UNSUPPORTED"},
		{"GET", "/v1/", nil, nil, 404, "UNSUPPORTED"},
		{"POST", "/v2/", nil, nil, 405, "UNSUPPORTED"},
		{"PATCH", "/v2/keep/manifests/1", "x", nil, 405, "UNSUPPORTED"},
		{"GET", "/v2/keep/blobs/uploads/..%2f..%2f..", nil, nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"GET", "/v2/keep/blobs/uploads/" + strings.Repeat("0", 32), nil, nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"DELETE", "/v2/keep/blobs/uploads/" + strings.Repeat("A", 32), nil, nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"POST", "/v2/keep/blobs/uploads/?digest=" + zero, "something", nil, 400, "DIGEST_INVALID"},
		{"POST", "/v2/keep/blobs/uploads/?digest=md5:00", "something", nil, 400, "DIGEST_INVALID"},
		{"POST", "/v2/keep/blobs/uploads/?mount=sha256:../x&from=keep", nil, nil, 400, "DIGEST_INVALID"},
		{"POST", "/v2/keep/blobs/uploads/?digest-algorithm=md5", nil, nil, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/keep/manifests/-x", "{}", nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", "not JSON", nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", "[]", nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", "{}", nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", `{"schemaVersion":2,"config":{"digest":"sha256:../../x"}}`, nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", `{"schemaVersion":2,"manifests":[],"layers":[]}`, nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[]}`, []string{"Content-Type", ociManifest}, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", `{"schemaVersion":1,"fsLayers":[]}`, nil, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", `{"schemaVersion":2,"manifests":[{"digest":"` + zero + `","size":1}]}`, nil, 404, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/keep/manifests/1", `{"schemaVersion":2,"config":{"digest":"` + zero + `","size":1}}`, nil, 404, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/keep/manifests/" + zero, `{"schemaVersion":2,"manifests":[]}`, nil, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/keep/manifests/1", strings.Repeat(" ", 4<<20+1), nil, 413, "MANIFEST_INVALID"},
		{"DELETE", "/v2/keep/manifests/nosuch", nil, nil, 404, "MANIFEST_UNKNOWN"},
		{"DELETE", "/v2/keep/manifests/" + zero, nil, nil, 404, "MANIFEST_UNKNOWN"},
		{"DELETE", "/v2/keep/blobs/" + zero, nil, nil, 404, "BLOB_UNKNOWN"},
		{"DELETE", "/v2/keep/blobs/" + string(registrytest.Digest([]byte("kept"))), nil, nil, 405, "UNSUPPORTED"},
		{"POST", "/v2/keep/blobs/uploads/", nil, []string{"Origin", "http://evil.example"}, 403, "DENIED"},
		{"GET", "/v2/keep/tags/list", nil, []string{"Host", "evil.example:5000"}, 403, "DENIED"},
	} {
		if r := o.ask(c.method, c.path, c.body, c.header...); r.StatusCode != c.status || r.code() != c.code {
			t.Errorf("%s %.80s %.80v: want %d %s, got %d %s", c.method, c.path, c.body, c.status, c.code, r.StatusCode, r.body)
		}
	}
	if got := o.must(200, "GET", "/v2/keep/tags/list", nil); got.body != `{"name":"keep","tags":["1"]}` {
		t.Errorf("the tags are %s", got.body)
	}
	if left, _ := os.ReadDir(filepath.Join(o.Root(), "ingest")); len(left) != 0 {
		t.Errorf("uploads are left: %v", left)
	}
	// A whole registry that is not to be changed.
	r := offerOf(t, o.Engine, false)
	for _, c := range [][2]string{{"POST", "blobs/uploads/"}, {"PUT", "manifests/1"}, {"DELETE", "manifests/1"}, {"DELETE", "blobs/" + zero}} {
		if got := r.ask(c[0], "/v2/keep/"+c[1], "x"); got.StatusCode != 405 || got.code() != "UNSUPPORTED" || !strings.Contains(got.body, "--writable") {
			t.Errorf("%v: %d %s", c, got.StatusCode, got.body)
		}
	}
	r.must(200, "GET", "/v2/keep/manifests/1", nil)
}

// TestOfferReads: ranges, conditions, HEAD and pages.
func TestOfferReads(t *testing.T) {
	o := emptyOffering(t)
	for _, tag := range []string{"c", "a", "B", "b"} {
		o.artifact("app", tag, "content", "")
	}
	d := registrytest.Digest([]byte("content"))
	at := "/v2/app/blobs/" + string(d)
	if r := o.must(206, "GET", at, nil, "Range", "bytes=3-4"); r.body != "te" || r.Header.Get("Content-Range") != "bytes 3-4/7" {
		t.Errorf("a range is %q, %v", r.body, r.Header)
	}
	o.must(416, "GET", at, nil, "Range", "bytes=7-")
	r := o.must(200, "HEAD", at, nil)
	if r.ContentLength != 7 || r.Header.Get("Docker-Content-Digest") != string(d) || r.Header.Get("Etag") != `"`+string(d)+`"` {
		t.Errorf("HEAD says %v", r.Header)
	}
	o.must(304, "GET", at, nil, "If-None-Match", r.Header.Get("Etag"))
	m := o.must(200, "GET", "/v2/app/manifests/a", nil)
	if m.Header.Get("Content-Type") != ociManifest || m.Header.Get("Docker-Content-Digest") != string(registrytest.Digest([]byte(m.body))) {
		t.Errorf("the manifest has %v", m.Header)
	}
	if got := o.must(200, "GET", "/v2/app/tags/list", nil); got.body != `{"name":"app","tags":["B","a","b","c"]}` {
		t.Errorf("the tags are %s", got.body)
	}
	page := o.must(200, "GET", "/v2/app/tags/list?n=2&last=B", nil)
	if page.body != `{"name":"app","tags":["a","b"]}` || page.Header.Get("Link") != `</v2/app/tags/list?last=b&n=2>; rel="next"` {
		t.Errorf("a page is %s, %v", page.body, page.Header)
	}
	if got := o.must(200, "GET", "/v2/app/tags/list?n=2&last=b", nil); got.body != `{"name":"app","tags":["c"]}` || got.Header.Get("Link") != "" {
		t.Errorf("the last page is %s, %v", got.body, got.Header)
	}
	if got := o.must(200, "GET", "/v2/app/tags/list?n=0", nil); got.body != `{"name":"app","tags":[]}` || got.Header.Get("Link") != "" {
		t.Errorf("no page is %s, %v", got.body, got.Header)
	}
}

// TestOfferUpload: parts in order only, none over the end, what broke goes on where it was.
func TestOfferUpload(t *testing.T) {
	o := emptyOffering(t)
	begin := func() string {
		t.Helper()
		return o.must(202, "POST", "/v2/app/blobs/uploads/", nil).Header.Get("Location")
	}
	d := registrytest.Digest([]byte("abcdef"))
	done := "?digest=" + string(d)
	at := begin()
	if r := o.must(202, "PATCH", at, "abc", "Content-Range", "0-2"); r.Header.Get("Range") != "0-2" {
		t.Errorf("got %v", r.Header)
	}
	for _, wrong := range []string{"0-2", "2-4", "4-6"} {
		if r := o.must(416, "PATCH", at, "abc", "Content-Range", wrong); r.Header.Get("Range") != "0-2" || r.Header.Get("Location") != at {
			t.Errorf("%s: got %v", wrong, r.Header)
		}
	}
	o.must(400, "PATCH", at, "abc", "Content-Range", "3-9")
	o.must(400, "PATCH", at, "abc", "Content-Range", "-")
	o.must(400, "PATCH", at, "abc", "Content-Range", "9-3")
	o.must(400, "PATCH", at, io.MultiReader(strings.NewReader("too much")), "Content-Range", "3-4") // in pieces of unknown length
	if r := o.must(204, "GET", at, nil); r.Header.Get("Range") != "0-2" {
		t.Errorf("refused parts are kept: %v", r.Header)
	}
	other := "/v2/other" + strings.TrimPrefix(at, "/v2/app")
	o.must(404, "PATCH", other, "x")
	o.must(404, "DELETE", other, nil)
	o.must(416, "PUT", at+done, "def", "Content-Range", "4-6")
	o.must(201, "PUT", at+done, "def", "Content-Range", "3-5")
	o.must(404, "GET", at, nil)
	if r := o.must(200, "GET", "/v2/app/blobs/"+string(d), nil); r.body != "abcdef" {
		t.Errorf("got %q", r.body)
	}
	o.must(404, "GET", "/v2/other/blobs/"+string(d), nil)
	o.must(201, "POST", "/v2/other/blobs/uploads/?mount="+string(d)+"&from=app", nil)
	o.must(200, "HEAD", "/v2/other/blobs/"+string(d), nil)
	o.must(202, "POST", "/v2/other/blobs/uploads/?mount=sha256:"+strings.Repeat("0", 64)+"&from=app", nil)

	// Two of one blob, at once; and one that is cancelled.
	one, two := begin(), begin()
	o.must(202, "PATCH", one, "abcdef")
	o.must(202, "PATCH", two, "abcdef")
	o.must(201, "PUT", one+done, nil)
	o.must(201, "PUT", two+done, nil)
	at = begin()
	o.must(204, "DELETE", at, nil)
	o.must(404, "PATCH", at, "x")

	// A client that goes away in the middle, and another server that takes up what came.
	at = begin()
	conn, err := net.Dial("tcp", o.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 6\r\n\r\nabcd", at, o.addr)
	for end := time.Now().Add(30 * time.Second); o.must(204, "GET", at, nil).Header.Get("Range") != "0-3"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what came before the end is not kept")
		}
	}
	conn.Close()
	o.must(204, "GET", at, nil)
	again := offerOf(t, o.Engine, true)
	again.must(201, "PUT", at+done, "ef", "Content-Range", "4-5")

	// The bytes on disk are what counts.
	at = begin()
	o.must(202, "PATCH", at, "abcdef")
	id := at[strings.LastIndexByte(at, '/')+1:]
	if err := os.WriteFile(filepath.Join(o.Root(), "ingest", "upload-"+id, "data"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.must(416, "PATCH", at, "x", "Content-Range", "6-6")
	if r := o.must(400, "PUT", at+done, "xyz"); r.code() != "DIGEST_INVALID" {
		t.Errorf("got %s", r.body)
	}
	o.must(404, "GET", at, nil)
	if left, _ := os.ReadDir(filepath.Join(o.Root(), "ingest")); len(left) != 1 { // the one that a mount began
		t.Errorf("uploads are left: %v", left)
	}
	for range 255 {
		begin()
	}
	if r := o.must(429, "POST", "/v2/app/blobs/uploads/", nil); r.Header.Get("Retry-After") == "" || r.code() != "TOOMANYREQUESTS" {
		t.Errorf("got %v %s", r.Header, r.body)
	}
}

// TestOfferResume: who says beforehand what blob it is goes on with what an upload of that blob has left, and whoever began
// that one does not.
func TestOfferResume(t *testing.T) {
	o := emptyOffering(t)
	d := registrytest.Digest([]byte("abcdef"))
	done := "?digest=" + string(d)
	begin := func(repo string, d ref.Digest, want string) string {
		t.Helper()
		r := o.must(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil, "Hull-Blob", string(d))
		if got := r.Header.Get("Range"); got != want {
			t.Errorf("%s begins with %s, want %s", repo, got, want)
		}
		return r.Header.Get("Location")
	}
	one := begin("app", d, "0-0")
	o.must(202, "PATCH", one, "abc")
	begin("other", d, "0-0")
	begin("app", registrytest.Digest([]byte("abcxyz")), "0-0")
	o.must(202, "POST", "/v2/app/blobs/uploads/", nil) // by a client of another kind
	two := begin("app", d, "0-2")
	o.must(404, "PATCH", one, "def")
	o.must(202, "PATCH", two, "d", "Content-Range", "3-3")
	three := begin("app", d, "0-3")
	o.must(404, "PUT", two+done, "ef")
	again := offerOf(t, o.Engine, true) // which has read none of it
	again.must(201, "PUT", three+done, "ef", "Content-Range", "4-5")
	if r := o.must(200, "GET", "/v2/app/blobs/"+string(d), nil); r.body != "abcdef" {
		t.Errorf("got %q", r.body)
	}
	begin("app", d, "0-0")
	o.must(400, "POST", "/v2/app/blobs/uploads/", nil, "Hull-Blob", "sha256:../x")

	// While somebody adds to it, it is left to them.
	held := registrytest.Digest([]byte("held"))
	at := begin("app", held, "0-0")
	o.must(202, "PATCH", at, "he")
	l, err := state.Lock(t.Context(), filepath.Join(o.Root(), "ingest", "upload-"+at[strings.LastIndexByte(at, '/')+1:]))
	if err != nil {
		t.Fatal(err)
	}
	begin("app", held, "0-0")
	l.Unlock()
	o.must(201, "PUT", at+"?digest="+string(held), "ld")
}

// TestOfferArtifacts: what is no image is kept as it came, listed for what it refers to, and collected when nothing leads to
// it any more; and no image is disturbed by it.
func TestOfferArtifacts(t *testing.T) {
	o := emptyOffering(t)
	subject := "sha256:" + strings.Repeat("1", 64)
	d := o.artifact("app", "", "a signature", `,"subject":{"mediaType":"`+ociManifest+`","digest":"`+subject+`","size":7},"annotations":{"a":"b"}`)
	list := o.must(200, "GET", "/v2/app/referrers/"+subject, nil)
	var x struct {
		Manifests []struct {
			Digest, ArtifactType string
			Annotations          map[string]string
		}
	}
	if err := json.Unmarshal([]byte(list.body), &x); err != nil || len(x.Manifests) != 1 || x.Manifests[0].Digest != string(d) ||
		x.Manifests[0].ArtifactType != "application/x.test" || x.Manifests[0].Annotations["a"] != "b" {
		t.Errorf("referrers are %s", list.body)
	}
	if r := o.must(200, "GET", "/v2/app/referrers/"+subject+"?artifactType=other", nil); !strings.Contains(r.body, `"manifests":[]`) || r.Header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("of another type: %s", r.body)
	}
	blob := "/v2/app/blobs/" + string(registrytest.Digest([]byte("a signature")))
	o.collect(time.Hour)
	o.must(200, "HEAD", blob, nil)
	o.collect(25 * time.Hour) // no tag leads to the repository
	o.must(404, "HEAD", blob, nil)
	o.must(404, "HEAD", "/v2/app/manifests/"+string(d), nil)

	// With a tag it stays, and so does what is beside it.
	d = o.artifact("app", "1", "tagged", "")
	beside := o.artifact("app", "", "beside", "")
	waiting := o.blob("app", "waiting for its manifest")
	o.collect(time.Hour)
	o.must(200, "HEAD", "/v2/app/blobs/"+string(waiting), nil)
	o.collect(25 * time.Hour)
	o.must(404, "HEAD", "/v2/app/blobs/"+string(waiting), nil)
	for _, m := range []string{"1", string(d), string(beside)} {
		o.must(200, "GET", "/v2/app/manifests/"+m, nil)
	}
	for _, content := range []string{"tagged", "beside", "{}"} {
		if r := o.must(200, "GET", "/v2/app/blobs/"+string(registrytest.Digest([]byte(content))), nil); r.body != content {
			t.Errorf("%s: %q", content, r.body)
		}
	}
	if list, err := o.ListImages(t.Context(), nil); err != nil || len(list) != 0 {
		t.Errorf("images: %+v, %v", list, err)
	}

	// An image takes the name, and an artifact takes it back; each is what it was.
	s, _ := shelf(t, registrytest.Options{})
	if err := o.PullImage(t.Context(), s.Addr+"/app:1", "", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := o.TagImage(t.Context(), s.Addr+"/app:1", "app:1"); err != nil {
		t.Fatal(err)
	}
	img, err := o.Image(t.Context(), "app:1")
	if err != nil {
		t.Fatal(err)
	}
	if r := o.must(200, "HEAD", "/v2/app/manifests/1", nil); r.Header.Get("Docker-Content-Digest") != img.Target {
		t.Errorf("want %s, got %v", img.Target, r.Header)
	}
	again := o.artifact("app", "1", "tagged once more", "")
	if r := o.must(200, "HEAD", "/v2/app/manifests/1", nil); r.Header.Get("Docker-Content-Digest") != string(again) {
		t.Errorf("want %s, got %v", again, r.Header)
	}
	if _, err := o.Image(t.Context(), "app:1"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("an artifact is taken for an image: %v", err)
	}
	o.collect(time.Hour)
	hasFiles(t, o.Engine, s.Addr+"/app:1")
	if found, err := o.images().Check(t.Context(), image.CheckOptions{}); err != nil || len(found) != 0 {
		t.Errorf("the store has %v, %v", found, err)
	}
	// Deleted is deleted.
	for _, m := range []ref.Digest{d, beside, again} {
		o.must(202, "DELETE", "/v2/app/manifests/"+string(m), nil)
		o.must(404, "GET", "/v2/app/manifests/"+string(m), nil)
	}
	o.must(404, "GET", "/v2/app/manifests/1", nil)
	if blobs, err := os.ReadDir(filepath.Join(o.Root(), "blobs/sha256")); err != nil || len(blobs) != 4 {
		t.Errorf("the blobs of the image are not all that is left: %v, %v", blobs, err)
	}
}

// TestOfferGarbage: an image that cannot be unpacked, or whose layers are not what its configuration says, is kept and never
// run; a listed image of the same configuration stays as it was.
func TestOfferGarbage(t *testing.T) {
	o := emptyOffering(t)
	good, evil := noisy(t, "a", 1000), noisy(t, "b", 1000)
	push := func(reference string, diffID ref.Digest, layer []byte) *reply {
		t.Helper()
		config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, diffID)
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`,
			ociManifest, o.blob("app", config), len(config), o.blob("app", string(layer)), len(layer))
		if reference == "" {
			reference = string(registrytest.Digest([]byte(m)))
		}
		return o.must(201, "PUT", "/v2/app/manifests/"+reference, m, "Content-Type", ociManifest)
	}
	for i, layer := range [][]byte{[]byte("this is no layer"), nil, {0x1f, 0x8b, 8, 0, 0}, evil.Blob, good.Blob[:len(good.Blob)/2]} {
		r := push(fmt.Sprint(i), good.DiffID, layer)
		if _, err := o.Image(t.Context(), fmt.Sprintf("app:%d", i)); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("%d: %v", i, err)
		}
		o.must(200, "GET", r.Header.Get("Location"), nil)
	}
	push("good", good.DiffID, good.Blob)
	img, err := o.Image(t.Context(), "app:good")
	if err != nil {
		t.Fatal(err)
	}
	// The layer is here, and so is the manifest that pairs it with another blob: that it came before vouches for nothing.
	push("", good.DiffID, evil.Blob)
	push("evil", good.DiffID, evil.Blob)
	if _, err := o.Image(t.Context(), "app:evil"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("evil: %v", err)
	}
	if now, err := o.Image(t.Context(), "app:good"); err != nil || now.Target != img.Target {
		t.Errorf("want %s, got %+v, %v", img.Target, now, err)
	}
	o.collect(time.Hour)
	if st, err := os.Stat(filepath.Join(img.Layers[0].Dir, "a")); err != nil || st.Size() != 1000 {
		t.Errorf("the layer: %v", err)
	}
}

// TestOfferMoved: who was given a manifest finds its blobs also after the tag was moved or taken away, as long as they are
// here.
func TestOfferMoved(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	o := emptyOffering(t)
	if err := o.PullImage(t.Context(), s.Addr+"/app:1", "", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := o.TagImage(t.Context(), s.Addr+"/app:1", "app:1"); err != nil {
		t.Fatal(err)
	}
	blob := "/v2/app/blobs/" + string(registrytest.Digest(layers[0].Blob))
	d := o.must(200, "GET", "/v2/app/manifests/1", nil).Header.Get("Docker-Content-Digest")
	o.must(202, "DELETE", "/v2/app/manifests/1", nil)
	o.must(404, "GET", "/v2/app/manifests/1", nil)
	o.must(200, "GET", "/v2/app/manifests/"+d, nil)
	o.must(200, "HEAD", blob, nil)
	if log, err := o.images().Log("app:1"); err != nil || log[len(log)-1].By != byDelete || log[len(log)-1].New != "" {
		t.Errorf("the log is %+v, %v", log, err)
	}
	// Another server knows nothing of it.
	offerOf(t, o.Engine, true).must(404, "HEAD", blob, nil)
	// A deleted manifest is not found again, whoever was given it.
	if err := o.TagImage(t.Context(), s.Addr+"/app:1", "app:1"); err != nil {
		t.Fatal(err)
	}
	o.must(200, "GET", "/v2/app/manifests/1", nil)
	o.must(202, "DELETE", "/v2/app/manifests/"+d, nil)
	o.must(404, "GET", "/v2/app/manifests/"+d, nil)
	o.must(404, "HEAD", blob, nil)
	hasFiles(t, o.Engine, s.Addr+"/app:1")
}

// TestOfferIndex: the parts of an index are kept with it, whatever they are, and the image for this machine is one to run.
func TestOfferIndex(t *testing.T) {
	o := emptyOffering(t)
	l := noisy(t, "a", 1000)
	part := func(arch string) (ref.Digest, int) {
		config := fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":[%q]}}`, arch, l.DiffID)
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`,
			ociManifest, o.blob("app", config), len(config), o.blob("app", string(l.Blob)), len(l.Blob))
		d := registrytest.Digest([]byte(m))
		o.must(201, "PUT", "/v2/app/manifests/"+string(d), m, "Content-Type", ociManifest)
		return d, len(m)
	}
	var entries []string
	var parts []ref.Digest
	for _, arch := range []string{"s390x", "amd64", "arm64"} {
		d, n := part(arch)
		parts = append(parts, d)
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, ociManifest, d, n, arch))
	}
	sig := o.artifact("app", "", "attested", "")
	entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1,"platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}`, ociManifest, sig))
	plain := o.artifact("app", "", "something else", "")
	entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, ociManifest, plain))
	x := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Join(entries, ","))
	o.must(201, "PUT", "/v2/app/manifests/1", x, "Content-Type", ociIndex)
	img, err := o.Image(t.Context(), "app:1")
	if err != nil || img.Target != string(registrytest.Digest([]byte(x))) {
		t.Fatalf("%+v, %v", img, err)
	}
	if list, err := o.ListImages(t.Context(), nil); err != nil || len(list) != 1 {
		t.Errorf("images: %+v, %v", list, err)
	}
	o.collect(25 * time.Hour)
	for _, d := range append(parts, sig, plain) {
		o.must(200, "GET", "/v2/app/manifests/"+string(d), nil)
	}
	for _, content := range []string{"attested", "something else", string(l.Blob)} {
		o.must(200, "HEAD", "/v2/app/blobs/"+string(registrytest.Digest([]byte(content))), nil)
	}
	if r := o.must(405, "DELETE", "/v2/app/manifests/"+string(parts[0]), nil); r.code() != "UNSUPPORTED" {
		t.Errorf("a part of an index: %s", r.body)
	}
	if found, err := o.images().Check(t.Context(), image.CheckOptions{}); err != nil || len(found) != 0 {
		t.Errorf("the store has %v, %v", found, err)
	}
	// When the last tag goes, so does, after a day, all of it but the image, which is the store's.
	o.must(202, "DELETE", "/v2/app/manifests/1", nil)
	o.collect(25 * time.Hour)
	if left, _ := os.ReadDir(filepath.Join(o.Root(), "pushed", "docker.io")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestOfferOne: one connection of HTTP/2 on two pipes, until it is closed.
func TestOfferOne(t *testing.T) {
	e := Open(t.TempDir(), t.TempDir(), Options{})
	h, err := e.Offer(serve.Options{Writable: true}, Remote{})
	if err != nil {
		t.Fatal(err)
	}
	in, toServer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromServer, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.One(context.Background(), h, in, out, nil) }()
	c := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
		return &twoPipes{fromServer, toServer}, nil
	}}
	c.Protocols.SetUnencryptedHTTP2(true)
	for _, path := range []string{"/v2/", "/v2/_catalog"} {
		q, _ := http.NewRequest("GET", "http://stdio"+path, nil)
		resp, err := c.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Errorf("%s: %s %s", path, resp.Proto, resp.Status)
		}
	}
	o := slices.Repeat([]byte("x"), 3<<20)
	q, _ := http.NewRequest("POST", "http://stdio/v2/app/blobs/uploads/?digest="+string(registrytest.Digest(o)), bytes.NewReader(o))
	resp, err := c.RoundTrip(q)
	if err != nil || resp.StatusCode != 201 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	toServer.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it does not end with its connection")
	}
}

// twoPipes is the client's end.
type twoPipes struct{ in, out *os.File }

func (c *twoPipes) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *twoPipes) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *twoPipes) Close() error                     { return errors.Join(c.in.Close(), c.out.Close()) }
func (c *twoPipes) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (c *twoPipes) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (c *twoPipes) SetDeadline(time.Time) error      { return nil }
func (c *twoPipes) SetReadDeadline(time.Time) error  { return nil }
func (c *twoPipes) SetWriteDeadline(time.Time) error { return nil }

// TestOfferUndo: what a client deletes comes back by undo, all names of it at once, and keeps what they need until then.
func TestOfferUndo(t *testing.T) {
	s, _ := shelf(t, registrytest.Options{})
	o := emptyOffering(t)
	from := s.Addr + "/app:1"
	if err := o.PullImage(t.Context(), from, "", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app:1", "app:2", "app:3"} {
		if err := o.TagImage(t.Context(), from, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.RemoveImage(t.Context(), from, RemoveImageOptions{Now: true}); err != nil {
		t.Fatal(err)
	}
	img, err := o.Image(t.Context(), "app:1")
	if err != nil {
		t.Fatal(err)
	}
	o.must(202, "DELETE", "/v2/app/manifests/1", nil)
	o.must(202, "DELETE", "/v2/app/manifests/"+img.Target, nil)
	o.must(404, "GET", "/v2/app/manifests/"+img.Target, nil)
	o.collect(0)
	restored, err := o.Undo(t.Context(), RestoreOptions{})
	if err != nil || len(restored) != 1 || restored[0].Failed != "" {
		t.Fatalf("undo: %+v, %v", restored, err)
	}
	o.must(404, "GET", "/v2/app/manifests/1", nil)
	for _, tag := range []string{"2", "3"} {
		o.must(200, "GET", "/v2/app/manifests/"+tag, nil)
		hasFiles(t, o.Engine, "app:"+tag)
	}
	if _, err := o.Undo(t.Context(), RestoreOptions{}); err != nil {
		t.Error(err)
	}
	o.must(200, "GET", "/v2/app/manifests/1", nil)
	// An artifact is pushed again by whoever has it.
	o.artifact("sig", "1", "a signature", "")
	o.must(202, "DELETE", "/v2/sig/manifests/1", nil)
	if _, err := o.Undo(t.Context(), RestoreOptions{}); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("an artifact: %v", err)
	}
}
