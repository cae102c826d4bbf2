package layer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Differ compares the unpacked layer is with should, which was unpacked just now from the same tar, and returns in words the
// first ways in which they differ, at most limit. Times of directories are not compared: those a tar has no entry for
// are as old as the unpacking. It follows no symbolic link.
func Differ(ctx context.Context, should, is string, limit int) ([]string, error) {
	d := differ{ctx: ctx, limit: limit}
	var fds [2]int
	for i, dir := range []string{should, is} {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			if i == 1 {
				return []string{"it is missing"}, nil
			}
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	var a, b unix.Stat_t
	if err := unix.Fstat(fds[0], &a); err != nil {
		return nil, err
	}
	if err := unix.Fstat(fds[1], &b); err != nil {
		return nil, err
	}
	d.meta("/", &a, &b)
	err := d.dir(fds[0], fds[1], "/")
	return d.found, err
}

type differ struct {
	ctx   context.Context
	limit int
	found []string
}

func (d *differ) full() bool { return len(d.found) >= d.limit }

func (d *differ) say(at, format string, args ...any) {
	if !d.full() {
		d.found = append(d.found, quote(at)+" "+fmt.Sprintf(format, args...))
	}
}

// dir compares two open directories.
func (d *differ) dir(a, b int, at string) error {
	should, err := namesOf(a)
	if err != nil {
		return err
	}
	is, err := namesOf(b)
	if err != nil {
		return err
	}
	for _, name := range is {
		if _, ok := slices.BinarySearch(should, name); !ok {
			d.say(filepath.Join(at, name), "is not of the image")
		}
	}
	for _, name := range should {
		if d.full() {
			return nil
		}
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		path := filepath.Join(at, name)
		if _, ok := slices.BinarySearch(is, name); !ok {
			d.say(path, "is missing")
			continue
		}
		if err := d.entry(a, b, name, path); err != nil {
			return &os.PathError{Op: "compare", Path: path, Err: err}
		}
	}
	return nil
}

func namesOf(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (d *differ) entry(a, b int, name, path string) error {
	var should, is unix.Stat_t
	if err := unix.Fstatat(a, name, &should, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fstatat(b, name, &is, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := should.Mode & unix.S_IFMT
	if is.Mode&unix.S_IFMT != kind {
		d.say(path, "is another kind of file")
		return nil
	}
	d.meta(path, &should, &is)
	switch kind {
	case unix.S_IFLNK:
		return d.link(a, b, name, path)
	case unix.S_IFREG:
		if should.Size == is.Size { // meta has said it otherwise
			return d.open(a, b, name, unix.O_RDONLY, func(a, b int) error {
				if err := d.xattrs(path, a, b); err != nil {
					return err
				}
				return d.content(path, a, b)
			})
		}
	case unix.S_IFDIR:
		return d.open(a, b, name, unix.O_RDONLY|unix.O_DIRECTORY, func(a, b int) error {
			if err := d.xattrs(path, a, b); err != nil {
				return err
			}
			return d.dir(a, b, path)
		})
	}
	return nil
}

func (d *differ) meta(path string, should, is *unix.Stat_t) {
	switch kind := should.Mode & unix.S_IFMT; {
	case should.Mode != is.Mode:
		d.say(path, "has the mode %04o, not %04o", is.Mode&0o7777, should.Mode&0o7777)
	case should.Uid != is.Uid || should.Gid != is.Gid:
		d.say(path, "belongs to %d:%d, not to %d:%d", is.Uid, is.Gid, should.Uid, should.Gid)
	case kind == unix.S_IFREG && should.Size != is.Size:
		d.say(path, "has %d bytes, not %d", is.Size, should.Size)
	case (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && should.Rdev != is.Rdev:
		d.say(path, "is another device")
	case kind != unix.S_IFDIR && !isWhiteout(should) && should.Mtim != is.Mtim:
		d.say(path, "was changed at another time")
	}
}

func (d *differ) link(a, b int, name, path string) error {
	var targets [2]string
	for i, fd := range []int{a, b} {
		buf := make([]byte, maxPath+1)
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return err
		}
		targets[i] = string(buf[:n])
	}
	if targets[0] != targets[1] {
		d.say(path, "points to %s, not to %s", quote(targets[1]), quote(targets[0]))
	}
	return nil
}

// open opens name in both directories for as long as f runs.
func (d *differ) open(a, b int, name string, flags int, f func(a, b int) error) error {
	first, err := unix.Openat(a, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(first)
	second, err := unix.Openat(b, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(second)
	return f(first, second)
}

func (d *differ) content(path string, a, b int) error {
	left, right := make([]byte, 128<<10), make([]byte, 128<<10)
	for off := int64(0); ; {
		n, err := readFull(a, left, off)
		if err != nil {
			return err
		}
		m, err := readFull(b, right, off)
		if err != nil {
			return err // proves nothing about the content
		}
		if !bytes.Equal(left[:n], right[:m]) {
			d.say(path, "has another content")
			return nil
		}
		if n < len(left) {
			return nil
		}
		off += int64(n)
	}
}

func readFull(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, nil
		}
		n += m
	}
	return n, nil
}

func (d *differ) xattrs(path string, a, b int) error {
	should, err := attributes(a)
	if err == unix.ENOTSUP {
		return nil // a file system without
	}
	if err != nil {
		return err
	}
	is, err := attributes(b)
	if err != nil && err != unix.ENODATA { // taken away while they were read
		return err
	}
	if !slices.Equal(should, is) {
		d.say(path, "has other attributes")
	}
	return nil
}

// attributes are names with values, sorted; but for those of overlayfs that it makes itself as long as it is mounted.
func attributes(fd int) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil {
		return nil, err
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || !keepXattr(name) && name != OpaqueXattr() {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, err
		}
		out = append(out, name+"="+string(value[:n]))
	}
	slices.Sort(out)
	return out, nil
}
