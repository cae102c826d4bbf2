package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sum returns a digest of the unpacked layer dir: of all that Differ compares, so that two layers have the same if and only
// if Differ finds nothing. It is for when there is no tar any more to unpack beside it. It follows no symbolic link.
func Sum(ctx context.Context, dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	s := summer{ctx: ctx, h: sha256.New(), buf: make([]byte, 256<<10)}
	s.meta("/", &st)
	if err := s.dir(fd, "/"); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", s.h.Sum(nil)), nil
}

// summer writes a layer into a hash, name by name. Everything of a variable length has its length before it: no two
// layers are the same bytes.
type summer struct {
	ctx context.Context
	h   hash.Hash
	buf []byte
}

func (s *summer) text(t string) { fmt.Fprintf(s.h, "%d:%s", len(t), t) }

// meta is what differ.meta compares.
func (s *summer) meta(path string, st *unix.Stat_t) {
	s.text(path)
	fmt.Fprintf(s.h, " %o %d:%d", st.Mode, st.Uid, st.Gid)
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFREG:
		fmt.Fprintf(s.h, " %d", st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(s.h, " %d", st.Rdev)
	case unix.S_IFDIR:
		return
	}
	if !isWhiteout(st) {
		fmt.Fprintf(s.h, " %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
}

func (s *summer) dir(fd int, at string) error {
	s.xattrs(fd)
	names, err := namesOf(fd)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.h, " %d", len(names))
	for _, name := range names {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if err := s.entry(fd, name, filepath.Join(at, name)); err != nil {
			return &os.PathError{Op: "read", Path: filepath.Join(at, name), Err: err}
		}
	}
	return nil
}

func (s *summer) entry(parent int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	s.meta(path, &st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(parent, name, s.buf)
		s.text(string(s.buf[:max(n, 0)]))
		return err
	case unix.S_IFREG:
		return s.open(parent, name, unix.O_RDONLY, s.content)
	case unix.S_IFDIR:
		return s.open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error { return s.dir(fd, path) })
	}
	return nil
}

func (s *summer) open(parent int, name string, flags int, f func(fd int) error) error {
	fd, err := unix.Openat(parent, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// content comes after the size, which may be another one by now.
func (s *summer) content(fd int) error {
	s.xattrs(fd)
	for off := int64(0); ; {
		n, err := readFull(fd, s.buf, off)
		if err != nil {
			return err
		}
		s.h.Write(s.buf[:n])
		if off += int64(n); n < len(s.buf) {
			fmt.Fprintf(s.h, " %d", off)
			return nil
		}
	}
}

// xattrs of a file system without any are none, as for Differ.
func (s *summer) xattrs(fd int) {
	all, _ := attributes(fd)
	fmt.Fprintf(s.h, " %d", len(all))
	for _, a := range all {
		s.text(a)
	}
}
