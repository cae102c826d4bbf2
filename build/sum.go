package build

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	contfs "github.com/containerd/continuity/fs"
	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"hull/archive"
	"hull/builds"
	"hull/errdef"
)

// selector chooses files of a tree whose content counts in a cache key.
type selector struct {
	path             string
	wildcard, follow bool
	include, exclude []string
}

// digestOf is the digest of what the selectors choose: names, kinds, modes, owners, attributes and content, not times: a
// checkout or a copy of the same files is the same to a build. Of what a client's directory has, owners do not count either.
func (v *view) digestOf(ctx context.Context, selectors []selector) (digest.Digest, error) {
	h := sha256.New()
	for _, s := range selectors {
		paths := []string{s.path}
		if s.wildcard {
			var err error
			if paths, err = fscopy.ResolveWildcards(v.path(), s.path, s.follow); err != nil {
				return "", v.trim(err)
			}
			slices.Sort(paths)
		}
		fmt.Fprintf(h, "%d files of %q\n", len(paths), s.path)
		for _, p := range paths {
			w, err := newWalk(ctx, v, h, &s)
			if err == nil {
				err = w.top(p)
			}
			if err != nil {
				return "", err
			}
		}
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// resolve returns where the path leads in the tree, relative: links on the way to it mean something within, and the last
// component is followed if follow is set.
func (v *view) resolve(p string, follow bool) (string, error) {
	p = path.Join("/", p)
	if p == "/" {
		return ".", nil
	}
	full := ""
	if follow {
		found, err := contfs.RootPath(v.path(), p)
		if err != nil {
			return "", v.trim(err)
		}
		full = found
	} else {
		dir, err := contfs.RootPath(v.path(), path.Dir(p))
		if err != nil {
			return "", v.trim(err)
		}
		full = filepath.Join(dir, path.Base(p))
	}
	rel, err := filepath.Rel(v.path(), full)
	if err != nil {
		return "", err
	}
	return rel, nil
}

// trim takes the place of the mount out of an error.
func (v *view) trim(err error) error { return trimPath(err, v.path()) }

func trimPath(err error, root string) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		if rest, ok := strings.CutPrefix(p.Path, root); ok {
			p.Path = path.Join("/", rest)
		}
	}
	return err
}

// walk writes what it sees into a hash.
type walk struct {
	ctx              context.Context
	v                *view
	h                hash.Hash
	include, exclude *patternmatcher.PatternMatcher
}

func newWalk(ctx context.Context, v *view, h hash.Hash, s *selector) (*walk, error) {
	w := &walk{ctx: ctx, v: v, h: h}
	var err error
	if len(s.include) > 0 {
		if w.include, err = patternmatcher.New(s.include); err != nil {
			return nil, errdef.Invalid("invalid include patterns %q: %w", s.include, err)
		}
	}
	if len(s.exclude) > 0 {
		if w.exclude, err = patternmatcher.New(s.exclude); err != nil {
			return nil, errdef.Invalid("invalid exclude patterns %q: %w", s.exclude, err)
		}
	}
	if s.follow {
		s.path = path.Join("/", s.path)
	}
	return w, nil
}

// top writes the file or directory p. What is not there has a digest, too: whoever needs it will say so.
func (w *walk) top(p string) error {
	rel, err := w.v.resolve(p, true)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.h, "%q\n", path.Base(path.Join("/", p)))
	dir, base := path.Split(rel)
	parent, err := w.v.open(path.Clean("./"+dir), unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		_, err := io.WriteString(w.h, "nothing\n")
		return err
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path.Join("/", dir), Err: err}
	}
	defer unix.Close(parent)
	if base == "" {
		base = "."
	}
	return w.entry(parent, base, "", patternmatcher.MatchInfo{}, patternmatcher.MatchInfo{})
}

// open opens a path of the tree that has no links in it.
func (v *view) open(rel string, flags int) (int, error) {
	return archive.Open(v.fd, rel, flags|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

// maxDepth bounds how deep a tree may be: each level holds a descriptor.
const maxDepth = 1024

// entry writes what is called base in the directory dir; rel is its path below what was selected.
func (w *walk) entry(dir int, base, rel string, in, ex patternmatcher.MatchInfo) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	wanted := true
	if rel != "" {
		var err error
		if wanted, in, ex, err = w.wanted(rel, in, ex); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
		_, err := io.WriteString(w.h, "nothing\n")
		return err
	} else if err != nil {
		return &fs.PathError{Op: "stat", Path: rel, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if !wanted && kind != unix.S_IFDIR {
		return nil
	}
	if wanted {
		if err := w.describe(dir, base, rel, &st); err != nil {
			return err
		}
	}
	if kind != unix.S_IFDIR {
		return nil
	}
	if strings.Count(rel, "/") > maxDepth {
		return errdef.Invalid("the directory %.100s... is too deep", rel)
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: rel, Err: err}
	}
	defer unix.Close(fd)
	names, err := archive.Names(fd)
	if err != nil {
		return &fs.PathError{Op: "read directory", Path: rel, Err: err}
	}
	slices.Sort(names)
	for _, n := range names {
		if err := w.entry(fd, n, path.Join(rel, n), in, ex); err != nil {
			return err
		}
	}
	return nil
}

// wanted is the same question as that of whoever copies: package copy of fsutil.
func (w *walk) wanted(rel string, in, ex patternmatcher.MatchInfo) (bool, patternmatcher.MatchInfo, patternmatcher.MatchInfo, error) {
	wanted := true
	var err error
	if w.include != nil {
		if wanted, in, err = w.include.MatchesUsingParentResults(rel, in); err != nil {
			return false, in, ex, err
		}
	}
	if w.exclude != nil {
		var out bool
		if out, ex, err = w.exclude.MatchesUsingParentResults(rel, ex); err != nil {
			return false, in, ex, err
		}
		wanted = wanted && !out
	}
	return wanted, in, ex, nil
}

func (w *walk) describe(dir int, base, rel string, st *unix.Stat_t) error {
	uid, gid := st.Uid, st.Gid
	if w.v.local != nil {
		uid, gid = 0, 0
	}
	mode := st.Mode
	if mode&unix.S_IFMT == unix.S_IFLNK {
		mode = unix.S_IFLNK | 0o777
	}
	fmt.Fprintf(w.h, "%q %o %d %d", rel, mode, uid, gid)
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := w.v.sums.of(w.ctx, dir, base, st)
		if err != nil {
			return fmt.Errorf("/%s: %w", rel, err)
		}
		fmt.Fprintf(w.h, " %x", sum)
	case unix.S_IFLNK:
		var b [4096]byte
		n, err := unix.Readlinkat(dir, base, b[:])
		if err != nil {
			return &fs.PathError{Op: "readlink", Path: rel, Err: err}
		}
		fmt.Fprintf(w.h, " %q", b[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(w.h, " %d", st.Rdev)
	}
	if w.v.local == nil {
		if err := w.attributes(dir, base); err != nil {
			return &fs.PathError{Op: "read attributes", Path: rel, Err: err}
		}
	}
	_, err := io.WriteString(w.h, "\n")
	return err
}

// attributes writes the extended attributes that layers have.
func (w *walk) attributes(dir int, base string) error {
	p := fmt.Sprintf("/proc/self/fd/%d/%s", dir, base)
	var list [4096]byte
	n, err := unix.Llistxattr(p, list[:])
	if n == 0 || err == unix.ENOTSUP || err == unix.ERANGE {
		return nil
	}
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, name := range names {
		if name != "security.capability" && !strings.HasPrefix(name, "system.posix_acl_") && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			continue // not for us to read, so it is not copied either
		}
		fmt.Fprintf(w.h, " %q=%x", name, value[:n])
	}
	return nil
}

// sums remembers the digests of files by what stat(2) says of them, so that what has not changed is not read again. Inode, size
// and both times in nanoseconds tell files apart; one that changed as recently as a clock tick ago may change again within
// it and keep them, so it is not remembered.
type sums struct {
	file string // where they are kept; "" is nowhere

	mu    sync.Mutex // protects the following
	known map[stamp][sha256.Size]byte
	fresh []byte // records that the file does not have
}

type stamp struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds
}

// stampOf leaves the device out where it is that of an overlay: each mount has another.
func stampOf(st *unix.Stat_t, overlay bool) stamp {
	s := stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
	if overlay {
		s.Dev = 0
	}
	return s
}

const (
	sumRecord = 5*8 + sha256.Size
	maxSums   = 64 << 20 // bytes of records; a file with more is begun anew
	tick      = 100 * time.Millisecond
)

func openSums(file string) *sums {
	s := &sums{file: file, known: map[stamp][sha256.Size]byte{}}
	data, err := os.ReadFile(file)
	if err != nil || len(data) > maxSums {
		return s
	}
	for len(data) >= sumRecord {
		n := func(i int) uint64 { return binary.LittleEndian.Uint64(data[8*i:]) }
		k := stamp{n(0), n(1), int64(n(2)), int64(n(3)), int64(n(4))}
		s.known[k] = [sha256.Size]byte(data[5*8 : sumRecord])
		data = data[sumRecord:]
	}
	return s
}

// of returns the digest of the regular file base in the directory dir, whose status is st.
func (s *sums) of(ctx context.Context, dir int, base string, st *unix.Stat_t) ([sha256.Size]byte, error) {
	key := stampOf(st, s.overlay())
	s.mu.Lock()
	sum, ok := s.known[key]
	s.mu.Unlock()
	if ok {
		return sum, nil
	}
	began := time.Now()
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return sum, err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &cancelled{ctx, f}); err != nil {
		return sum, err
	}
	sum = [sha256.Size]byte(h.Sum(nil))
	var after unix.Stat_t
	if err := unix.Fstat(fd, &after); err != nil {
		return sum, err
	}
	if stampOf(&after, s.overlay()) != key {
		return sum, errChanged()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[key] = sum
	if began.Add(-tick).UnixNano() > max(key.Mtime, key.Ctime) {
		for _, n := range []uint64{key.Dev, key.Ino, uint64(key.Size), uint64(key.Mtime), uint64(key.Ctime)} {
			s.fresh = binary.LittleEndian.AppendUint64(s.fresh, n)
		}
		s.fresh = append(s.fresh, sum[:]...)
	}
	return sum, nil
}

// errChanged says that a file of the context was written to while the build read it.
func errChanged() error {
	return errdef.Conflict("the file changed while the build read it: run the build again")
}

func (s *sums) overlay() bool { return !strings.HasPrefix(filepath.Base(s.file), contextSums) }

// save keeps what was learnt. It is a hint: nobody fails without it.
func (s *sums) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == "" || len(s.fresh) == 0 {
		return
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if st, err := os.Stat(s.file); err == nil && (st.Size() > maxSums || st.Size()%sumRecord != 0) {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.file, flags, 0o600)
	if err != nil {
		return
	}
	_, _ = f.Write(s.fresh) // one write: whole, or cut short and begun anew by the next
	f.Close()
	s.fresh = nil
}

// contextSums begins the names of files about directories of clients.
const contextSums = "context-"

// sumsOf are those of a file system of the store.
func (b *Builder) sumsOf(f *builds.FS) *sums {
	name := "scratch"
	switch {
	case len(f.Snapshots) > 0:
		name = f.Snapshots[len(f.Snapshots)-1]
	case len(f.Layers) > 0:
		name = strings.TrimPrefix(f.Layers[len(f.Layers)-1].Chain, "sha256:")
	}
	return b.openSums("fs-" + name)
}

func (b *Builder) contextSums(dir string) *sums {
	sum := sha256.Sum256([]byte(dir))
	return b.openSums(fmt.Sprintf("%s%x", contextSums, sum[:16]))
}

func (b *Builder) openSums(name string) *sums {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sums[name]; s != nil {
		return s
	}
	s := openSums(b.store.SumsPath(name))
	b.sums[name] = s
	return s
}

// cancelled ends a read with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
