package state

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CopyTree copies what is in the directory src into the empty directory dst, and gives dst itself the owner, mode, times
// and attributes of src: files with their holes, hard links as hard links, symbolic links as they are, devices and
// FIFOs. Sockets are left out. It follows no symbolic link and opens nothing that acts when it is opened. It does not
// go into other mounts of src, only takes their directories.
//
// Nobody else may write to dst meanwhile. What is copied may change, and is then what it was at some moment, file by
// file. On an error dst holds a part.
func CopyTree(ctx context.Context, src, dst int) error {
	c := copier{ctx: ctx, root: dst, links: map[inode]string{}}
	return c.dir(src, dst, "")
}

// maxCopyDepth bounds how deep a tree may be: each level holds two descriptors, and layers are not deeper either.
const maxCopyDepth = 1024

type inode struct{ dev, ino uint64 }

type copier struct {
	ctx   context.Context
	root  int              // of what is written
	links map[inode]string // files with several names, by where the first one was written, relative to root
	depth int
}

func (c *copier) dir(src, dst int, at string) error {
	if c.depth++; c.depth > maxCopyDepth {
		return &fs.PathError{Op: "copy", Path: at, Err: unix.ELOOP}
	}
	defer func() { c.depth-- }()
	l := level{fd: src}
	for {
		name, _, ok, err := l.next()
		if err != nil {
			return &fs.PathError{Op: "read directory", Path: at, Err: err}
		}
		if !ok {
			break
		}
		if err := c.entry(src, dst, name, filepath.Join(at, name)); err != nil {
			return err
		}
	}
	// Last: the entries changed its times, and its mode may forbid to make any.
	return CopyAttributes(src, dst)
}

// entry copies one name.
func (c *copier) entry(src, dst int, name, at string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: at, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino}
		if first, ok := c.links[key]; ok {
			if err := unix.Linkat(c.root, first, dst, name, 0); err != nil {
				return &fs.PathError{Op: "link", Path: at, Err: err}
			}
			return nil
		}
		defer func() { c.links[key] = at }()
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = c.subdir(src, dst, name, at, &st)
	case unix.S_IFREG:
		err = c.file(src, dst, name, &st)
	case unix.S_IFLNK:
		err = copyLink(src, dst, name)
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		err = unix.Mknodat(dst, name, kind|0o600, int(st.Rdev))
	default:
		return nil
	}
	if err == nil && kind != unix.S_IFDIR && kind != unix.S_IFREG { // which are done by descriptor
		err = copyNode(src, dst, name, &st)
	}
	var told *fs.PathError
	if err != nil && !errors.As(err, &told) {
		err = &fs.PathError{Op: "copy", Path: at, Err: err}
	}
	return err
}

// beneath opens name in dir as the kind of thing it was seen to be, or not at all.
func beneath(dir int, name string, flags uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV,
	})
}

func (c *copier) subdir(src, dst int, name, at string, st *unix.Stat_t) error {
	if err := unix.Mkdirat(dst, name, 0o700); err != nil {
		return err
	}
	to, err := beneath(dst, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	from, err := beneath(src, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.EXDEV { // a mount point: its content is another file system's
		return setAttributes(to, st)
	}
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return c.dir(from, to, at)
}

func (c *copier) file(src, dst int, name string, st *unix.Stat_t) (err error) {
	from, err := beneath(src, name, unix.O_RDONLY|unix.O_NONBLOCK) // or a FIFO put there since would make us wait
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(to)) }()
	if err := c.data(from, to, st.Size); err != nil {
		return err
	}
	return CopyAttributes(from, to)
}

