// Package layer unpacks the tars of image layers, which strangers wrote, into directories that overlayfs can
// use as lower ones.
//
//	tar, err := layer.Decompress(blob) // gzip, zstd or plain
//	res, err := layer.Unpack(ctx, dir, tar, layer.Options{})
//	if res.DiffID != want { ... }      // only now is the content known to be right
//
// The jail: a name of the tar is only ever used as (directory fd, one component); directories are opened with
// openat2(RESOLVE_IN_ROOT), so the kernel, not we, decides what a symbolic link of the layer means, and it can
// only mean something inside. What the kernel must not see is refused or left out: see cleanName, keepXattr and
// the limits.
//
// Beware: nothing else may change dir meanwhile, and on an error dir holds half a layer: remove it.
package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/state"
)

// Limits bound what a layer may ask for; zero values take the defaults.
type Limits struct {
	Bytes   int64 // of the uncompressed tar, holes of sparse files included
	Entries int
}

// The defaults of Limits are beyond all images seen, and within what a store can hold and remove again.
const (
	DefaultBytes   = 256 << 30
	DefaultEntries = 10_000_000

	maxPath      = 4095 // PATH_MAX without its NUL
	maxComponent = 255
	maxDepth     = 1024
)

// Options are for Unpack.
type Options struct {
	Limits Limits
	// Lower returns the unpacked directories of the layers below. It is called only for a layer whose very root
	// is opaque; nil means there are none.
	Lower func() ([]string, error)
	// NoDigest leaves Result.DiffID empty: the caller computes the digest of the stream.
	NoDigest bool
}

// Result is what Unpack found.
type Result struct {
	DiffID  string // "sha256:" and the digest of the whole uncompressed stream
	Size    int64  // bytes of all regular files
	Entries int
	Skipped int // device nodes that an ordinary user cannot make
}

// Unpack reads the uncompressed tar r to its end and writes it into the empty directory dir.
func Unpack(ctx context.Context, dir string, r io.Reader, opts Options) (Result, error) {
	if opts.Limits.Bytes == 0 {
		opts.Limits.Bytes = DefaultBytes
	}
	if opts.Limits.Entries == 0 {
		opts.Limits.Entries = DefaultEntries
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	in := &counter{r: r, hash: sha256.New(), left: opts.Limits.Bytes}
	if opts.NoDigest {
		in.hash = nil
	}
	ahead := newAhead(in)
	defer ahead.Close()
	u := &unpacker{
		root:     root,
		weak:     !privileged(),
		opts:     opts,
		left:     opts.Limits.Bytes,
		parents:  parents{root: root, fds: map[string]int{}},
		buf:      make([]byte, 128<<10),
		zeros:    make([]byte, 128<<10),
		children: map[string]dirMeta{},
	}
	defer u.parents.flush()
	if err := u.all(ctx, tar.NewReader(ahead)); err != nil {
		return Result{}, err
	}
	if ahead.n%512 != 0 { // tar.Reader takes an end within padding for the end
		return Result{}, readError(io.ErrUnexpectedEOF)
	}
	// What follows the end mark of the tar is padding, but part of the digest.
	if _, err := io.CopyBuffer(io.Discard, onlyReader{ahead}, u.buf); err != nil {
		return Result{}, err
	}
	if err := u.finish(); err != nil {
		return Result{}, err
	}
	if in.hash != nil {
		u.res.DiffID = fmt.Sprintf("sha256:%x", in.hash.Sum(nil))
	}
	return u.res, nil
}

// OpaqueXattr is how overlayfs marks a directory that hides those below it. An ordinary user cannot set trusted
// attributes; the overlay is then mounted with userxattr.
func OpaqueXattr() string {
	if privileged() {
		return "trusted.overlay.opaque"
	}
	return "user.overlay.opaque"
}

// privileged says whether we are root of the machine, not of a user namespace.
func privileged() bool {
	if os.Geteuid() != 0 {
		return false
	}
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(data)), " ") == "0 0 4294967295"
}

// unpacker writes the entries of one tar.
type unpacker struct {
	root     int
	weak     bool // not privileged: owners, devices and some attributes are left as the kernel lets us
	opts     Options
	left     int64 // bytes of file content still allowed, holes included
	parents  parents
	buf      []byte
	zeros    []byte
	children map[string]dirMeta // directories whose meta data has to wait for their content
	opaque   bool               // the root hides all layers below
	res      Result
}

// dirMeta is set when everything is in the directory: writing to it changes the time, and a mode without w or
// x would keep an ordinary user out.
type dirMeta struct {
	mtime time.Time
	mode  uint32
}

