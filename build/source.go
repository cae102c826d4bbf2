package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hull/builds"
	"hull/engine"
	"hull/errdef"
	"hull/image"
)

// newSource is an operation without inputs: where files come from.
func newSource(base operation, op *pb.SourceOp) (solver.Op, error) {
	scheme, rest, ok := strings.Cut(op.Identifier, "://")
	if !ok {
		return nil, errdef.Invalid("invalid source %q", op.Identifier)
	}
	switch scheme {
	case "docker-image":
		return &imageOp{operation: base, op: op, ref: rest}, nil
	case "local":
		return &localOp{operation: base, op: op, name: rest}, nil
	case "http", "https":
		return &httpOp{operation: base, op: op}, nil
	case "git":
		return nil, errdef.NotImplemented("sources in git are not there yet: clone %s and build the directory", rest)
	case "oci-layout":
		return nil, errdef.NotImplemented("sources in an OCI layout are not there yet: hull load it and name the image")
	}
	return nil, errdef.Invalid("unknown kind of source %q", op.Identifier)
}

// imageOp is the file system of an image.
type imageOp struct {
	operation
	op  *pb.SourceOp
	ref string
}

// CacheMap: the layers, whatever the image is called.
func (i *imageOp) CacheMap(ctx context.Context, jc solver.JobContext, _ int) (*solver.CacheMap, bool, error) {
	img, err := i.image(ctx, jc)
	if err != nil {
		return nil, false, err
	}
	top := "scratch"
	if n := len(img.Layers); n > 0 {
		top = img.Layers[n-1].ChainID
	}
	return newCacheMap(digest.FromString("hull.image.v1 "+top), 0), true, nil
}

func (i *imageOp) image(ctx context.Context, jc solver.JobContext) (*image.Image, error) {
	j, err := i.job(jc)
	if err != nil {
		return nil, err
	}
	return j.image(ctx, i.ref, platformOf(i.operation.op.Platform), i.op.Attrs[pb.AttrImageResolveMode])
}

func (i *imageOp) Acquire(context.Context) (solver.ReleaseFunc, error) { return func() {}, nil }

func (i *imageOp) Exec(ctx context.Context, jc solver.JobContext, _ []solver.Result) ([]solver.Result, error) {
	img, err := i.image(ctx, jc)
	if err != nil {
		return nil, err
	}
	f, err := i.b.fsOf(img)
	if err != nil {
		return nil, err
	}
	return []solver.Result{newResult(&tree{fs: f, what: i.v.Name()})}, nil
}

// fsOf is the file system of an image.
func (b *Builder) fsOf(img *image.Image) (*builds.FS, error) {
	parts, err := b.e.Images().PartsOf(img)
	if err != nil {
		return nil, err
	}
	f := &builds.FS{}
	for _, p := range parts {
		f.Layers = append(f.Layers, builds.Layer{Chain: p.ChainID, DiffID: p.DiffID, MediaType: p.MediaType, Digest: p.Digest, Size: p.Size})
	}
	return f, nil
}

func platformOf(p *pb.Platform) string {
	if p == nil {
		return ""
	}
	return strings.TrimRight(strings.Join([]string{p.OS, p.Architecture, p.Variant}, "/"), "/")
}

// found is an image that a build has looked up: it stays the same one to the end of the build.
type found struct {
	img *image.Image
	err error
}

// image looks an image up, and pulls it if it is not here or mode says so. Its layers stay as long as the build lives.
func (j *job) image(ctx context.Context, name, platform, mode string) (*image.Image, error) {
	key := name + " " + platform
	j.mu.Lock()
	defer j.mu.Unlock() // one after the other: several of them often name the same
	if f, ok := j.images[key]; ok {
		return f.img, f.err
	}
	img, err := j.lookUp(ctx, name, platform, mode)
	if err == nil {
		err = j.hold(ctx, img, platform)
	}
	if err == nil || ctx.Err() == nil {
		j.images[key] = found{img, err}
	}
	return img, err
}

func (j *job) lookUp(ctx context.Context, name, platform, mode string) (*image.Image, error) {
	e := j.b.e
	if mode != pb.AttrImageResolveModeForcePull {
		img, err := e.ImageFor(ctx, name, platform)
		if err == nil || !errors.Is(err, errdef.ErrNotFound) || mode == pb.AttrImageResolveModePreferLocal {
			return img, err
		}
	}
	err := e.PullImage(ctx, name, "", engine.PullOptions{Remote: j.req.Remote, Platform: platform, Progress: func(image.Progress) {}})
	if err != nil {
		return nil, err
	}
	return e.ImageFor(ctx, name, platform)
}

// hold keeps the layers of the image.
func (j *job) hold(ctx context.Context, img *image.Image, platform string) error {
	if len(img.Layers) == 0 {
		return nil
	}
	lease, err := j.b.e.Images().Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Unlock()
	if _, err := j.b.e.ImageFor(ctx, img.ID, platform); err != nil { // removed meanwhile
		return err
	}
	return j.build.Hold(img.Layers[len(img.Layers)-1].ChainID)
}

// localOp is a directory of the client.
type localOp struct {
	operation
	op   *pb.SourceOp
	name string
}

// CacheMap: that of each build is another. What is copied from it has a key by its content.
func (l *localOp) CacheMap(_ context.Context, jc solver.JobContext, _ int) (*solver.CacheMap, bool, error) {
	j, err := l.job(jc)
	if err != nil {
		return nil, false, err
	}
	data, err := json.Marshal([]any{"hull.local.v1", j.req.ID, l.name, l.op.Attrs})
	return newCacheMap(unique+digest.Digest(digest.FromBytes(data).Encoded()), 0), true, err
}

