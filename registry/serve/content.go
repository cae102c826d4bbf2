package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"hull/ref"
)

// maxManifest is what registries take.
const maxManifest = 4 << 20

// Limits against clients that stall. A blob may take as long as its bytes at minRate, and a bit.
const (
	bodyIdle = time.Minute
	minRate  = 32 << 10 // bytes in a second
)

// manifests serves /v2/<name>/manifests/<tag or digest>.
func (r *request) manifests() error {
	if r.rest == "" || strings.Contains(r.rest, "/") {
		return unknownPath
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		data, mediaType, d, err := r.repo.Manifest(r.Context(), r.rest)
		if err != nil {
			return as(err, manifestUnknown, digestInvalid)
		}
		return r.send(bytes.NewReader(data), int64(len(data)), d, mediaType)
	case http.MethodPut:
		return r.putManifest()
	case http.MethodDelete:
		var err error
		if !strings.Contains(r.rest, ":") {
			err = r.repo.DeleteTag(r.Context(), r.rest)
		} else if d, wrong := r.digest(); wrong != nil {
			return wrong
		} else {
			err = r.repo.DeleteManifest(r.Context(), d)
		}
		if err == nil {
			r.w.WriteHeader(http.StatusAccepted)
		}
		return as(err, manifestUnknown, manifestInvalid, unsupported)
	}
	return r.methods("GET, HEAD, PUT, DELETE")
}

// send answers with content that is never anything else, or with the part of it that is asked for.
func (r *request) send(content io.ReadSeeker, size int64, d ref.Digest, mediaType string) error {
	h := r.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Etag", `"`+string(d)+`"`)
	r.w.size = size
	http.ServeContent(r.w, r.Request, "", time.Time{}, content)
	return nil
}

func (r *request) putManifest() error {
	if r.ContentLength > maxManifest {
		return manifestLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(r.w, r.body(), maxManifest))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return manifestLarge
	}
	if err != nil {
		return manifestInvalid.with("the manifest did not come whole")
	}
	tags := r.URL.Query()["tag"]
	d := ref.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
	if strings.Contains(r.rest, ":") {
		want, err := r.digest()
		if err != nil {
			return err
		}
		if want.Algorithm() == "sha512" {
			d = ref.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(data)))
		}
		if d != want {
			return digestInvalid.with("the manifest has the digest %s, not %s", d, want)
		}
		if len(tags) > maxTags {
			return manifestInvalid.with("%d tags at once are more than %d", len(tags), maxTags)
		}
	} else {
		tags = []string{r.rest}
	}
	subject, err := r.repo.PutManifest(r.Context(), d, tags, r.Header.Get("Content-Type"), data)
	if err != nil {
		return as(err, manifestLacks, manifestInvalid)
	}
	h := r.w.Header()
	if subject != "" {
		h.Set("OCI-Subject", string(subject))
	}
	if strings.Contains(r.rest, ":") {
		for _, tag := range tags {
			h.Add("OCI-Tag", tag)
		}
	}
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Location", "/v2/"+r.name+"/manifests/"+string(d))
	r.w.WriteHeader(http.StatusCreated)
	return nil
}

// maxTags is how many a manifest is given at once.
const maxTags = 100

// blobs serves /v2/<name>/blobs/<digest>.
func (r *request) blobs() error {
	d, err := r.digest()
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		f, err := r.repo.Blob(r.Context(), d)
		if err != nil {
			return as(err, blobUnknown)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return r.send(f, st.Size(), d, "application/octet-stream")
	case http.MethodDelete:
		if err := r.repo.DeleteBlob(r.Context(), d); err != nil {
			return as(err, blobUnknown, unsupported)
		}
		r.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return r.methods("GET, HEAD, DELETE")
}

// body is the body of the request, whose client must not stay silent for long.
func (r *request) body() io.ReadCloser {
	return &paced{r.Body, http.NewResponseController(r.w), r.Context()}
}

type paced struct {
	io.ReadCloser
	c   *http.ResponseController
	ctx context.Context
}

func (p *paced) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	_ = p.c.SetReadDeadline(time.Now().Add(bodyIdle))
	return p.ReadCloser.Read(b)
}