func (u *unpacker) all(ctx context.Context, tr *tar.Reader) error {
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return readError(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if u.res.Entries++; u.res.Entries > u.opts.Limits.Entries {
			return errdef.Invalid("the layer has more than %d entries", u.opts.Limits.Entries)
		}
		if err := u.entry(ctx, tr, hdr); err != nil {
			return fmt.Errorf("unpack %s: %w", quote(hdr.Name), err)
		}
	}
}

// readError blames the archive, unless the machine or the caller is at fault.
func readError(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("read layer: %w", err)
	}
	return errdef.As(errdef.ErrInvalid, fmt.Errorf("read layer: %w", err))
}

func quote(name string) string {
	if len(name) > 200 {
		return fmt.Sprintf("%.200q...", name)
	}
	return fmt.Sprintf("%q", name)
}

const (
	whiteout     = ".wh."         // .wh.NAME hides NAME of the layers below
	whiteoutMeta = ".wh..wh."     // AUFS' own files
	whiteoutDir  = ".wh..wh..opq" // its directory hides those of the layers below
)

func (u *unpacker) entry(ctx context.Context, tr *tar.Reader, hdr *tar.Header) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, whiteoutMeta) && name != whiteoutDir {
		return nil
	}
	if name == "" {
		return u.rootEntry(hdr)
	}
	dir, base := split(name)
	if hidden(dir) {
		return errdef.Invalid("a directory may not be called %s...", whiteout)
	}
	parent, err := u.parents.open(dir, true)
	if err != nil {
		return err
	}
	switch {
	case base == whiteoutDir:
		return u.makeOpaque(parent)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case strings.HasPrefix(base, whiteout):
		return u.whiteout(parent, base[len(whiteout):])
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.dir(parent, name, base, hdr)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(ctx, tr, parent, base, hdr)
	case tar.TypeSymlink:
		return u.symlink(parent, base, hdr)
	case tar.TypeLink:
		return u.link(parent, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(parent, base, hdr)
	}
	return errdef.Invalid("unknown type %q of tar entry", hdr.Typeflag)
}

// cleanName turns the name of an entry into components joined by one slash each; "" is the root itself.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errdef.Invalid("the name has a NUL byte")
	}
	if len(name) > maxPath {
		return "", errdef.Invalid("the name has %d bytes, more than %d", len(name), maxPath)
	}
	if isClean(name) {
		return name, nil
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return "", errdef.Invalid(`the name has a component ".."`)
		case len(part) > maxComponent:
			return "", errdef.Invalid("a component of the name has %d bytes, more than %d", len(part), maxComponent)
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return "", errdef.Invalid("the name has %d components, more than %d", len(parts), maxDepth)
	}
	return strings.Join(parts, "/"), nil
}

// isClean is the quick yes of cleanName for what nearly all names are.
func isClean(name string) bool {
	if name == "" || len(name) > maxComponent || name[0] == '/' || name[0] == '.' || name[len(name)-1] == '/' {
		return false
	}
	return !strings.Contains(name, "//") && !strings.Contains(name, "/.")
}

func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

// hidden says whether a component of dir begins like a whiteout.
func hidden(dir string) bool {
	return strings.HasPrefix(dir, whiteout) || strings.Contains(dir, "/"+whiteout)
}

func (u *unpacker) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return errdef.Invalid("the root of the layer is not a directory")
	}
	return u.dirMeta(u.root, "", hdr)
}

func (u *unpacker) dir(parent int, name, base string, hdr *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	wasWhiteout := false
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = nil
		} else {
			wasWhiteout = isWhiteout(&st)
			if err = u.replace(parent, base); err == nil {
				err = unix.Mkdirat(parent, base, 0o700)
			}
		}
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	u.parents.put(name, fd)
	if wasWhiteout { // removed below and made anew: it must not show what is below
		if err := u.makeOpaque(fd); err != nil {
			return err
		}
	}
	return u.dirMeta(fd, name, hdr)
}