// data shares the blocks where the file system can, and else copies what is not a hole.
func (c *copier) data(from, to int, size int64) error {
	if unix.IoctlFileClone(to, from) == nil {
		return nil
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(from, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(from, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := c.span(from, to, data, min(end, size)); err != nil {
			return err
		}
		at = end
	}
	return unix.Ftruncate(to, size)
}

// copyChunk is how much is copied between two looks at the context.
const copyChunk = 64 << 20

func (c *copier) span(from, to int, at, end int64) error {
	in, out := at, at
	for in < end {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		n, err := unix.CopyFileRange(from, &in, to, &out, int(min(end-in, copyChunk)), 0)
		switch err {
		case nil, unix.EINTR:
			if err == nil && n == 0 {
				return nil // it became shorter
			}
		case unix.EXDEV, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSYS:
			return copyBytes(from, to, in, end)
		default:
			return err
		}
	}
	return nil
}

func copyBytes(from, to int, at, end int64) error {
	buf := make([]byte, min(end-at, 1<<18))
	for at < end {
		n, err := unix.Pread(from, buf[:min(end-at, int64(len(buf)))], at)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for done := 0; done < n; {
			m, err := unix.Pwrite(to, buf[done:n], at+int64(done))
			if err != nil && err != unix.EINTR {
				return err
			}
			done += max(m, 0)
		}
		at += int64(n)
	}
	return nil
}

func copyLink(src, dst int, name string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(src, name, buf)
	if err != nil {
		return err
	}
	return unix.Symlinkat(string(buf[:n]), dst, name)
}

// copyNode gives what is not opened, a link or a device, its attributes.
func copyNode(src, dst int, name string, st *unix.Stat_t) error {
	from, err := beneath(src, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := beneath(dst, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if err := unix.Fchownat(to, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // a link has no mode of its own
		if err := unix.Chmod(procFd(to), st.Mode&0o7777); err != nil {
			return err
		}
	}
	if err := copyXattrs(from, to, st.Mode&unix.S_IFMT != unix.S_IFLNK); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// CopyAttributes gives the file or directory dst the owner, mode, extended attributes and times of src; both are
// descriptors open for reading or writing.
func CopyAttributes(src, dst int) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return os.NewSyscallError("chown", err)
	}
	// After the owner, whose change takes capabilities and set-id bits away.
	if err := copyXattrs(src, dst, true); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dst, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH))
}

// setAttributes is CopyAttributes from what was seen of a file that cannot be opened.
func setAttributes(dst int, st *unix.Stat_t) error {
	return errors.Join(unix.Fchown(dst, int(st.Uid), int(st.Gid)), unix.Fchmod(dst, st.Mode&0o7777),
		unix.UtimesNanoAt(dst, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH))
}

// copyXattrs copies what the caller may see and dst's file system can keep. Through /proc, as descriptors of links and
// devices are open for nothing; follow is false for links, which have no attributes a program can set.
func copyXattrs(src, dst int, follow bool) error {
	if !follow {
		return nil
	}
	from, to := procFd(src), procFd(dst)
	list := make([]byte, 1<<10)
	n, err := unix.Listxattr(from, list)
	if err == unix.ERANGE {
		list = make([]byte, 1<<16) // XATTR_LIST_MAX
		n, err = unix.Listxattr(from, list)
	}
	if err == unix.EOPNOTSUPP || err == unix.ENOTSUP {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("listxattr", err)
	}
	for name := range bytes.SplitSeq(bytes.TrimRight(list[:n], "\x00"), []byte{0}) {
		if err := copyXattr(from, to, string(name)); err != nil {
			return &fs.PathError{Op: "copy attribute", Path: string(name), Err: err}
		}
	}
	return nil
}

func copyXattr(from, to, name string) error {
	// Overlayfs's own marks mean something only in a layer; a SELinux label belongs to the place.
	if name == "" || name == "security.selinux" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return nil
	}
	value := make([]byte, 1<<8)
	n, err := unix.Getxattr(from, name, value)
	if err == unix.ERANGE {
		value = make([]byte, 1<<16) // XATTR_SIZE_MAX
		n, err = unix.Getxattr(from, name, value)
	}
	if err == unix.ENODATA {
		return nil
	}
	if err != nil {
		return err
	}
	err = unix.Setxattr(to, name, value[:n], 0)
	if err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

// MoveInto moves what is in the directory from into the directory to, which then takes owner, mode, attributes and
// times of from, and removes from. What is in the way in to stays. Killed at any moment, a second MoveInto finishes it.
func MoveInto(from, to string) error {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := unix.Renameat2(int(src.Fd()), n, int(dst.Fd()), n, unix.RENAME_NOREPLACE)
		if err != nil && err != unix.EEXIST && err != unix.ENOENT {
			return &fs.PathError{Op: "move", Path: filepath.Join(from, n), Err: err}
		}
	}
	if err := CopyAttributes(int(src.Fd()), int(dst.Fd())); err != nil {
		return err
	}
	return Remove(from)
}
