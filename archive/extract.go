package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Extraction says how a tar becomes files.
type Extraction struct {
	// Beneath keeps every entry below the directory, whatever symbolic links are met there.
	Beneath bool
	// AsRoot keeps them below it too: links mean what they would if the directory were the root directory.
	AsRoot bool
	// From and To, when set, are the name under which the tar has everything, and the one it gets; "." is the directory
	// itself. An entry that is called otherwise is refused.
	From, To string
	// SameKind refuses to put a directory in the place of something else, or the other way round.
	SameKind bool
	// KeepOwner gives the files the owners of the tar. Otherwise they belong to the caller, and nothing is setuid or
	// setgid: that was said of somebody else.
	KeepOwner bool
	Owner     *Owner // with KeepOwner: of all files, instead of those of the tar
	// Weak forgives owners that cannot be given and devices that cannot be made.
	Weak bool
}

// Extract reads the tar r to its end and writes its entries into the directory dir. Files that are there are replaced,
// directories kept. It stops at the first entry that cannot be written; those before it stay.
func Extract(ctx context.Context, dir int, r io.Reader, o Extraction) error {
	x := &extractor{Extraction: o, root: dir, buf: make([]byte, 128<<10), dirs: map[string]time.Time{}}
	if o.Beneath {
		x.resolve = unix.RESOLVE_BENEATH
	}
	if o.AsRoot {
		x.resolve = unix.RESOLVE_IN_ROOT
	}
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return readError(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.entry(ctx, tr, hdr); err != nil {
			return fmt.Errorf("%.300q: %w", hdr.Name, kind(err))
		}
	}
	return x.times()
}

// readError blames the archive, unless it is the connection.
func readError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errdef.Invalid("read archive: %w", err)
	}
	return fmt.Errorf("read archive: %w", err)
}

// kind tells failures the person can do something about from others.
func kind(err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return errdef.As(errdef.ErrForbidden, err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENAMETOOLONG):
		return errdef.As(errdef.ErrInvalid, err)
	}
	return err
}

// extractor is one Extract under way.
type extractor struct {
	Extraction
	root    int
	resolve uint64
	buf     []byte
	dirs    map[string]time.Time // times of directories, which have to wait for their content
	named   int                  // bytes of names in dirs
}

func (x *extractor) entry(ctx context.Context, tr *tar.Reader, hdr *tar.Header) error {
	name, err := x.rename(hdr.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if hdr.Typeflag != tar.TypeDir {
			return errdef.Invalid("the entry has no name")
		}
		return x.directoryMeta(x.root, "", hdr)
	}
	dir, base := cut(name)
	parent, err := x.parent(dir)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if hdr.Typeflag == tar.TypeDir {
		return x.directory(parent, name, base, hdr)
	}
	inPlace, err := x.clear(parent, base, hdr)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(ctx, tr, parent, base, hdr, inPlace)
	case tar.TypeSymlink:
		if hdr.Linkname == "" || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return errdef.Invalid("the symbolic link has no possible target")
		}
		if err := unix.Symlinkat(hdr.Linkname, parent, base); err != nil {
			return err
		}
		return x.meta(parent, base, hdr)
	case tar.TypeLink:
		return x.link(parent, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.node(parent, base, hdr)
	}
	return errdef.Invalid("an entry of the unknown type %q", hdr.Typeflag)
}

// rename cleans the name of an entry and gives it the name that was asked for.
func (x *extractor) rename(name string) (string, error) {
	name, err := clean(name)
	if err != nil || x.From == "" {
		return name, err
	}
	from, err := clean(x.From)
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(name, from)
	if !ok || from != "" && rest != "" && rest[0] != '/' {
		return "", errdef.Invalid("an entry that does not belong to %.200q", x.From)
	}
	return clean(x.To + "/" + rest)
}

