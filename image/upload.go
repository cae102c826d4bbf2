package image

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// An upload is a blob on its way from a client of an Offer: the directory ingest/upload-<id>, and in it the file data with
// the bytes that have come, the file repository with the name it is for, and the file blob with the digest if the client has
// said it before. Whoever adds to it holds the lock of the directory. It outlives the server, and goes when the blob is in
// the store, or when nothing came for a day.

const (
	uploadPrefix = "upload-"
	// maxUploads bounds the uploads in progress: each is a directory, and may be a file of any size.
	maxUploads = 256
	// uploadWait is how long a request waits for another one that adds to the same upload: its client may be gone, which the
	// server learns late.
	uploadWait = 10 * time.Second
)

// ErrTooMany is the cause of errors of Begin when too many uploads are in progress.
var ErrTooMany = errors.New("too many uploads are in progress")

// runningDigest is the digest of the bytes of an upload so far, so that they need not be read again.
type runningDigest struct {
	size int64
	sum  hash.Hash // sha256
}

// Begin begins the upload of a blob and returns the name by which it goes on.
func (r *Repository) Begin(ctx context.Context) (id string, err error) {
	return r.begin(ctx, "")
}

// Resume is Begin of the blob d. What an upload of it that broke has left is its first size bytes, which nobody has looked
// at: whoever was cut off in the middle of them may have sent anything.
func (r *Repository) Resume(ctx context.Context, d ref.Digest) (id string, size int64, err error) {
	entries, _ := os.ReadDir(r.s.ingestDir())
	for _, e := range entries {
		old, ok := strings.CutPrefix(e.Name(), uploadPrefix)
		if !ok || !r.uploads(old, d) {
			continue
		}
		if id, size, err = r.takeOver(old); id != "" || err != nil {
			return id, size, err
		}
	}
	id, err = r.begin(ctx, d)
	return id, 0, err
}

// uploads says whether the upload id is one of the blob d to this repository.
func (r *Repository) uploads(id string, d ref.Digest) bool {
	dir, err := r.uploadDir(id)
	if err != nil {
		return false
	}
	said, err := state.Read(filepath.Join(dir, "blob"), 256)
	return err == nil && string(said) == string(d)
}

// takeOver gives the upload old another name, so that whoever began it cannot add to it any more. id is "" when there is
// nothing to go on with, or somebody adds to it right now.
func (r *Repository) takeOver(old string) (id string, size int64, err error) {
	dir := r.s.uploadPath(old)
	l, ok, err := state.TryLock(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ok {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	defer l.Unlock()
	st, err := os.Lstat(filepath.Join(dir, "data"))
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		return "", 0, nil
	}
	id = newUpload()
	if err := os.Rename(dir, r.s.uploadPath(id)); err != nil {
		return "", 0, err
	}
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	if sum := r.o.sums[old]; sum != nil {
		delete(r.o.sums, old)
		r.o.sums[id] = sum
	}
	return id, st.Size(), nil
}

func newUpload() string {
	random := make([]byte, 16)
	rand.Read(random)
	return hex.EncodeToString(random)
}

func (s *Store) uploadPath(id string) string { return filepath.Join(s.ingestDir(), uploadPrefix+id) }

// begin begins the upload of the blob d; "" is one of which the client has not said what it is.
func (r *Repository) begin(ctx context.Context, d ref.Digest) (id string, err error) {
	if err := r.s.prepare(); err != nil {
		return "", err
	}
	entries, _ := os.ReadDir(r.s.ingestDir())
	n := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), uploadPrefix) {
			n++
		}
	}
	if n >= maxUploads {
		return "", errdef.As(errdef.ErrUnavailable, fmt.Errorf("%w: %d; try again later", ErrTooMany, n))
	}
	id = newUpload()
	dir := r.s.uploadPath(id)
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		l, err := state.Lock(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) { // a sweep found it empty
			continue
		}
		if err != nil {
			return "", err
		}
		defer l.Unlock()
		err = errors.Join(os.WriteFile(filepath.Join(dir, "repository"), []byte(r.name.Name()), 0o600),
			os.WriteFile(filepath.Join(dir, "data"), nil, 0o600))
		if d != "" {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, "blob"), []byte(d), 0o600))
		}
		if err != nil {
			return "", errors.Join(err, state.Remove(dir))
		}
		return id, nil
	}
}

// upload is one that somebody adds to.
type upload struct {
	id, dir string
	f       *os.File
	size    int64
	lock    *state.Locked
}

func (u *upload) close() {
	u.f.Close()
	u.lock.Unlock()
}

// uploadDir is where the upload id of this repository is.
func (r *Repository) uploadDir(id string) (string, error) {
	unknown := errdef.NotFound("upload %.64q is not known here", id)
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 || hex.EncodeToString(b) != id {
		return "", unknown
	}
	dir := r.s.uploadPath(id)
	of, err := state.Read(filepath.Join(dir, "repository"), 1024)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(of) != r.name.Name() {
		return "", unknown
	}
	return dir, err
}

// upload opens the upload id, alone.
func (r *Repository) upload(ctx context.Context, id string) (*upload, error) {
	dir, err := r.uploadDir(id)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeoutCause(ctx, uploadWait, errdef.Conflict("another request adds to upload %s", id))
	defer cancel()
	l, err := state.Lock(wait, dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = errdef.NotFound("upload %s is not known here", id)
	}
	if err != nil {
		return nil, err
	}
	u := &upload{id: id, dir: dir, lock: l}
	if u.f, err = os.OpenFile(filepath.Join(dir, "data"), os.O_RDWR|unix.O_NOFOLLOW, 0); err != nil {
		l.Unlock()
		return nil, err
	}
	st, err := u.f.Stat()
	if err != nil {
		u.close()
		return nil, err
	}
	u.size = st.Size()
	return u, nil
}

