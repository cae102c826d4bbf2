package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// problem is an answer that is an error, in the words of the specification.
type problem struct {
	status  int
	code    string
	message string
}

func (p *problem) Error() string { return p.message }

func (p *problem) with(format string, args ...any) *problem {
	return &problem{p.status, p.code, fmt.Sprintf(format, args...)}
}

// The answers of the specification, with what they say unless there is something better.
var (
	unknownPath     = &problem{http.StatusNotFound, "UNSUPPORTED", "a registry has no such path"}
	unsupported     = &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is not supported"}
	readOnly        = &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only: start it with hull registry serve --writable"}
	denied          = &problem{http.StatusForbidden, "DENIED", "access denied"}
	nameInvalid     = &problem{http.StatusBadRequest, "NAME_INVALID", "invalid repository name"}
	nameUnknown     = &problem{http.StatusNotFound, "NAME_UNKNOWN", "repository is not known"}
	manifestUnknown = &problem{http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest is not known"}
	manifestInvalid = &problem{http.StatusBadRequest, "MANIFEST_INVALID", "manifest is not valid"}
	manifestLarge   = &problem{http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "manifest is too large"}
	manifestLacks   = &problem{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "manifest names what is not here"}
	blobUnknown     = &problem{http.StatusNotFound, "BLOB_UNKNOWN", "blob is not known"}
	uploadUnknown   = &problem{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload is not known"}
	uploadInvalid   = &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "upload is not valid"}
	uploadRange     = &problem{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "upload goes on elsewhere"}
	uploadLarge     = &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "blob is too large"}
	digestInvalid   = &problem{http.StatusBadRequest, "DIGEST_INVALID", "digest is not valid"}
	sizeInvalid     = &problem{http.StatusBadRequest, "SIZE_INVALID", "size is not valid"}
	tooMany         = &problem{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many requests"}
	internal        = &problem{http.StatusInternalServerError, "UNKNOWN", "internal error"}
	noSpace         = &problem{http.StatusInsufficientStorage, "UNKNOWN", "no space is left"}
)

// as puts err into the words of the first of candidates that fits its kind.
func as(err error, candidates ...*problem) error {
	var p *problem
	if err == nil || errors.As(err, &p) {
		return err
	}
	kind := 0
	switch errdef.Kind(err) {
	case errdef.ErrNotFound:
		kind = http.StatusNotFound
	case errdef.ErrInvalid:
		kind = http.StatusBadRequest
	case errdef.ErrConflict:
		for _, p := range candidates {
			if p.status == http.StatusMethodNotAllowed || p.status == http.StatusRequestedRangeNotSatisfiable {
				return p.with("%s", err)
			}
		}
	}
	for _, p := range candidates {
		if p.status == kind {
			return p.with("%s", err)
		}
	}
	return err
}

// fail answers with err. What is nobody's business, such as paths of this machine, is not said.
func fail(w http.ResponseWriter, err error) {
	p := internal
	switch {
	case errors.As(err, &p):
	case errors.Is(err, unix.ENOSPC):
		p = noSpace
	case errors.Is(err, ErrBusy):
		w.Header().Set("Retry-After", "5")
		p = tooMany.with("%s", err)
	case errors.Is(err, errdef.ErrConflict):
		p = unsupported.with("%s", err)
	}
	h := w.Header()
	for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "Accept-Ranges", "Docker-Content-Digest"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	json.NewEncoder(w).Encode(map[string][]one{"errors": {{p.code, p.message}}})
}

// ErrBusy is the cause of an error of Begin that another try later may not have.
var ErrBusy = errors.New("too many uploads are in progress")
