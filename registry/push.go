package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/ref"
)

// Has reports whether the repository has blob d.
func (r *Repository) Has(ctx context.Context, d ref.Digest) (has bool, err error) {
	err = r.each(ctx, func(h *host) (err error) {
		has, err = h.has(ctx, "blobs", d)
		return err
	})
	return has, r.denied(err)
}

// HasManifest reports whether the repository has the manifest or index d.
func (r *Repository) HasManifest(ctx context.Context, d ref.Digest) (has bool, err error) {
	err = r.each(ctx, func(h *host) (err error) {
		has, err = h.has(ctx, "manifests", d)
		return err
	})
	return has, r.denied(err)
}

func (h *host) has(ctx context.Context, kind string, d ref.Digest) (bool, error) {
	c := h.get(h.repo(kind, string(d)), h.pushScope())
	c.method = http.MethodHead
	c.header.Set("Accept", accepted)
	resp, err := h.do(ctx, c)
	if err != nil {
		return false, err
	}
	defer drop(resp)
	switch {
	case resp.StatusCode == http.StatusOK:
		return true, nil
	case resp.StatusCode == http.StatusNotFound:
		return false, nil
	}
	return false, h.answerError(resp)
}

func (h *host) pushScope() string {
	if !h.push {
		return h.pullScope()
	}
	return "repository:" + h.place.Repo + ":pull,push"
}

// Mount asks for blob d of repository from of the same registry. False means that it has to be uploaded.
func (r *Repository) Mount(ctx context.Context, d ref.Digest, from string) (done bool, err error) {
	err = r.each(ctx, func(h *host) error {
		done, err = h.mount(ctx, r, d, h.place.rewritten(from))
		return err
	})
	return done, r.denied(err)
}

func (h *host) mount(ctx context.Context, r *Repository, d ref.Digest, from string) (bool, error) {
	u := h.repo("blobs", "uploads/")
	u.RawQuery = url.Values{"mount": {string(d)}, "from": {from}}.Encode()
	c := call{method: http.MethodPost, url: u, scope: h.pushScope() + " repository:" + from + ":pull"}
	resp, err := h.do(ctx, c)
	if err != nil {
		return false, err
	}
	defer drop(resp)
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusAccepted:
		// An upload has begun instead: the one that follows goes on with it.
		if at, err := h.session(resp, u); err == nil {
			r.mu.Lock()
			r.uploads[d] = at
			r.mu.Unlock()
		}
		return false, nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed:
		return false, nil // of the other repository: the upload will tell if it is of this one
	}
	return false, h.answerError(resp)
}

// Upload stores blob d of size bytes, which open gives from its beginning, as often as it is asked. What a broken
// connection left at the registry is kept, if the registry tells how much it is. The registry verifies the digest.
func (r *Repository) Upload(ctx context.Context, d ref.Digest, size int64, open func() (io.ReadCloser, error)) error {
	return r.denied(r.each(ctx, func(h *host) error {
		u := &upload{host: h, digest: d, size: size, source: open, pace: pace{host: h}}
		r.mu.Lock()
		u.at = r.uploads[d]
		delete(r.uploads, d)
		r.mu.Unlock()
		return u.run(ctx)
	}))
}

// upload is one blob on its way to a registry.
//
//	POST uploads/           -> 202, Location: a session; Range: 0-N, at another engine that has so much of an earlier one
//	PUT session?digest=d    -> 201, with all of the blob: the usual way
//	GET session             -> 204, Range: 0-N, after something broke: the registry has so much
//	PATCH session           -> 202, with the rest, or a part of it
type upload struct {
	host   *host
	digest ref.Digest
	size   int64
	source func() (io.ReadCloser, error)
	pace   pace

	at   *url.URL // the session; nil when there is none
	sent int64    // what the registry has
	part int64    // how much it takes at once, 0 for all
	anew bool     // what an earlier upload left was no good
	kept bool     // this session goes on with that
}