// Uploaded returns how many bytes of the upload id have come.
func (r *Repository) Uploaded(_ context.Context, id string) (int64, error) {
	dir, err := r.uploadDir(id)
	if err != nil {
		return 0, err
	}
	st, err := os.Stat(filepath.Join(dir, "data"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errdef.NotFound("upload %s is not known here", id)
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Append adds what body brings to the upload id, and returns how much of it there is now. at is where it has to go on, -1
// where it is; n is how many bytes have to come, -1 any number. A place that does not fit is errdef.ErrConflict, more bytes
// than n are errdef.ErrInvalid, and none of them is kept. What came before the body broke stays.
func (r *Repository) Append(ctx context.Context, id string, at, n int64, body io.Reader) (size int64, err error) {
	u, err := r.upload(ctx, id)
	if err != nil {
		return 0, err
	}
	defer u.close()
	if at >= 0 && at != u.size {
		return u.size, errdef.Conflict("the upload goes on at byte %d, not %d", u.size, at)
	}
	sum := r.o.takeSum(u)
	from := u.size
	buf := make([]byte, 256<<10)
	for {
		m, err := body.Read(buf)
		if n >= 0 && u.size+int64(m) > from+n {
			return from, errors.Join(errdef.Invalid("more than the %d bytes that were announced", n), u.f.Truncate(from))
		}
		if m > 0 {
			if _, err := u.f.WriteAt(buf[:m], u.size); err != nil {
				return u.size, err
			}
			u.size += int64(m)
			if sum != nil {
				sum.sum.Write(buf[:m])
				sum.size = u.size
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			r.o.putSum(u, sum)
			return u.size, errdef.Invalid("the client was cut off: %w", err)
		}
	}
	r.o.putSum(u, sum)
	if n >= 0 && u.size != from+n {
		return u.size, errdef.Invalid("%d bytes came instead of %d", u.size-from, n)
	}
	return u.size, nil
}

// takeSum returns the digest of what has come of u; nil when that is not known.
func (o *Offer) takeSum(u *upload) *runningDigest {
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := o.sums[u.id]
	delete(o.sums, u.id)
	switch {
	case sum != nil && sum.size == u.size:
		return sum
	case u.size == 0:
		return &runningDigest{sum: newHash("")}
	}
	return nil
}

func (o *Offer) putSum(u *upload, sum *runningDigest) {
	if sum == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sums) >= maxUploads { // uploads that nobody ended
		clear(o.sums)
	}
	o.sums[u.id] = sum
}

// Finish makes the upload id the blob d of the repository, durably. An upload that is something else is gone, and the error
// is errdef.ErrInvalid.
func (r *Repository) Finish(ctx context.Context, id string, d ref.Digest) error {
	u, err := r.upload(ctx, id)
	if err != nil {
		return err
	}
	defer u.close()
	got, err := r.o.digest(u, d)
	if err != nil {
		return err
	}
	if got != d {
		return errors.Join(errdef.Invalid("what came has the digest %s, not %s", got, d), state.Remove(u.dir))
	}
	if err := u.f.Sync(); err != nil {
		return err
	}
	lease, err := r.s.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Unlock()
	ctx = context.WithoutCancel(ctx) // from here on it becomes visible: go through with it
	path := r.s.blobPath(d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// Also over one that is here: it is the same, or was damaged.
	if err := os.Rename(filepath.Join(u.dir, "data"), path); err != nil {
		return err
	}
	if err := errors.Join(state.SyncDir(filepath.Dir(path)), state.SyncDir(r.s.blobsDir())); err != nil {
		return err
	}
	if err := r.has(ctx, d); err != nil {
		return err
	}
	return state.Remove(u.dir)
}

// digest computes the digest of all of u with the algorithm of want.
func (o *Offer) digest(u *upload, want ref.Digest) (ref.Digest, error) {
	h := newHash(want)
	if sum := o.takeSum(u); sum != nil && want.Algorithm() == "sha256" {
		h = sum.sum
	} else if _, err := io.CopyBuffer(onlyWriter{h}, io.NewSectionReader(u.f, 0, u.size), make([]byte, 256<<10)); err != nil {
		return "", err
	}
	return ref.Digest(want.Algorithm() + ":" + hex.EncodeToString(h.Sum(nil))), nil
}

// has notes that the blob d, which is in the store, is of the repository. The caller has a lease.
func (r *Repository) has(ctx context.Context, d ref.Digest) error {
	l, err := r.s.lockRefs(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return r.s.keepPushed(r.name, r.s.pushedBlob(r.name, d), nil)
}

// Cancel ends the upload id.
func (r *Repository) Cancel(ctx context.Context, id string) error {
	u, err := r.upload(ctx, id)
	if err != nil {
		return err
	}
	defer u.close()
	r.o.takeSum(u)
	return state.Remove(u.dir)
}

// Mount makes the blob d of any repository one of this repository; false when it is not here.
func (r *Repository) Mount(ctx context.Context, d ref.Digest) (bool, error) {
	lease, err := r.s.Lease(ctx)
	if err != nil {
		return false, err
	}
	defer lease.Unlock()
	if !r.s.hasBlob(d) {
		return false, nil
	}
	return true, r.has(ctx, d)
}
