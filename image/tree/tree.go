// Package tree shows the files of an image, which lie in several layers, as the one tree a container sees, and how two
// such trees differ.
//
//	t := tree.New(layers)                       // lowest first; opens nothing
//	f, entry, err := t.Open("/etc/os-release")  // symbolic links mean what they would mean in a container
//	err = tree.Diff(ctx, old, new, func(c *tree.Change) error { ... })
//
// Layers are in overlayfs' form: a character device 0:0 hides a name of the layers below, an attribute marks a directory
// that hides those below. Layers that both trees have at their bottom are read only where something above them says so.
// Memory is bounded by the names of one directory, open files by the number of layers, however deep the trees are.
//
// Beware: strangers made the trees, so no name of theirs is used but as (directory fd, one component), and no link is
// followed by the kernel. Nothing may change them meanwhile: hold the store's lease.
package tree

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
)

// Layer is one layer of a tree.
type Layer struct {
	ID  string // layers of the same ID have the same files, with all layers below them
	Dir string
}

// Tree is the files of an image.
type Tree struct {
	layers []Layer // topmost first
	opaque string  // the attribute of directories that hide those below
	// owners says that files on the disk have the owners that the layers name: only root can make such.
	owners bool
}

// New returns the tree of layers, lowest first. No layers make an empty tree.
func New(layers []Layer) *Tree {
	t := &Tree{layers: slices.Clone(layers), opaque: layer.OpaqueXattr()}
	slices.Reverse(t.layers)
	t.owners = strings.HasPrefix(t.opaque, "trusted.")
	return t
}

// Entry is what there is of a name.
type Entry struct {
	Type   fs.FileMode // the type bits of os.FileMode; 0 is a regular file
	Mode   uint32      // permissions with setuid, setgid and sticky, as in the kernel
	UID    int         // -1: not known, because an ordinary user's store cannot keep owners
	GID    int
	Size   int64             // of a regular file, in bytes
	Target string            // of a symbolic link
	Device uint64            // of a device
	Xattrs map[string]string // without those of overlayfs and of the host; nil if there are none
	Layer  int               // the layer that has it, counted from the lowest
}

// Setuid says whether executing the entry changes the user or the group.
func (e *Entry) Setuid() bool {
	return e != nil && e.Type == 0 && (e.Mode&unix.S_ISUID != 0 || e.Mode&unix.S_ISGID != 0 && e.Mode&unix.S_IXGRP != 0)
}

// Capabilities says whether executing the entry gives capabilities.
func (e *Entry) Capabilities() bool {
	return e != nil && e.Type == 0 && e.Xattrs["security.capability"] != ""
}

// dir is a directory of one layer.
type dir struct {
	fd    int
	layer int // index into Tree.layers: 0 is the topmost
}

// merged is a directory as the tree shows it: those of the layers, topmost first.
type merged []dir

func (m merged) close() {
	for _, d := range m {
		unix.Close(d.fd)
	}
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// root opens the root directory.
func (t *Tree) root() (merged, error) {
	m := make(merged, 0, len(t.layers))
	for i, l := range t.layers {
		fd, err := unix.Open(l.Dir, dirFlags, 0)
		if err != nil {
			m.close()
			return nil, &fs.PathError{Op: "open layer", Path: l.Dir, Err: err}
		}
		m = append(m, dir{fd, i})
	}
	return m, nil
}

// node is what a name of a merged directory means.
type node struct {
	st     unix.Stat_t // of the topmost
	in     *dir        // whose directory has it; nil: there is nothing of that name
	dirs   []int       // of a directory: indexes into its merged parent, topmost first
	hidden int         // the layer that hides the name from those below; -1 if none does
}

// find looks name up.
func (t *Tree) find(m merged, name string) (n node, err error) {
	n.hidden = -1
	for i := range m {
		var st unix.Stat_t
		err := unix.Fstatat(m[i].fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return n, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			n.hidden = m[i].layer
			break
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if n.in == nil {
			n.in, n.st = &m[i], st
		} else if !isDir {
			break
		}
		if !isDir {
			break
		}
		n.dirs = append(n.dirs, i)
		if t.isOpaque(m[i].fd, name) {
			n.hidden = m[i].layer
			break
		}
	}
	return n, nil
}

func (n *node) isDir() bool { return n.dirs != nil }

func (t *Tree) isOpaque(fd int, name string) bool {
	var b [1]byte
	size, err := unix.Lgetxattr(below(fd, name), t.opaque, b[:])
	return err == nil && size == 1 && b[0] == 'y'
}

// below is a path to name in the directory fd for calls that have no form with a descriptor; they must not follow links.
func below(fd int, name string) string { return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name }

// entry describes n, which exists.
func (t *Tree) entry(n *node, name string) (*Entry, error) {
	e := &Entry{Mode: n.st.Mode & 0o7777, UID: -1, GID: -1, Layer: len(t.layers) - 1 - n.in.layer}
	if t.owners {
		e.UID, e.GID = int(n.st.Uid), int(n.st.Gid)
	}
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size = n.st.Size
	case unix.S_IFDIR:
		e.Type = fs.ModeDir
	case unix.S_IFLNK:
		e.Type, e.Mode = fs.ModeSymlink, 0o777
		target, err := readlink(n.in.fd, name)
		if err != nil {
			return nil, err
		}
		e.Target = target
	case unix.S_IFCHR:
		e.Type, e.Device = fs.ModeDevice|fs.ModeCharDevice, n.st.Rdev
	case unix.S_IFBLK:
		e.Type, e.Device = fs.ModeDevice, n.st.Rdev
	case unix.S_IFIFO:
		e.Type = fs.ModeNamedPipe
	case unix.S_IFSOCK:
		e.Type = fs.ModeSocket
	}
	var err error
	e.Xattrs, err = xattrs(below(n.in.fd, name))
	return e, err
}

func readlink(fd int, name string) (string, error) {
	var b [4096]byte
	n, err := unix.Readlinkat(fd, name, b[:])
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(b[:n]), nil
}

// xattrs returns the attributes that came with the image.
func xattrs(path string) (map[string]string, error) {
	var list [64 << 10]byte // XATTR_LIST_MAX
	n, err := unix.Llistxattr(path, list[:])
	if err == unix.ENOTSUP || err == unix.EACCES || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "list attributes", Path: path, Err: err}
	}
	var out map[string]string
	var value []byte
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !kept(name) {
			continue
		}
		if value == nil {
			value = make([]byte, 64<<10) // XATTR_SIZE_MAX
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			continue // not for us to read
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = string(value[:n])
	}
	return out, nil
}