func (u *upload) run(ctx context.Context) error {
	for {
		before := u.sent
		err := u.step(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var again *againError
		if !errors.As(err, &again) && !passing(nil, err) {
			return err
		}
		if u.sent > before {
			u.pace.fails = 0
		}
		var resp *http.Response
		if again != nil {
			resp = again.resp
		}
		if !u.pace.wait(ctx, resp, err) {
			return err
		}
		u.locate(ctx)
	}
}

// againError is an answer that may be another one the next time. Its body is closed.
type againError struct {
	error
	resp *http.Response
}

func (e *againError) Unwrap() error { return e.error }

// step sends what is missing, as far as it gets.
func (u *upload) step(ctx context.Context) error {
	if u.at == nil {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	if u.sent > 0 || u.part > 0 {
		for u.sent < u.size {
			if err := u.patch(ctx); err != nil {
				return err
			}
		}
	}
	return u.finish(ctx)
}

func (u *upload) begin(ctx context.Context) error {
	h := u.host
	at := h.repo("blobs", "uploads/")
	c := call{method: http.MethodPost, url: at, scope: h.pushScope(), header: http.Header{}}
	resumes := h.peer && !u.anew
	if resumes {
		c.header.Set(blobHeader, string(u.digest))
	}
	resp, err := h.do(ctx, c)
	if err != nil {
		return err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusAccepted {
		return h.answerError(resp)
	}
	u.at, err = h.session(resp, at)
	u.sent, u.kept = 0, false
	if n, ok := uploaded(resp.Header.Get("Range")); ok && resumes && err == nil {
		if n > u.size {
			u.anew = true
			return u.begin(ctx)
		}
		u.sent, u.kept = n, n > 0
	}
	return err
}

// blobHeader tells another engine what is going to be uploaded: see registry/serve.
const blobHeader = "Hull-Blob"

// session is where an upload goes on: at the registry itself, over the scheme it was begun with.
func (h *host) session(resp *http.Response, from *url.URL) (*url.URL, error) {
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, final("%s begins an upload and does not say where it goes on", h.place.Addr)
	}
	at, err := from.Parse(location)
	if err != nil {
		return nil, final("%s begins an upload at something that is no URL", h.place.Addr)
	}
	// Behind a proxy that ends TLS, some registries believe that they are spoken to without it, or under another port.
	if at.Scheme == "http" && from.Scheme == "https" && at.Hostname() == from.Hostname() {
		at.Scheme, at.Host = from.Scheme, from.Host
	}
	if !sameOrigin(at, from) {
		return nil, final("%s wants the upload to go to %s: refused, as it is another host", h.place.Addr, at.Host)
	}
	at.User, at.Fragment = nil, ""
	return at, nil
}

// finish sends all, or the end of what was sent in parts.
func (u *upload) finish(ctx context.Context) error {
	at := *u.at
	q := at.Query()
	q.Set("digest", string(u.digest))
	at.RawQuery = q.Encode()
	c := u.call(http.MethodPut, &at, u.size-u.sent)
	resp, err := u.host.send(ctx, c)
	if err != nil {
		return err
	}
	defer drop(resp)
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusNoContent:
		return nil
	case http.StatusBadRequest:
		if u.kept { // what the earlier upload left may be damaged: without it
			u.at, u.anew = nil, true
			return u.again(resp)
		}
	case http.StatusRequestEntityTooLarge:
		if u.part == 0 {
			u.part = 32 << 20
			return u.again(resp)
		}
	}
	return u.status(resp)
}

// patch sends the next part.
func (u *upload) patch(ctx context.Context) error {
	n := u.size - u.sent
	if u.part > 0 {
		n = min(n, u.part)
	}
	c := u.call(http.MethodPatch, u.at, n)
	c.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.sent, u.sent+n-1))
	resp, err := u.host.send(ctx, c)
	if err != nil {
		return err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent {
		return u.status(resp)
	}
	if at, err := u.host.session(resp, u.at); err == nil {
		u.at = at
	}
	got := u.sent + n
	if last, ok := uploaded(resp.Header.Get("Range")); ok {
		got = min(got, last)
	}
	if got <= u.sent {
		return final("%s takes nothing of blob %s", u.host.place.Addr, u.digest.Short())
	}
	u.sent = got
	return nil
}

func (u *upload) call(method string, at *url.URL, n int64) call {
	c := call{method: method, url: at, scope: u.host.pushScope(), header: http.Header{}, size: n, alone: true}
	c.header.Set("Content-Type", "application/octet-stream")
	from := u.sent
	c.body = func() (io.ReadCloser, error) { return section(u.source, from, n) }
	return c
}

// section is a part of what open gives.
func section(open func() (io.ReadCloser, error), from, n int64) (io.ReadCloser, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	if s, ok := f.(io.Seeker); ok && from > 0 {
		_, err = s.Seek(from, io.SeekStart)
	} else if from > 0 {
		_, err = io.CopyN(io.Discard, f, from)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, n), f}, nil
}

// status is the error of an answer: one that may pass, one of a session that is gone, or a final one.
func (u *upload) status(resp *http.Response) error {
	switch {
	case resp.StatusCode < 400:
		return final("%s answers an upload with status %d", u.host.place.Addr, resp.StatusCode)
	case passing(resp, nil), resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return u.again(resp)
	case resp.StatusCode == http.StatusNotFound && u.at != nil:
		u.at = nil
		return u.again(resp)
	}
	return u.host.answerError(resp)
}

func (u *upload) again(resp *http.Response) error { return &againError{u.host.answerError(resp), resp} }

// locate asks what the registry has of a broken upload. Where it does not say, the upload begins anew.
func (u *upload) locate(ctx context.Context) {
	at := u.at
	u.at = nil
	if at == nil {
		return
	}
	c := u.host.get(at, u.host.pushScope())
	c.alone = true
	resp, err := u.host.send(ctx, c)
	if err != nil {
		return
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusAccepted {
		return
	}
	n, ok := uploaded(resp.Header.Get("Range"))
	if !ok || n > u.size {
		return
	}
	next, err := u.host.session(resp, at)
	if err != nil {
		next = at
	}
	u.at, u.sent = next, n
}

// uploaded reads "0-99", or "bytes=0-99", as the number of bytes the registry has. Nothing is said as "0-0" by some: then
// one byte more is believed to be there than is, and the registry refuses what follows; so it counts as nothing.
func uploaded(s string) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || n < 0 {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// PutManifest stores a manifest or index under reference, a tag or its digest.
func (r *Repository) PutManifest(ctx context.Context, reference, mediaType string, data []byte) error {
	return r.denied(r.each(ctx, func(h *host) error {
		c := call{
			method: http.MethodPut, url: h.repo("manifests", reference), scope: h.pushScope(), header: http.Header{}, size: int64(len(data)),
			body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		}
		c.header.Set("Content-Type", mediaType)
		resp, err := h.do(ctx, c)
		if err != nil {
			return err
		}
		defer drop(resp)
		if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
			return h.answerError(resp)
		}
		said, err := ref.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
		if err == nil && !matches(said, data) {
			return errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s stored manifest %s, not what was sent", h.place.Addr, said))
		}
		return nil
	}))
}

// denied puts a registry's refusal into Docker's words.
func (r *Repository) denied(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		if e.Code == "" {
			e = &Error{Host: e.Host, Status: e.Status, Code: "DENIED", Message: "requested access to the resource is denied"}
		}
		return errdef.Forbidden("access to %s denied: %w", r.Name(), e)
	case http.StatusTooManyRequests:
		return errdef.Unavailable("%w", e)
	}
	return err
}