// parent opens the directory of an entry. Those that are missing are made, as tars may leave them out.
func (x *extractor) parent(dir string) (int, error) {
	fd, err := Open(x.root, dir, unix.O_PATH|unix.O_DIRECTORY, x.resolve)
	if err != unix.ENOENT {
		return fd, err
	}
	upper, base := cut(dir)
	above, err := x.parent(upper)
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, base, 0o755); err != nil && err != unix.EEXIST {
		return -1, err
	}
	fd, err = Open(above, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, x.resolve)
	if err == unix.ENOENT { // a symbolic link to nothing
		err = unix.ENOTDIR
	}
	return fd, err
}

// clear makes room for a file. inPlace says that there is one that cannot be replaced, because it is mounted there, but
// written to.
func (x *extractor) clear(parent int, base string, hdr *tar.Header) (inPlace bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && x.SameKind {
		return false, errdef.Invalid("cannot overwrite directory with non-directory")
	}
	err = state.RemoveAt(parent, base)
	if errors.Is(err, unix.EBUSY) && st.Mode&unix.S_IFMT == unix.S_IFREG && hdr.Typeflag == tar.TypeReg {
		return true, nil
	}
	return false, err
}

func (x *extractor) directory(parent int, name, base string, hdr *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if x.SameKind {
				return errdef.Invalid("cannot overwrite non-directory with directory")
			}
			if err = state.RemoveAt(parent, base); err == nil {
				err = unix.Mkdirat(parent, base, 0o700)
			}
		}
	}
	if err != nil {
		return err
	}
	fd, err := Open(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, x.resolve)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return x.directoryMeta(fd, name, hdr)
}

func (x *extractor) directoryMeta(fd int, name string, hdr *tar.Header) error {
	if err := x.remember(name, hdr.ModTime); err != nil {
		return err
	}
	if err := x.chown(fd, "", unix.AT_EMPTY_PATH, hdr); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, x.mode(hdr)); err != nil {
		return err
	}
	return x.attributes(fd, hdr)
}

func (x *extractor) file(ctx context.Context, tr *tar.Reader, parent int, base string, hdr *tar.Header, inPlace bool) (err error) {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	if inPlace {
		flags = unix.O_WRONLY | unix.O_TRUNC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	}
	fd, err := createAt(parent, base, flags, x.resolve)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := x.content(ctx, fd, tr, hdr.Size); err != nil {
		return err
	}
	if inPlace { // owner and mode are those of whoever mounted it
		return nil
	}
	if err := x.chown(fd, "", unix.AT_EMPTY_PATH, hdr); err != nil {
		return err
	}
	// After the owner: a change of it clears setuid, setgid and security.capability.
	if err := unix.Fchmod(fd, x.mode(hdr)); err != nil {
		return err
	}
	if err := x.attributes(fd, hdr); err != nil {
		return err
	}
	return setTime(parent, base, hdr.ModTime)
}

func createAt(dir int, base string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o600
	}
	return unix.Openat2(dir, base, &how)
}

// content copies size bytes; runs of zeros become holes.
func (x *extractor) content(ctx context.Context, fd int, r io.Reader, size int64) error {
	var at, written int64
	for at < size {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, x.buf[:min(int64(len(x.buf)), size-at)])
		if err != nil {
			return readError(err)
		}
		if p := x.buf[:n]; n < 4096 || slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) {
			for off := 0; off < n; {
				m, err := unix.Pwrite(fd, p[off:], at+int64(off))
				if err != nil && err != unix.EINTR {
					return err
				}
				off += max(m, 0)
			}
			written = at + int64(n)
		}
		at += int64(n)
	}
	if written < size {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

// link makes a hard link to another entry of the tar.
func (x *extractor) link(parent int, base string, hdr *tar.Header) error {
	target, err := x.rename(hdr.Linkname)
	if err != nil {
		return err
	}
	dir, name := cut(target)
	if name == "" {
		return errdef.Invalid("a hard link to the directory itself")
	}
	from, err := Open(x.root, dir, unix.O_PATH|unix.O_DIRECTORY, x.resolve)
	if err != nil {
		return fmt.Errorf("hard link to %.300q: %w", hdr.Linkname, err)
	}
	defer unix.Close(from)
	if err := unix.Linkat(from, name, parent, base, 0); err != nil {
		return fmt.Errorf("hard link to %.300q: %w", hdr.Linkname, err)
	}
	return nil
}

func (x *extractor) node(parent int, base string, hdr *tar.Header) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	if hdr.Typeflag != tar.TypeFifo {
		if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
			return errdef.Invalid("no device has the number %d:%d", hdr.Devmajor, hdr.Devminor)
		}
		mode, dev = unix.S_IFCHR, int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
		if hdr.Typeflag == tar.TypeBlock {
			mode = unix.S_IFBLK
		} else if dev == 0 { // a whiteout to overlayfs
			return nil
		}
	}
	err := unix.Mknodat(parent, base, mode|0o600, dev)
	if err == unix.EPERM && mode != unix.S_IFIFO {
		return nil // nobody makes devices in a user namespace; Docker leaves them out too
	}
	if err != nil {
		return err
	}
	return x.meta(parent, base, hdr)
}