// kept are the attributes that layers can bring: see keepXattr of package layer.
func kept(name string) bool {
	switch {
	case name == "security.capability", strings.HasPrefix(name, "system.posix_acl_"):
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// enter opens the directory n of m.
func (m merged) enter(n *node, name string) (merged, error) {
	child := make(merged, 0, len(n.dirs))
	for _, i := range n.dirs {
		fd, err := unix.Openat(m[i].fd, name, dirFlags, 0)
		if err != nil {
			child.close()
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		child = append(child, dir{fd, m[i].layer})
	}
	return child, nil
}

const (
	maxLinks = 40  // as many as the kernel follows
	maxParts = 400 // of a path, links resolved
)

// Open opens a file of the tree for reading; links are followed within the tree. Only regular files can be read: of
// anything else f is nil. The error of what does not exist is fs.ErrNotExist.
func (t *Tree) Open(path string) (f *os.File, e *Entry, err error) {
	links := 0
	var done []string
	todo := strings.Split(path, "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		done = append(done, part)
		if len(done)+len(todo) > maxParts {
			return nil, nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENAMETOOLONG}
		}
		target, err := t.link(done)
		if err != nil {
			return nil, nil, err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			return nil, nil, &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
		done = done[:len(done)-1]
		if strings.HasPrefix(target, "/") {
			done = nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	if len(done) == 0 {
		return nil, &Entry{Type: fs.ModeDir, UID: -1, GID: -1}, nil
	}
	return t.open(done)
}

// link returns where the link with these components leads; "" if it is none.
func (t *Tree) link(parts []string) (string, error) {
	f, e, err := t.open(parts)
	if err != nil {
		if unreadable(err) && e != nil {
			return "", nil
		}
		return "", err
	}
	if f != nil {
		f.Close()
	}
	return e.Target, nil
}

// open opens the file whose path has these components, none of which is a link but perhaps the last.
func (t *Tree) open(parts []string) (*os.File, *Entry, error) {
	path := "/" + strings.Join(parts, "/")
	m, err := t.root()
	if err != nil {
		return nil, nil, err
	}
	for i, part := range parts {
		n, err := t.find(m, part)
		last := i == len(parts)-1
		switch {
		case err != nil:
		case n.in == nil:
			err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		case !last && !n.isDir():
			err = &fs.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
		case last:
			e, err := t.entry(&n, part)
			var f *os.File
			if err == nil && e.Type == 0 {
				f, err = openFile(n.in.fd, part)
			}
			m.close()
			return f, e, err
		default:
			var child merged
			child, err = m.enter(&n, part)
			if err == nil {
				m.close()
				m = child
			}
		}
		if err != nil {
			m.close()
			return nil, nil, err
		}
	}
	return nil, nil, errdef.Invalid("an empty path")
}

// openFile opens a regular file; whatever else there may be does not make it wait.
func openFile(fd int, name string) (*os.File, error) {
	file, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(file), name), nil
}

// unreadable says whether err is that an ordinary user may not look at a file of the own store: its mode forbids it.
func unreadable(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }
