package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// An ingest is a blob on its way from a registry: the directory ingest/<hex of its digest>, and in it the file data
// with the bytes that have come so far. Whoever fetches the blob holds the lock of the directory; others who want the
// same blob wait for the lock and use what they then find. The directory outlives the one who made it, by failure or
// by kill -9, so that the next one asks only for the bytes that are missing; it goes when the blob is in the store.
//
//	network  →  data (hashed on the way)  →  follower: decompress, hash, tar  →  files
//
// The follower reads behind the writer, so that a layer is unpacked while it comes, a connection is never held up by
// the disk, and a second try at the rest of the bytes is nothing that the one who unpacks would notice.
type ingest struct {
	s   *Store
	d   descriptor
	dir string
	f   *os.File

	mu   sync.Mutex // protects the following
	more sync.Cond  // of mu: have or err changed
	have int64      // bytes that may be read
	err  error      // why no more come: io.EOF when the blob is whole and right
	lock *state.Locked
}

func (s *Store) ingestDir() string { return filepath.Join(s.root, "ingest") }

// lockIngest waits until nobody else fetches the blob d.
func (s *Store) lockIngest(ctx context.Context, d ref.Digest) (dir string, l *state.Locked, err error) {
	dir = filepath.Join(s.ingestDir(), d.Hex())
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, err
		}
		l, err := state.Lock(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) { // who had it has finished, and removed it
			continue
		}
		return dir, l, err
	}
}

// ingest opens the ingest of blob d with what is there of it.
func (s *Store) ingest(ctx context.Context, d descriptor) (*ingest, error) {
	dir, l, err := s.lockIngest(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	g := &ingest{s: s, d: d, dir: dir, lock: l}
	g.more.L = &g.mu
	if err := g.open(); err != nil {
		l.Unlock()
		return nil, err
	}
	return g, nil
}

// open opens the bytes that are there. A file of another size that has a second name is whole and somebody's blob already:
// whatever this manifest says of the size, it is not written to.
func (g *ingest) open() error {
	path := filepath.Join(g.dir, "data")
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return errors.Join(err, f.Close())
		}
		if st.Size == g.d.Size || st.Size < g.d.Size && st.Nlink == 1 {
			g.f, g.have = f, st.Size
			return nil
		}
		if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
			return err
		}
	}
}

// close lets go of the ingest; what has come stays.
func (g *ingest) close() {
	g.unlock()
	g.f.Close()
}

func (g *ingest) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lock != nil {
		g.lock.Unlock()
		g.lock = nil
	}
}

// fetch brings the bytes that are missing, compares the whole with the digest, gives the file the second name path, and
// lets the next one have the ingest. After a failure the bytes stay, unless they are wrong.
func (g *ingest) fetch(ctx context.Context, o Origin, path string, report func(int64)) (err error) {
	defer func() {
		g.unlock()
		g.end(err)
	}()
	if err := g.bring(ctx, o, report); err != nil {
		return err
	}
	if err := os.Link(g.f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// bring brings the bytes that are missing, and compares the whole with the digest.
func (g *ingest) bring(ctx context.Context, o Origin, report func(int64)) error {
	h := newHash(g.d.Digest)
	buf := make([]byte, 256<<10)
	kept := g.have > 0
	if _, err := io.CopyBuffer(onlyWriter{h}, io.NewSectionReader(g.f, 0, g.have), buf); err != nil {
		return err
	}
	report(g.have)
	for g.have < g.d.Size {
		before := g.have
		if err := g.receive(ctx, o, h, buf, report); err != nil {
			return err
		}
		if g.have == before { // a proxy on the way may cut answers, but not to nothing
			return errdef.Invalid("blob %s: the registry sends only %d of its %d bytes", g.d.Digest, g.have, g.d.Size)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != g.d.Digest.Hex() {
		return errors.Join(&wrongContent{g.d.Digest, g.d.Digest.Algorithm() + ":" + got, kept}, g.forget())
	}
	return nil
}

// forget drops the bytes that have come. The file may be somebody's blob by another name: it is only taken away.
func (g *ingest) forget() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.have = 0
	return os.Remove(g.f.Name())
}

// wrongContent is the error of a blob that is not what its digest says.
type wrongContent struct {
	want ref.Digest
	got  string
	kept bool // part of it is from an earlier fetch
}

func (e *wrongContent) Error() string {
	return fmt.Sprintf("filesystem layer verification failed for digest %s: what the registry sends has the digest %s", e.want, e.got)
}

func (e *wrongContent) Is(target error) bool { return target == errdef.ErrInvalid }

// receive asks the registry for the bytes that are missing; without an error it may have brought only some.
func (g *ingest) receive(ctx context.Context, o Origin, h io.Writer, buf []byte, report func(int64)) error {
	r, at, err := o.Blob(ctx, g.d.Digest, g.have)
	if err != nil {
		return err
	}
	defer r.Close()
	if at < 0 || at > g.have {
		return errdef.Invalid("the registry sends blob %s from byte %d, not %d", g.d.Digest, at, g.have)
	}
	// A registry without ranges begins again.
	if n, err := io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(r, g.have-at)}, buf); err != nil || n < g.have-at {
		return err
	}
	for {
		n, err := r.Read(buf)
		if int64(n) > g.d.Size-g.have {
			return errors.Join(errdef.Invalid("blob %s: the registry sends more than the %d bytes it has", g.d.Digest, g.d.Size), g.forget())
		}
		if n > 0 {
			if _, err := g.f.WriteAt(buf[:n], g.have); err != nil {
				return err
			}
			h.Write(buf[:n])
			g.arrived(int64(n))
			report(g.have)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// arrived lets followers have n more bytes.
func (g *ingest) arrived(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.have += n
	g.more.Broadcast()
}

// end tells followers that no more comes: all is here if err is nil.
func (g *ingest) end(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err = err; err == nil {
		g.err = io.EOF
	}
	g.more.Broadcast()
}

// follower reads an ingest from its beginning while it is fetched. Its end is an error unless the blob is right.
type follower struct {
	g   *ingest
	off int64
}

func (r *follower) Read(p []byte) (int, error) {
	g := r.g
	g.mu.Lock()
	for g.have <= r.off && g.err == nil {
		g.more.Wait()
	}
	n, err := g.have-r.off, g.err
	g.mu.Unlock()
	if n <= 0 {
		return 0, err
	}
	m, err := g.f.ReadAt(p[:min(int64(len(p)), n)], r.off)
	r.off += int64(m)
	if m > 0 || err == io.EOF {
		return m, nil
	}
	return m, err
}

// complete says whether nothing more is going to come.
func (g *ingest) complete() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.have == g.d.Size || g.err != nil
}

// dropIngest removes the ingest of blob d, unless somebody is at it.
func (s *Store) dropIngest(d ref.Digest) {
	dir := filepath.Join(s.ingestDir(), d.Hex())
	l, ok, err := state.TryLock(dir)
	if !ok || err != nil {
		return
	}
	defer l.Unlock()
	_ = state.Remove(dir) // what stays is found by a sweep
}

// ingestGrace is how long the bytes of a pull that failed wait for the next one.
const ingestGrace = 24 * time.Hour

// sweepIngests removes what no pull is going to take up any more.
func (s *Store) sweepIngests() {
	entries, _ := os.ReadDir(s.ingestDir())
	for _, e := range entries {
		dir := filepath.Join(s.ingestDir(), e.Name())
		st, err := os.Stat(filepath.Join(dir, "data"))
		if err == nil && time.Since(st.ModTime()) < ingestGrace && !s.hasBlobNamed(e.Name()) {
			continue
		}
		if l, ok, err := state.TryLock(dir); ok && err == nil {
			_ = state.Remove(dir)
			l.Unlock()
		}
	}
}

func (s *Store) hasBlobNamed(hex string) bool {
	for _, algorithm := range []string{"sha256:", "sha512:"} {
		if d, err := ref.ParseDigest(algorithm + hex); err == nil && s.hasBlob(d) {
			return true
		}
	}
	return false
}

// small brings a blob that is held in memory: a configuration.
func (s *Store) small(ctx context.Context, o Origin, d descriptor, limit int64) ([]byte, error) {
	if data, err := s.readBlob(d.Digest, limit); err == nil {
		return data, nil
	}
	r, at, err := o.Blob(ctx, d.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, min(d.Size, limit)+1))
	switch {
	case err != nil:
		return nil, err
	case at != 0 || int64(len(data)) != d.Size:
		return nil, errdef.Invalid("blob %s: the registry sends %d bytes or more instead of %d", d.Digest, len(data), d.Size)
	case checkSum(d.Digest, data) != nil:
		o.Reject(d.Digest)
		return nil, &wrongContent{want: d.Digest, got: sumOf(data)}
	}
	return data, nil
}
