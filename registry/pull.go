package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/ref"
)

// maxManifest is the largest manifest or index that is read: 4 MiB, as others have it.
const maxManifest = 4 << 20

// The media types of manifests.
const (
	TypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex          = "application/vnd.oci.image.index.v1+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

const accepted = TypeIndex + ", " + TypeManifest + ", " + TypeDockerList + ", " + TypeDockerManifest

// Manifest returns the manifest or index that reference, a tag or a digest, names, and its media type. The bytes are
// what the digest says, if reference is one or the registry names one. The error is of the kind ErrNotFound, in Docker's
// words, when there is none or none for us.
func (r *Repository) Manifest(ctx context.Context, reference string) (data []byte, mediaType string, err error) {
	err = r.each(ctx, func(h *host) (err error) {
		data, mediaType, err = h.manifest(ctx, reference)
		return err
	})
	if err != nil {
		return nil, "", r.refused(reference, err)
	}
	return data, mediaType, nil
}

func (h *host) manifest(ctx context.Context, reference string) ([]byte, string, error) {
	want, _ := ref.ParseDigest(reference)
	if want == "" && !h.place.Resolve {
		return nil, "", errNoTags
	}
	p := pace{host: h}
	for {
		data, mediaType, err := h.manifestOnce(ctx, reference, want)
		var cut *cutError
		// An answer that broke off, or arrived damaged, may be whole the next time.
		if err == nil || !errors.As(err, &cut) || !p.wait(ctx, nil, err) {
			return data, mediaType, err
		}
	}
}

// errNoTags is not said to anybody when there is another host.
var errNoTags = errors.New("this host is only asked for digests")

// cutError is one of the way, not of what was asked for.
type cutError struct{ error }

func (e *cutError) Unwrap() error { return e.error }

func (h *host) manifestOnce(ctx context.Context, reference string, want ref.Digest) ([]byte, string, error) {
	c := h.get(h.repo("manifests", reference), h.pullScope())
	c.header.Set("Accept", accepted)
	resp, err := h.do(ctx, c)
	if err != nil {
		return nil, "", err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, "", h.answerError(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	switch {
	case err != nil:
		return nil, "", &cutError{fmt.Errorf("%s: read manifest: %w", h.place.Addr, err)}
	case len(data) > maxManifest:
		return nil, "", final("%s: the manifest has more than %d bytes", h.place.Addr, maxManifest)
	}
	if want != "" && !matches(want, data) {
		return nil, "", &cutError{errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s sends a manifest that is not %s", h.place.Addr, want))}
	}
	if said, err := ref.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil && !matches(said, data) {
		return nil, "", &cutError{errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s says that the manifest is %s, which it is not", h.place.Addr, said))}
	}
	mediaType, err := h.manifestType(resp.Header.Get("Content-Type"), data)
	return data, mediaType, err
}

// manifestType decides what the bytes are. A document that can be taken for two things is refused (CVE-2021-41190).
func (h *host) manifestType(header string, data []byte) (string, error) {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", final("%s sends a manifest that is no JSON", h.place.Addr)
	}
	said, _, err := mime.ParseMediaType(header)
	if err != nil || said == "text/plain" || said == "application/json" || said == "application/octet-stream" {
		said = ""
	}
	is := cmp.Or(said, doc.MediaType)
	switch {
	case said != "" && doc.MediaType != "" && said != doc.MediaType:
		return "", final("%s says that the manifest is %s, the manifest itself says %s: refused", h.place.Addr, h.text(said), h.text(doc.MediaType))
	case doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil):
		return "", final("%s sends a manifest that is an image and an index: refused", h.place.Addr)
	case is == "" && doc.Manifests != nil:
		is = TypeIndex
	case is == "":
		is = TypeManifest
	}
	return is, nil
}

// matches reports whether d is the digest of data.
func matches(d ref.Digest, data []byte) bool {
	h := newHash(d)
	h.Write(data)
	return bytes.Equal(fmt.Appendf(nil, "%x", h.Sum(nil)), []byte(d.Hex()))
}

func newHash(d ref.Digest) hash.Hash {
	if d.Algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// Digest is the canonical digest of data.
func Digest(data []byte) ref.Digest {
	sum := sha256.Sum256(data)
	return ref.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func (h *host) pullScope() string { return "repository:" + h.place.Repo + ":pull" }

// refused turns a registry's answer about a manifest into Docker's words.
func (r *Repository) refused(reference string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	name := r.Name()
	sep := ":"
	if strings.Contains(reference, ":") {
		sep = "@"
	}
	switch {
	case r.peer != "":
		return r.peerRefused(name+sep+reference, err)
	case e.Status == http.StatusNotFound && e.Code != "NAME_UNKNOWN":
		if e.Code == "" {
			e = &Error{Host: e.Host, Status: e.Status, Code: "MANIFEST_UNKNOWN", Message: "manifest unknown"}
		}
		return errdef.NotFound("manifest for %s%s%s not found: %w", name, sep, reference, e)
	case e.Status == http.StatusNotFound, e.Status == http.StatusForbidden, e.Status == http.StatusUnauthorized:
		if e.Code == "" {
			e = &Error{Host: e.Host, Status: e.Status, Code: "DENIED", Message: "requested access to the resource is denied"}
		}
		return errdef.NotFound("pull access denied for %s, repository does not exist or may require 'hull login': %w", name, e)
	case e.Status == http.StatusTooManyRequests:
		return errdef.Unavailable("%w", e)
	}
	return err
}

// Blob opens blob d from offset on. A host that knows no ranges begins at 0: at says where. When the connection breaks
// the reader goes on where it was, on this host or the next, as long as there is progress; its error is final. Its end is
// where the registry says the blob ends: whoever reads compares digest and size, and calls Reject if they are wrong.
func (r *Repository) Blob(ctx context.Context, d ref.Digest, offset int64) (io.ReadCloser, int64, error) {
	b := &blob{ctx: ctx, repo: r, digest: d, size: -1}
	at, err := b.open(offset)
	if err != nil {
		return nil, 0, err
	}
	b.at, b.reached = at, at
	return b, at, nil
}

// Reject says that what Blob gave was not d. Its host is not asked again, if there is another.
func (r *Repository) Reject(d ref.Digest) {
	served := r.ServedBy()
	for _, h := range r.hosts[:len(r.hosts)-1] {
		if h.place.Addr == served {
			h.dead.Store(true)
			r.notice(served + " sent something else than " + string(d))
		}
	}
}

// Small reads a whole blob of at most limit bytes, verified.
func (r *Repository) Small(ctx context.Context, d ref.Digest, limit int64) ([]byte, error) {
	body, _, err := r.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, final("blob %s of %s has more than %d bytes", d, r.Name(), limit)
	case !matches(d, data):
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s sends a blob that is not %s", r.ServedBy(), d))
	}
	return data, nil
}

// blob is one being read.
type blob struct {
	ctx     context.Context
	repo    *Repository
	digest  ref.Digest
	host    *host
	body    io.ReadCloser
	at      int64 // the next byte that is read
	skip    int64 // what comes before it
	size    int64 // -1: not known
	pace    pace
	reached int64 // where at was when something failed last
}

// open asks for the blob from offset on and returns where the answer begins: there, or at 0.
func (b *blob) open(offset int64) (at int64, err error) {
	err = b.repo.each(b.ctx, func(h *host) error {
		c := h.get(h.repo("blobs", string(b.digest)), h.pullScope())
		if offset > 0 {
			c.header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		}
		resp, err := h.do(b.ctx, c)
		if err == nil && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
			// It has no more than we have, or is confused: from the beginning it tells.
			drop(resp)
			c.header.Del("Range")
			resp, err = h.do(b.ctx, c)
		}
		if err != nil {
			return err
		}
		at, size, err := h.extent(resp, offset)
		if err != nil {
			drop(resp)
			return err
		}
		if b.size >= 0 && size >= 0 && size != b.size {
			drop(resp)
			return final("%s: blob %s had %d bytes and now has %d", h.place.Addr, b.digest, b.size, size)
		}
		b.host, b.body, b.size = h, resp.Body, max(b.size, size)
		b.skip = at
		return nil
	})
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Status == http.StatusNotFound {
			return 0, errdef.NotFound("blob %s of %s not found: %w", b.digest, b.repo.Name(), e)
		}
		return 0, err
	}
	if b.pace.host != b.host {
		b.pace = pace{host: b.host}
	}
	at, b.skip = b.skip, 0
	return at, nil
}

// extent is where an answer begins and how large the blob is, -1 if it does not say.
func (h *host) extent(resp *http.Response, offset int64) (at, size int64, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return 0, resp.ContentLength, nil
	case http.StatusPartialContent:
		first, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || first != offset {
			return 0, 0, final("%s answers with another range than was asked for", h.place.Addr)
		}
		return first, size, nil
	}
	if resp.StatusCode < 400 {
		return 0, 0, final("%s answers a request for a blob with status %d", h.place.Addr, resp.StatusCode)
	}
	return 0, 0, h.answerError(resp)
}

// contentRange reads "bytes 5-9/10"; size is -1 for "bytes 5-9/*".
func contentRange(s string) (first, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(s, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, false
	}
	first, err := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if err != nil || err2 != nil || first < 0 || last < first {
		return 0, 0, false
	}
	if total == "*" {
		return first, -1, true
	}
	size, err = strconv.ParseInt(total, 10, 64)
	return first, size, err == nil && size > last
}

// enough is the progress after which failures are counted anew.
const enough = 16 << 10

func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.body == nil {
			if err := b.resume(); err != nil {
				return 0, err
			}
		}
		n, err := b.read(p)
		if n > 0 {
			return n, nil
		}
		if err == io.EOF && (b.size < 0 || b.at >= b.size) {
			return 0, io.EOF
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err := b.broken(err); err != nil {
			return 0, err
		}
	}
}

// read gives what comes next, past what was read before.
func (b *blob) read(p []byte) (int, error) {
	if b.skip > 0 {
		n, err := io.CopyN(io.Discard, b.body, b.skip)
		if b.skip -= n; err != nil {
			return 0, err
		}
	}
	n, err := b.body.Read(p)
	b.at += int64(n)
	return n, err
}

// broken waits before the connection is made again, or returns the error that ends all.
func (b *blob) broken(err error) error {
	b.body.Close()
	b.body = nil
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if b.at-b.reached >= enough {
		b.pace.fails = 0
	}
	b.reached = b.at
	err = fmt.Errorf("%s: read blob %s at byte %d: %w", b.host.place.Addr, b.digest.Short(), b.at, err)
	if b.pace.wait(b.ctx, nil, err) {
		return nil
	}
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if last := b.repo.hosts[len(b.repo.hosts)-1]; b.host != last {
		b.host.dead.Store(true)
		return nil
	}
	return err
}

func (b *blob) resume() error {
	at, err := b.open(b.at)
	if err != nil {
		return err
	}
	b.skip = b.at - at
	return nil
}

// Close ends the reading.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}