// meta is for what is not opened: links and nodes.
func (x *extractor) meta(parent int, base string, hdr *tar.Header) error {
	if err := x.chown(parent, base, unix.AT_SYMLINK_NOFOLLOW, hdr); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink {
		// EOPNOTSUPP before Linux 6.6, where the C library goes by /proc; the mode is 0600 then.
		if err := unix.Fchmodat(parent, base, x.mode(hdr), unix.AT_SYMLINK_NOFOLLOW); err != nil && err != unix.EOPNOTSUPP {
			return err
		}
	}
	return setTime(parent, base, hdr.ModTime)
}

func (x *extractor) mode(hdr *tar.Header) uint32 {
	if !x.KeepOwner {
		return uint32(hdr.Mode) & 0o1777
	}
	return uint32(hdr.Mode) & 0o7777
}

func (x *extractor) chown(dir int, base string, flags int, hdr *tar.Header) error {
	if !x.KeepOwner {
		return nil
	}
	o := Owner{hdr.Uid, hdr.Gid}
	if x.Owner != nil {
		o = *x.Owner
	}
	const none = 1<<32 - 1 // means "unchanged" to chown
	if o.UID < 0 || o.UID >= none || o.GID < 0 || o.GID >= none {
		return errdef.Invalid("no user or group has the number %d:%d", o.UID, o.GID)
	}
	err := unix.Fchownat(dir, base, o.UID, o.GID, flags)
	if x.Weak && (err == unix.EPERM || err == unix.EINVAL) {
		return nil
	}
	if err == unix.EINVAL {
		return errdef.Invalid("the container has no user or group %d:%d", o.UID, o.GID)
	}
	return err
}

func (x *extractor) attributes(fd int, hdr *tar.Header) error {
	if !x.KeepOwner {
		return nil
	}
	for key, value := range hdr.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !portable(attr) {
			continue
		}
		err := unix.Fsetxattr(fd, attr, []byte(value), 0)
		if err == unix.ENOTSUP || x.Weak && (err == unix.EPERM || err == unix.EINVAL) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set attribute %s: %w", attr, err)
		}
	}
	return nil
}

func setTime(dir int, base string, t time.Time) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// remember has the directory called name get the time t at the end. Of very many, those before get theirs now: content
// that is still to come changes it.
func (x *extractor) remember(name string, t time.Time) error {
	if x.named += len(name) + entryCost; x.named > maxNames {
		if err := x.times(); err != nil {
			return err
		}
		clear(x.dirs)
		x.named = len(name) + entryCost
	}
	x.dirs[name] = t
	return nil
}

// times sets those of the directories. One that was replaced or moved meanwhile is left alone.
func (x *extractor) times() error {
	for name, t := range x.dirs {
		fd, err := Open(x.root, strings.TrimPrefix("./"+name, "/"), unix.O_PATH|unix.O_DIRECTORY, x.resolve)
		if err != nil {
			continue
		}
		ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
		err = unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set time of %.300q: %w", name, err)
		}
	}
	return nil
}
