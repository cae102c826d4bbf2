package state

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Remove removes the tree path, however deep, wide or hostile: it follows no symbolic link, enters no mount,
// holds few file descriptors and clears immutable flags. What is gone already is no error; on one, as much as
// possible has been removed and a second Remove goes on from there.
//
// It does not hold against somebody who adds to the tree meanwhile: stop the container first.
func Remove(path string) error {
	dir, name := filepath.Split(filepath.Clean(path))
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("remove %q: not a name in a directory", path)
	}
	if dir == "" {
		dir = "."
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return RemoveAt(fd, name)
}

// RemoveAt is Remove of name in the directory dirfd.
func RemoveAt(dirfd int, name string) error {
	if strings.ContainsRune(name, '/') || name == "" || name == "." || name == ".." {
		return fmt.Errorf("remove %q: not a name in a directory", name)
	}
	r := remover{parent: dirfd}
	defer r.close()
	return r.remove(name)
}

// Discard removes the tree path in a way that it is there whole or not at all: renamed into the directory
// trash (made if absent, on the same file system) and removed there. What a killed process left is removed by
// EmptyTrash.
func Discard(path, trash string) error {
	// The base name is kept for the person who looks; 150 leaves room for what makes it unique.
	base := filepath.Base(path)
	to := filepath.Join(trash, TempName()+"-"+base[:min(len(base), 150)])
	err := os.Rename(path, to)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err := os.MkdirAll(trash, 0o700); err != nil {
			return err
		}
		err = os.Rename(path, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else was first
	}
	if err != nil {
		return err
	}
	return Remove(to)
}

// EmptyTrash removes what Discard left in the directory trash when it was killed or failed.
func EmptyTrash(trash string) error {
	names, err := os.ReadDir(trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, n := range names {
		errs = append(errs, Remove(filepath.Join(trash, n.Name())))
	}
	return errors.Join(errs...)
}

// maxDepth is how many directories a remover has open. A deeper one is renamed up into the top of the tree and
// removed from there: file descriptors stay few and no ".." has to be trusted.
const maxDepth = 48

// A remover walks a tree depth first with a stack of open directories.
type remover struct {
	parent int     // the directory the tree is in
	stack  []level // stack[0] is the top of the tree
	first  error   // what went wrong first
	raised int     // counts the directories renamed up
	gone   int     // counts what this remover itself removed
	broken bool    // some directory was read maxVain times
}

type level struct {
	fd      int
	name    string // in the level above
	buf     []byte // of getdents64
	rest    []byte // entries of buf not yet looked at
	removed bool   // something, since the directory was last read from its start
	failed  bool   // something below cannot be removed, so this cannot either
	gone    int    // remover.gone when the directory was last read from its start
	vain    int    // how often it was read with none of it removed by this remover
}

// maxVain is how often a directory is read again whose names were all gone already. Two removers of one tree need a
// few; a broken file system, whose directory lists what it then does not find, would go on for ever.
const maxVain = 100

func (r *remover) remove(name string) error {
	switch err := r.unlink(r.parent, name); err {
	case nil:
		return nil
	case unix.EISDIR: // Linux says EISDIR where POSIX says EPERM
		if r.rmdir(r.parent, name) != nil {
			r.enter(r.parent, name)
		}
	default:
		r.fail(name, err)
	}
	for len(r.stack) > 0 {
		r.step()
	}
	return r.first
}

// step looks at the next entry of the innermost directory.
func (r *remover) step() {
	l := &r.stack[len(r.stack)-1]
	name, isDir, ok, err := l.next()
	if err != nil {
		r.fail("", err)
		r.leave()
		return
	}
	if !ok {
		r.leave()
		return
	}
	if !isDir {
		err = r.unlink(l.fd, name)
		isDir = err == unix.EISDIR
	}
	switch {
	case isDir && r.rmdir(l.fd, name) == nil: // empty: one call instead of five
		l.removed = true
	case isDir && len(r.stack) == maxDepth:
		r.raise(l, name)
	case isDir:
		r.enter(l.fd, name)
	case err != nil:
		r.fail(name, err)
	default:
		l.removed = true
	}
}

// unlink removes one name that is no directory; unix.EISDIR if it is one.
func (r *remover) unlink(fd int, name string) error { return r.unlinkat(fd, name, 0) }

// rmdir removes one empty directory.
func (r *remover) rmdir(fd int, name string) error { return r.unlinkat(fd, name, unix.AT_REMOVEDIR) }

func (r *remover) unlinkat(fd int, name string, flags int) error {
	err := ignoreEINTR(func() error { return unix.Unlinkat(fd, name, flags) })
	if err == unix.EPERM && r.clearFlags(fd, name) || err == unix.EACCES && r.allow(fd) {
		err = unix.Unlinkat(fd, name, flags)
	}
	switch err {
	case nil:
		r.gone++
	case unix.ENOENT:
		return nil
	}
	return err
}

// enter opens the directory name and makes it the innermost one.
func (r *remover) enter(fd int, name string) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH,
	}
	dir, err := unix.Openat2(fd, name, &how)
	if err == unix.EACCES {
		// Our own directory that its mode closes to us, such as overlayfs' work/work. The mode is changed through
		// a pinned file descriptor, so that no symbolic link can stand in for it.
		if chmodDir(fd, name) == nil {
			dir, err = unix.Openat2(fd, name, &how)
		}
	}
	switch err {
	case nil:
		r.stack = append(r.stack, level{fd: dir, name: name, gone: r.gone})
	case unix.ENOENT:
	case unix.EXDEV:
		r.fail(name, errors.New("is a mount point; unmount it first"))
	default:
		r.fail(name, err)
	}
}

// leave closes the innermost directory and removes it, or starts it again if that may bring more: some file
// systems skip entries of a directory that shrinks while it is read, and raise adds entries.
func (r *remover) leave() {
	l := &r.stack[len(r.stack)-1]
	fd := r.parent
	if len(r.stack) > 1 {
		fd = r.stack[len(r.stack)-2].fd
	}
	err := error(unix.ENOTEMPTY)
	if !l.failed {
		err = r.rmdir(fd, l.name)
	}
	if l.gone == r.gone {
		l.vain++
	} else {
		l.gone, l.vain = r.gone, 0
	}
	if l.vain >= maxVain {
		r.broken = true
	}
	if err == unix.ENOTEMPTY && l.removed && (l.vain == 0 || !r.broken) {
		if _, err := unix.Seek(l.fd, 0, 0); err == nil {
			l.removed, l.failed, l.rest = false, false, nil
			return
		}
	}
	if err != nil && !l.failed {
		r.fail("", err)
	}
	unix.Close(l.fd)
	r.stack = r.stack[:len(r.stack)-1]
	if len(r.stack) > 0 {
		above := &r.stack[len(r.stack)-1]
		above.failed = above.failed || err != nil
		above.removed = above.removed || err == nil
	}
}

// raise renames the directory name of level l up into the top of the tree, where the walk finds it again.
func (r *remover) raise(l *level, name string) {
	for {
		r.raised++
		up := TempPrefix + "up-" + strconv.Itoa(r.raised)
		err := unix.Renameat2(l.fd, name, r.stack[0].fd, up, unix.RENAME_NOREPLACE)
		switch err {
		case nil:
			l.removed, r.stack[0].removed = true, true
			return
		case unix.EEXIST:
			r.raised += rand.IntN(1 << 20) // left by a remover that was killed
		case unix.ENOENT:
			return
		case unix.EPERM, unix.EACCES:
			if r.clearFlags(l.fd, name) || chmodDir(l.fd, name) == nil {
				err = unix.Renameat2(l.fd, name, r.stack[0].fd, up, unix.RENAME_NOREPLACE)
			}
			if err != nil {
				r.fail(name, err)
				return
			}
			l.removed, r.stack[0].removed = true, true
			return
		default:
			r.fail(name, err)
			return
		}
	}
}

// fail records the failure at name in the innermost directory, or at that directory itself.
func (r *remover) fail(name string, err error) {
	if n := len(r.stack); n > 0 {
		r.stack[n-1].failed = true
	}
	if r.first != nil {
		return
	}
	var path []string
	for _, l := range r.stack {
		path = append(path, l.name)
	}
	if name != "" {
		path = append(path, name)
	}
	r.first = &fs.PathError{Op: "remove", Path: strings.Join(path, "/"), Err: err}
}

func (r *remover) close() {
	for _, l := range r.stack {
		unix.Close(l.fd)
	}
}

// next returns the next entry; ok is false at the end.
func (l *level) next() (name string, isDir, ok bool, err error) {
	for {
		if len(l.rest) == 0 {
			if l.buf == nil {
				l.buf = make([]byte, 8<<10)
			}
			n, err := unix.Getdents(l.fd, l.buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return "", false, false, err
			}
			l.rest = l.buf[:n]
		}
		e := (*unix.Dirent)(unsafe.Pointer(&l.rest[0]))
		raw := l.rest[unsafe.Offsetof(e.Name):e.Reclen]
		l.rest = l.rest[e.Reclen:]
		for i, c := range raw {
			if c == 0 {
				raw = raw[:i]
				break
			}
		}
		if name = string(raw); name != "." && name != ".." {
			return name, e.Type == unix.DT_DIR, true, nil
		}
	}
}

// clearFlags takes the immutable and append-only flags from the directory fd and from the entry name in it,
// and reports whether there were any. Only regular files and directories are opened: opening a device acts.
func (r *remover) clearFlags(fd int, name string) bool {
	cleared := fd != r.parent && clearFlagsOf(fd) // the directory the tree is in is not ours to change
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH}
	pinned, err := unix.Openat2(fd, name, &how)
	if err != nil {
		return cleared
	}
	defer unix.Close(pinned)
	var st unix.Stat_t
	if err := unix.Fstat(pinned, &st); err != nil {
		return cleared
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return cleared
	}
	f, err := unix.Open(procFd(pinned), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return cleared
	}
	defer unix.Close(f)
	return clearFlagsOf(f) || cleared
}

func clearFlagsOf(fd int) bool {
	const hard = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND // the same bits as FS_IMMUTABLE_FL, FS_APPEND_FL
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&hard == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^hard) == nil
}

// allow opens the mode of the directory fd to its owner and reports whether that changed anything.
func (r *remover) allow(fd int) bool {
	var st unix.Stat_t
	if fd == r.parent || unix.Fstat(fd, &st) != nil || st.Mode&0o700 == 0o700 {
		return false
	}
	return unix.Fchmod(fd, 0o700) == nil
}

// chmodDir opens the mode of the directory name in fd to its owner.
func chmodDir(fd int, name string) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH}
	pinned, err := unix.Openat2(fd, name, &how)
	if err != nil {
		return err
	}
	defer unix.Close(pinned)
	return unix.Chmod(procFd(pinned), 0o700)
}

func procFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
