package api

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// rootfsTar is the smallest root file system.
func rootfsTar(t *testing.T) *bytes.Buffer {
	t.Helper()
	rootfs := new(bytes.Buffer)
	w := tar.NewWriter(rootfs)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("hello"))
	w.Close()
	return rootfs
}

// TestImportURL: the engine fetches what an address gives, and nothing that ended early becomes an image.
func TestImportURL(t *testing.T) {
	rootfs := rootfsTar(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(rootfs.Bytes())
	z.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/plain.tar":
			w.Write(rootfs.Bytes())
		case "/packed.tar.gz":
			w.Write(packed.Bytes())
		case "/moved":
			http.Redirect(w, r, "/plain.tar", http.StatusFound)
		case "/short":
			w.Header().Set("Content-Length", "100000")
			w.Write(rootfs.Bytes())
		case "/broken":
			w.Write(rootfs.Bytes()[:1024])
			panic(http.ErrAbortHandler)
		case "/page":
			w.Write([]byte("<html>"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	c := client(t)
	get := func(src, tag string) string {
		_, body := do(t, c, "POST", "/images/create?repo=fetched&tag="+tag+"&changes="+url.QueryEscape("CMD x")+"&fromSrc="+url.QueryEscape(src), "")
		return body
	}
	for _, path := range []string{"/plain.tar", "/packed.tar.gz", "/moved"} {
		tag := strings.Trim(strings.ReplaceAll(path, ".", "-"), "/")
		if body := get(srv.URL+path, tag); !strings.Contains(body, `"Downloading from `) || !strings.Contains(body, `{"status":"sha256:`) {
			t.Errorf("%s: %s", path, body)
		}
		if res, body := do(t, c, "GET", "/images/fetched:"+tag+"/json", ""); res.StatusCode != 200 || !strings.Contains(body, `"Cmd":["/bin/sh","-c","x"]`) {
			t.Errorf("%s: %s %s", path, res.Status, body)
		}
	}
	if body := get(strings.TrimPrefix(srv.URL, "http://")+"/plain.tar", "bare"); !strings.Contains(body, `"sha256:`) {
		t.Errorf("without a scheme: %s", body)
	}
	for _, bad := range []string{srv.URL + "/short", srv.URL + "/broken", srv.URL + "/page", srv.URL + "/none", "http://127.0.0.1:1/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://[bad"} {
		if body := get(bad, "bad"); !strings.Contains(body, `"errorDetail"`) {
			t.Errorf("%s: want an error, got %s", bad, body)
		}
	}
	if res, body := do(t, c, "GET", "/images/fetched:bad/json", ""); res.StatusCode != 404 {
		t.Errorf("what could not be fetched is an image: %s", body)
	}
}
