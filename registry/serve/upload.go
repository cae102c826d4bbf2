package serve

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/ref"
)

// Body is what a client sends.
type Body = io.Reader

// An upload of a blob:
//
//	POST uploads/                     -> 202, Location: where it goes on
//	POST uploads/?mount=d&from=name   -> 201, when the blob is here already
//	POST uploads/?digest=d            -> 201, the whole blob came with it
//	POST uploads/   Hull-Blob: d      -> 202, Range: what an upload of d that broke has left; no other registry knows this
//	PATCH location                    -> 202, Range: 0-<last byte that is here>
//	GET location                      -> 204, Range
//	PUT location?digest=d             -> 201, with the rest of the blob, or none
//	DELETE location                   -> 204
func (r *request) begin() error {
	if r.Method != http.MethodPost {
		return r.methods("POST")
	}
	q := r.URL.Query()
	if a := q.Get("digest-algorithm"); a != "" && a != "sha256" && a != "sha512" {
		return digestInvalid.with("digests of %.20q are not known here", a)
	}
	if q.Has("mount") {
		d, err := ref.ParseDigest(q.Get("mount"))
		if err != nil {
			return as(err, digestInvalid)
		}
		if done, err := r.repo.Mount(r.Context(), d); err != nil {
			return err
		} else if done {
			return r.created(d)
		}
	}
	var d ref.Digest
	if q.Has("digest") {
		var err error
		if d, err = ref.ParseDigest(q.Get("digest")); err != nil {
			return as(err, digestInvalid)
		}
	}
	if h := r.Header.Get(BlobHeader); h != "" && d == "" {
		return r.resume(h)
	}
	id, err := r.repo.Begin(r.Context())
	if err != nil {
		return err
	}
	if d == "" {
		r.where(id, 0)
		r.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	err = r.receive(id)
	if err == nil {
		err = as(r.repo.Finish(r.Context(), id, d), uploadUnknown, digestInvalid)
	}
	if err != nil {
		_ = r.repo.Cancel(r.Context(), id) // nobody knows of it
		return err
	}
	return r.created(d)
}

// BlobHeader is the field in which another engine says what blob it begins to upload.
const BlobHeader = "Hull-Blob"

// resume begins the upload of the blob called text where an earlier one broke.
func (r *request) resume(text string) error {
	d, err := ref.ParseDigest(text)
	if err != nil {
		return as(err, digestInvalid)
	}
	id, n, err := r.repo.Resume(r.Context(), d)
	if err != nil {
		return err
	}
	r.where(id, n)
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

// created says that the blob d is here.
func (r *request) created(d ref.Digest) error {
	r.w.Header().Set("Docker-Content-Digest", string(d))
	r.w.Header().Set("Location", "/v2/"+r.name+"/blobs/"+string(d))
	r.w.WriteHeader(http.StatusCreated)
	return nil
}

// where says how far an upload is, and where it goes on.
func (r *request) where(id string, n int64) {
	h := r.w.Header()
	h.Set("Location", "/v2/"+r.name+"/blobs/uploads/"+id)
	h.Set("Docker-Upload-Uuid", id)
	h.Set("Range", fmt.Sprintf("0-%d", max(n-1, 0)))
}

// upload serves what begin gave.
func (r *request) upload() error {
	id := r.rest
	switch r.Method {
	case http.MethodGet:
		n, err := r.repo.Uploaded(r.Context(), id)
		if err != nil {
			return as(err, uploadUnknown)
		}
		r.where(id, n)
		r.w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if err := r.receive(id); err != nil {
			return err
		}
		r.w.WriteHeader(http.StatusAccepted)
		return nil
	case http.MethodPut:
		d, err := ref.ParseDigest(r.URL.Query().Get("digest"))
		if err != nil {
			return as(err, digestInvalid)
		}
		if err := r.receive(id); err != nil {
			return err
		}
		r.w.Header().Del("Range")
		if err := r.repo.Finish(r.Context(), id, d); err != nil {
			return as(err, uploadUnknown, digestInvalid)
		}
		return r.created(d)
	case http.MethodDelete:
		if err := r.repo.Cancel(r.Context(), id); err != nil {
			return as(err, uploadUnknown)
		}
		r.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return r.methods("GET, PATCH, PUT, DELETE")
}

// receive adds the body to the upload id, where Content-Range says, and sets the headers that say how much there is.
func (r *request) receive(id string) error {
	at, n := int64(-1), r.ContentLength // -1 when it is not known
	if text := r.Header.Get("Content-Range"); text != "" {
		first, last, ok := contentRange(text)
		if !ok {
			return uploadInvalid.with("Content-Range %.50q is not understood: want <first byte>-<last byte>", text)
		}
		if at = first; n >= 0 && n != last-first+1 {
			return sizeInvalid.with("Content-Range says %d bytes, Content-Length %d", last-first+1, n)
		}
		n = last - first + 1
	}
	size, err := r.repo.Append(r.Context(), id, at, n, r.body())
	if err == nil || errdef.Kind(err) == errdef.ErrConflict {
		r.where(id, size)
	}
	return as(err, uploadUnknown, uploadInvalid, uploadRange)
}

// contentRange reads "0-99", or "bytes 0-99/*" as HTTP has it.
func contentRange(s string) (first, last int64, ok bool) {
	s = strings.TrimPrefix(s, "bytes ")
	s, _, _ = strings.Cut(s, "/")
	a, b, ok := strings.Cut(s, "-")
	first, err := strconv.ParseInt(a, 10, 64)
	if !ok || err != nil || first < 0 {
		return 0, 0, false
	}
	last, err = strconv.ParseInt(b, 10, 64)
	return first, last, err == nil && last >= first && last-first < 1<<62
}