func (l *localOp) Acquire(context.Context) (solver.ReleaseFunc, error) { return func() {}, nil }

func (l *localOp) Exec(ctx context.Context, jc solver.JobContext, _ []solver.Result) ([]solver.Result, error) {
	j, err := l.job(jc)
	if err != nil {
		return nil, err
	}
	dir := j.req.Locals[l.name]
	if dir == "" {
		return nil, errdef.NotFound("the client gave no directory %s", l.name)
	}
	var patterns [3][]string
	for i, attr := range []string{pb.AttrIncludePatterns, pb.AttrExcludePatterns, pb.AttrFollowPaths} {
		if text := l.op.Attrs[attr]; text != "" {
			if err := json.Unmarshal([]byte(text), &patterns[i]); err != nil {
				return nil, errdef.Invalid("%s of %s: %w", attr, l.name, err)
			}
		}
	}
	d, err := scan(ctx, l.name, dir, patterns[0], patterns[1], patterns[2])
	if err != nil {
		return nil, err
	}
	d.sums = l.b.contextSums(dir)
	return []solver.Result{newResult(&tree{local: d, what: l.v.Name()})}, nil
}

// httpOp is a file from the web.
type httpOp struct {
	operation
	op *pb.SourceOp

	file string // of the build, once it has come
	sum  digest.Digest
	mod  time.Time
	name string
}

// maxDownload bounds what one ADD may bring.
const maxDownload = 64 << 30

// CacheMap: its content.
func (h *httpOp) CacheMap(ctx context.Context, jc solver.JobContext, _ int) (*solver.CacheMap, bool, error) {
	j, err := h.job(jc)
	if err != nil {
		return nil, false, err
	}
	if err := h.fetch(ctx, j); err != nil {
		return nil, false, err
	}
	key := fmt.Sprintf("hull.http.v1 %s %q %s %s %s", h.sum, h.name, h.op.Attrs[pb.AttrHTTPPerm], h.op.Attrs[pb.AttrHTTPUID], h.op.Attrs[pb.AttrHTTPGID])
	return newCacheMap(digest.FromString(key), 0), true, nil
}

func (h *httpOp) Acquire(context.Context) (solver.ReleaseFunc, error) { return func() {}, nil }

// fetch brings the file into the directory of the build.
func (h *httpOp) fetch(ctx context.Context, j *job) error {
	if h.file != "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.op.Identifier, nil)
	if err != nil {
		return errdef.As(errdef.ErrInvalid, err)
	}
	req.Header.Set("User-Agent", "hull")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errdef.Unavailable("%s answers %s", redacted(h.op.Identifier), resp.Status)
	}
	h.name = h.fileName(resp)
	h.mod, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	p := filepath.Join(j.build.Dir(), newID())
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sum := digest.Canonical.Digester()
	n, err := io.Copy(io.MultiWriter(f, sum.Hash()), io.LimitReader(resp.Body, maxDownload+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if n > maxDownload {
		return errdef.Invalid("%s is larger than %d bytes", redacted(h.op.Identifier), int64(maxDownload))
	}
	h.sum = sum.Digest()
	if want := h.op.Attrs[pb.AttrHTTPChecksum]; want != "" && want != string(h.sum) {
		return errdef.Invalid("digest mismatch %s: %s", h.sum, want)
	}
	h.file = p
	return nil
}

func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "the address"
	}
	return u.Redacted()
}

// fileName is what the file is called.
func (h *httpOp) fileName(resp *http.Response) string {
	if n := h.op.Attrs[pb.AttrHTTPFilename]; n != "" {
		return path.Base(path.Join("/", n))
	}
	if n := path.Base(path.Join("/", resp.Request.URL.Path)); n != "/" {
		return n
	}
	return "download"
}

func (h *httpOp) Exec(ctx context.Context, jc solver.JobContext, _ []solver.Result) (_ []solver.Result, err error) {
	j, err := h.job(jc)
	if err != nil {
		return nil, err
	}
	if err := h.fetch(ctx, j); err != nil {
		return nil, err
	}
	var f *builds.FS
	err = j.enclose(func(r *room) error {
		d, err := r.change(&builds.FS{})
		if err != nil {
			return err
		}
		if err := h.place(filepath.Join(d.path(), h.name)); err != nil {
			return errors.Join(trimPath(err, d.path()), d.discard())
		}
		f, err = d.commit(h.v.Name())
		return err
	})
	if err != nil {
		return nil, err
	}
	return []solver.Result{newResult(&tree{fs: f, what: h.v.Name()})}, nil
}

// place copies the file to where it belongs.
func (h *httpOp) place(to string) error {
	number := func(attr string, base int, fallback int64) (int64, error) {
		text := h.op.Attrs[attr]
		if text == "" {
			return fallback, nil
		}
		n, err := strconv.ParseInt(text, base, 32)
		if err != nil {
			return 0, errdef.Invalid("%s: %w", attr, err)
		}
		return n, nil
	}
	perm, err1 := number(pb.AttrHTTPPerm, 0, 0o600)
	uid, err2 := number(pb.AttrHTTPUID, 10, 0)
	gid, err3 := number(pb.AttrHTTPGID, 10, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	st := unix.Stat_t{Mode: uint32(perm), Uid: uint32(uid), Gid: uint32(gid)}
	if err := copyFile(h.file, to, &st); err != nil {
		return err
	}
	when := h.mod
	if when.IsZero() {
		when = time.Unix(0, 0)
	}
	return os.Chtimes(to, when, when)
}