func (u *unpacker) dirMeta(fd int, name string, hdr *tar.Header) error {
	if err := u.owner(fd, hdr); err != nil {
		return err
	}
	mode := modeOf(hdr)
	u.children[name] = dirMeta{hdr.ModTime, mode}
	if u.weak {
		mode |= 0o700
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	return u.xattrs(fd, hdr)
}

func (u *unpacker) file(ctx context.Context, tr *tar.Reader, parent int, base string, hdr *tar.Header) (err error) {
	if hdr.Size < 0 || hdr.Size > u.left {
		return errdef.Invalid("the layer has more than %d bytes", u.opts.Limits.Bytes)
	}
	u.left -= hdr.Size
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(parent, base, flags, 0o600)
	if err == unix.EEXIST {
		if err := u.replace(parent, base); err != nil {
			return err
		}
		fd, err = unix.Openat(parent, base, flags, 0o600)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := u.content(ctx, fd, tr, hdr.Size); err != nil {
		return err
	}
	u.res.Size += hdr.Size
	if err := u.owner(fd, hdr); err != nil {
		return err
	}
	// After the owner: a change of it clears setuid, setgid and security.capability.
	if err := unix.Fchmod(fd, modeOf(hdr)); err != nil {
		return err
	}
	if err := u.xattrs(fd, hdr); err != nil {
		return err
	}
	return u.mtime(parent, base, hdr)
}

// content copies size bytes; runs of zeros become holes.
func (u *unpacker) content(ctx context.Context, fd int, r io.Reader, size int64) error {
	var off, written int64
	var out state.WriteOut
	for off < size {
		n, err := io.ReadFull(r, u.buf[:min(int64(len(u.buf)), size-off)])
		if err != nil {
			return readError(err)
		}
		chunk := u.buf[:n]
		if n < 4096 || chunk[0] != 0 || !bytes.Equal(chunk, u.zeros[:n]) {
			if err := pwrite(fd, chunk, off); err != nil {
				return err
			}
			written = off + int64(n)
			out.Written(fd, written)
		}
		off += int64(n)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if written < size {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func pwrite(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (u *unpacker) symlink(parent int, base string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > maxPath || strings.IndexByte(hdr.Linkname, 0) >= 0 {
		return errdef.Invalid("the symbolic link has no possible target")
	}
	err := u.make(parent, base, func() error { return unix.Symlinkat(hdr.Linkname, parent, base) })
	if err != nil {
		return err
	}
	if err := u.ownerAt(parent, base, hdr); err != nil {
		return err
	}
	return u.mtime(parent, base, hdr)
}

// link makes a hard link to a file of this layer. A tool that makes layers puts the target into the same one.
func (u *unpacker) link(parent int, base string, hdr *tar.Header) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return err
	}
	dir, name := split(target)
	missing := errdef.Invalid("hard link to %s, which is not in this layer", quote(hdr.Linkname))
	if name == "" || hidden(target) {
		return missing
	}
	from, err := u.parents.open(dir, false)
	if errors.Is(err, unix.ENOENT) {
		return missing
	}
	if err != nil {
		return err
	}
	var st, here unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || isWhiteout(&st) {
		return missing
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errdef.Invalid("hard link to the directory %s", quote(hdr.Linkname))
	}
	if unix.Fstatat(parent, base, &here, unix.AT_SYMLINK_NOFOLLOW) == nil {
		if here.Ino == st.Ino && here.Dev == st.Dev {
			return nil
		}
		if err := u.replace(parent, base); err != nil {
			return err
		}
		// That may have taken the directories from under the file descriptors, and the target too.
		if parent, err = u.parents.open(mustDir(hdr.Name), true); err != nil {
			return err
		}
		if from, err = u.parents.open(dir, false); err != nil {
			return missing
		}
	}
	return unix.Linkat(from, name, parent, base, 0)
}

// mustDir is the directory part of a name that cleanName has accepted before.
func mustDir(name string) string {
	name, _ = cleanName(name)
	dir, _ := split(name)
	return dir
}

func (u *unpacker) node(parent int, base string, hdr *tar.Header) error {
	mode := modeOf(hdr)
	dev := 0
	if hdr.Typeflag == tar.TypeFifo {
		mode |= unix.S_IFIFO
	} else {
		if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
			return errdef.Invalid("no device has the number %d:%d", hdr.Devmajor, hdr.Devminor)
		}
		dev = int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
		if hdr.Typeflag == tar.TypeChar {
			mode |= unix.S_IFCHR
		} else {
			mode |= unix.S_IFBLK
		}
		// A character device 0:0 would be a whiteout to overlayfs: only we make those.
		if u.weak || dev == 0 {
			u.res.Skipped++
			return nil
		}
	}
	err := u.make(parent, base, func() error { return unix.Mknodat(parent, base, mode, dev) })
	if err != nil {
		return err
	}
	if err := u.ownerAt(parent, base, hdr); err != nil {
		return err
	}
	// fchmodat follows links, but this name is the node just made, and nobody else writes here.
	if err := unix.Fchmodat(parent, base, mode&0o7777, 0); err != nil {
		return err
	}
	return u.mtime(parent, base, hdr)
}

func (u *unpacker) whiteout(parent int, base string) error {
	if base == "" || base == "." || base == ".." {
		return errdef.Invalid("a whiteout of nothing that can exist")
	}
	err := unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	// The layer itself brings something of that name: a whiteout is about the layers below only.
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // a file hides what is below anyway
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.makeOpaque(fd)
}

// makeOpaque lets the directory fd hide those of the layers below.
func (u *unpacker) makeOpaque(fd int) error {
	var st, root unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstat(u.root, &root)); err != nil {
		return err
	}
	if st.Ino == root.Ino && st.Dev == root.Dev {
		u.opaque = true
		return nil
	}
	// By way of /proc, because fd may be an O_PATH one; nothing of the layer is resolved there.
	return unix.Setxattr(procFd(fd), OpaqueXattr(), []byte("y"), 0)
}

// make calls create, again after removing what is in the way.
func (u *unpacker) make(parent int, base string, create func() error) error {
	err := create()
	if err == unix.EEXIST {
		if err := u.replace(parent, base); err != nil {
			return err
		}
		err = create()
	}
	return err
}

// replace removes what an earlier entry of the layer put there.
func (u *unpacker) replace(parent int, base string) error {
	if err := state.RemoveAt(parent, base); err != nil {
		return err
	}
	u.parents.stale = true // what was removed may have been on the way to open directories
	return nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

func modeOf(hdr *tar.Header) uint32 { return uint32(hdr.Mode) & 0o7777 }

// noID is the largest id; it means "unchanged" to chown.
const noID = 1<<32 - 1

func ids(hdr *tar.Header) (uid, gid int, err error) {
	if hdr.Uid < 0 || hdr.Uid >= noID || hdr.Gid < 0 || hdr.Gid >= noID {
		return 0, 0, errdef.Invalid("no user or group has the number %d:%d", hdr.Uid, hdr.Gid)
	}
	return hdr.Uid, hdr.Gid, nil
}

func (u *unpacker) owner(fd int, hdr *tar.Header) error {
	uid, gid, err := ids(hdr)
	if err != nil {
		return err
	}
	return u.tolerate(unix.Fchown(fd, uid, gid))
}

func (u *unpacker) ownerAt(parent int, base string, hdr *tar.Header) error {
	uid, gid, err := ids(hdr)
	if err != nil {
		return err
	}
	return u.tolerate(unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
}

// tolerate forgives an ordinary user what only root can do; EINVAL is an id without a mapping.
func (u *unpacker) tolerate(err error) error {
	if u.weak && (err == unix.EPERM || err == unix.EINVAL) {
		return nil
	}
	return err
}

func (u *unpacker) mtime(parent int, base string, hdr *tar.Header) error {
	return setTime(parent, base, hdr.ModTime, unix.AT_SYMLINK_NOFOLLOW)
}

func setTime(fd int, name string, t time.Time, flags int) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{ts, ts}, flags)
}

const xattrRecord = "SCHILY.xattr."

func (u *unpacker) xattrs(fd int, hdr *tar.Header) error {
	for key, value := range hdr.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || !keepXattr(attr) {
			continue
		}
		err := unix.Fsetxattr(fd, attr, []byte(value), 0)
		if err == unix.ENOTSUP { // the file system of the store has none of that kind
			continue
		}
		if err := u.tolerate(err); err != nil {
			return fmt.Errorf("set attribute %s: %w", quote(attr), err)
		}
	}
	return nil
}

// keepXattr lets through what a program in a container can have a use for. Never overlayfs' own attributes, with
// which a layer could redirect to, or hide, files of others; nor the rest of trusted.* and security.*, which speak
// to the kernel of the host.
func keepXattr(name string) bool {
	switch {
	case name == "security.capability", name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	case strings.HasPrefix(name, "user."):
		return !strings.HasPrefix(name, "user.overlay.") && name != "user."
	}
	return false
}

// finish sets what had to wait for the content of the directories.
func (u *unpacker) finish() error {
	if u.opaque {
		if err := u.hideLower(); err != nil {
			return err
		}
	}
	u.parents.flush()
	for _, name := range childrenFirst(u.children) {
		meta := u.children[name]
		fd, err := openDir(u.root, name, unix.O_PATH|unix.O_NOFOLLOW)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue // replaced by a later entry
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		err = setTime(fd, "", meta.mtime, unix.AT_EMPTY_PATH)
		if err == nil && u.weak && meta.mode&0o700 != 0o700 {
			err = unix.Chmod(procFd(fd), meta.mode)
		}
		unix.Close(fd)
		if err != nil {
			return &os.PathError{Op: "set time", Path: name, Err: err}
		}
	}
	return nil
}

// hideLower gives an opaque root its effect: overlayfs does not know such, so each name below gets a whiteout.
func (u *unpacker) hideLower() error {
	if u.opts.Lower == nil {
		return nil
	}
	dirs, err := u.opts.Lower()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := u.whiteout(u.root, e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// counter hashes what it reads and ends a stream that is too long.
type counter struct {
	r    io.Reader
	hash hash.Hash
	left int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.hash != nil {
		c.hash.Write(p[:n])
	}
	if c.left -= int64(n); c.left < 0 {
		return n, errdef.Invalid("the layer is too large when uncompressed")
	}
	return n, err
}

// onlyReader hides WriteTo, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }
