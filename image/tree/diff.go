package tree

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// Kind is a way in which a path differs.
type Kind string

// The kinds. What became of another type, a file a directory for instance, is changed.
const (
	Added   Kind = "added"
	Changed Kind = "changed"
	Deleted Kind = "deleted"
)

// Change is one path that differs.
type Change struct {
	Path string // absolute
	Kind Kind
	What []string // of a changed one: type, content, target, device, mode, owner, xattr
	Old  *Entry   // nil when added
	New  *Entry   // nil when deleted
	// Layer is the layer of the new tree that did it, counted from the lowest; -1 when that is not known: the old tree
	// had a layer with the path, and the new one has not.
	Layer int

	w          *walk
	name       string
	oldIn, nIn *dir
}

// OpenOld opens the regular file of the old tree; only while Diff calls, and only if Old is a regular file.
func (c *Change) OpenOld() (*os.File, error) { return openFile(c.oldIn.fd, c.name) }

// OpenNew is OpenOld for the new tree.
func (c *Change) OpenNew() (*os.File, error) { return openFile(c.nIn.fd, c.name) }

// maxDepth bounds the recursion. What the layers of an image can bring has at most 1024 components a name, and few times
// that where a link leads deeper.
const maxDepth = 8192

// Stats says what Diff met.
type Stats struct {
	Unreadable int // files and directories that an ordinary user could not look into: taken for unchanged
}

// Diff calls f for each path whose entry differs, directories before what is in them, names in order of bytes. Times do
// not count: every build has others. An error of f ends it.
func Diff(ctx context.Context, from, to *Tree, f func(*Change) error) (Stats, error) {
	w := &walk{ctx: ctx, f: f, old: from, young: to}
	for w.common < min(len(from.layers), len(to.layers)) {
		a, b := from.layers[len(from.layers)-1-w.common], to.layers[len(to.layers)-1-w.common]
		if a.ID != b.ID {
			break
		}
		w.common++
	}
	if w.common == len(from.layers) && w.common == len(to.layers) {
		return w.stats, nil
	}
	a, err := from.root()
	if err != nil {
		return w.stats, err
	}
	defer func() { a.close() }()
	b, err := to.root()
	if err != nil {
		return w.stats, err
	}
	defer func() { b.close() }()
	return w.stats, w.dir(a, b, 0)
}

// walk is one Diff.
type walk struct {
	ctx        context.Context
	f          func(*Change) error
	old, young *Tree
	common     int    // how many layers at the bottom are the same
	path       []byte // of the directory being compared; "" is the root
	stats      Stats
	bufs       [2][64 << 10]byte
}

// base returns the layers of m that both trees have, by their height.
func (w *walk) base(t *Tree, m merged) []int {
	var out []int
	for _, d := range m {
		if h := len(t.layers) - 1 - d.layer; h < w.common {
			out = append(out, h)
		}
	}
	return out
}

// names lists what may differ: the names in layers that only one tree has, and those of the common ones if the trees see
// different ones of them here.
func (w *walk) names(a, b merged) ([]string, error) {
	whole := !slices.Equal(w.base(w.old, a), w.base(w.young, b))
	var out []string
	for _, side := range []struct {
		t *Tree
		m merged
	}{{w.old, a}, {w.young, b}} {
		for _, d := range side.m {
			if !whole && len(side.t.layers)-1-d.layer < w.common {
				continue
			}
			var err error
			if out, err = readNames(out, d.fd); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// readNames appends the names in the directory fd.
func readNames(out []string, fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return nil, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, &fs.PathError{Op: "read directory", Path: "layer", Err: err}
		}
		if n <= 0 {
			return out, nil
		}
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
	}
}

// dir compares a directory of both trees; one of them may be empty.
func (w *walk) dir(a, b merged, depth int) error {
	if depth > maxDepth {
		return errdef.Invalid("the image has directories more than %d deep", maxDepth)
	}
	names, err := w.names(a, b)
	if err != nil {
		return err
	}
	for _, name := range names {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		x, err := w.old.find(a, name)
		if err != nil {
			return w.unless(err)
		}
		y, err := w.young.find(b, name)
		if err != nil {
			return w.unless(err)
		}
		if x.in == nil && y.in == nil || w.same(a, b, &x, &y) {
			continue
		}
		if err := w.compare(&x, &y, name); err != nil {
			return err
		}
		if !x.isDir() && !y.isDir() {
			continue
		}
		if err := w.enter(a, b, &x, &y, name, depth); err != nil {
			return err
		}
	}
	return nil
}

// same says whether both nodes are one thing in layers that both trees have.
func (w *walk) same(a, b merged, x, y *node) bool {
	if x.in == nil || y.in == nil || len(x.dirs) != len(y.dirs) || !w.shared(x.in, y.in) {
		return false
	}
	for k := range x.dirs {
		if !w.shared(&a[x.dirs[k]], &b[y.dirs[k]]) {
			return false
		}
	}
	return true
}

// shared says whether two directories of the same path are one.
func (w *walk) shared(a, b *dir) bool {
	h := len(w.old.layers) - 1 - a.layer
	return h < w.common && h == len(w.young.layers)-1-b.layer
}

// enter compares what is in a directory. While it does, the directories above are closed, so that there is one open
// descriptor for each layer however deep the tree is; ".." leads back, since nobody moves directories of layers.
func (w *walk) enter(a, b merged, x, y *node, name string, depth int) error {
	ca, err := a.enter(x, name)
	if err != nil {
		return w.unless(err)
	}
	cb, err := b.enter(y, name)
	if err != nil {
		ca.close()
		return w.unless(err)
	}
	a.leave(x)
	b.leave(y)
	length := len(w.path)
	w.path = append(append(w.path, '/'), name...)
	err = w.dir(ca, cb, depth+1)
	w.path = w.path[:length]
	return errors.Join(err, a.back(x, ca), b.back(y, cb))
}

// unless is err, unless that can be passed over.
func (w *walk) unless(err error) error {
	if w.passOver(err) {
		return nil
	}
	return err
}

func (w *walk) passOver(err error) bool {
	if err == nil || !unreadable(err) {
		return false
	}
	w.stats.Unreadable++
	return true
}

// leave closes the directories of m that are open one level deeper.
func (m merged) leave(n *node) {
	for _, i := range n.dirs {
		unix.Close(m[i].fd)
		m[i].fd = -1
	}
}

// back opens them again and closes the child's.
func (m merged) back(n *node, child merged) error {
	var failed error
	for k, i := range n.dirs {
		fd, err := unix.Openat(child[k].fd, "..", dirFlags, 0)
		if err != nil {
			failed = &fs.PathError{Op: "open", Path: "..", Err: err}
			fd = -1
		}
		m[i].fd = fd
	}
	child.close()
	return failed
}

// compare reports a difference of the entries themselves.
func (w *walk) compare(x, y *node, name string) (err error) {
	c := &Change{Kind: Changed, Layer: -1, w: w, name: name, oldIn: x.in, nIn: y.in}
	if x.in != nil {
		if c.Old, err = w.old.entry(x, name); err != nil {
			return err
		}
	}
	if y.in != nil {
		if c.New, err = w.young.entry(y, name); err != nil {
			return err
		}
		c.Layer = c.New.Layer
	}
	switch {
	case x.in == nil:
		c.Kind = Added
	case y.in == nil:
		c.Kind = Deleted
		if y.hidden >= 0 {
			c.Layer = len(w.young.layers) - 1 - y.hidden
		}
	default:
		if err := w.what(c); err != nil || len(c.What) == 0 {
			return err
		}
	}
	c.Path = string(w.path) + "/" + name
	return w.f(c)
}

// what finds out in which ways an entry of both trees differs.
func (w *walk) what(c *Change) error {
	a, b := c.Old, c.New
	add := func(differs bool, word string) {
		if differs {
			c.What = append(c.What, word)
		}
	}
	add(a.Type != b.Type, "type")
	if a.Type == b.Type && a.Type == 0 {
		differs, err := w.content(c)
		if err != nil {
			return err
		}
		add(differs, "content")
	}
	add(a.Type == b.Type && a.Target != b.Target, "target")
	add(a.Type == b.Type && a.Device != b.Device, "device")
	add(a.Mode != b.Mode, "mode")
	add(a.UID != b.UID || a.GID != b.GID, "owner")
	add(!maps.Equal(a.Xattrs, b.Xattrs), "xattr")
	return nil
}

// content says whether two regular files differ in what they hold.
func (w *walk) content(c *Change) (bool, error) {
	if c.Old.Size != c.New.Size {
		return true, nil
	}
	if c.Old.Size == 0 {
		return false, nil
	}
	f, err := c.OpenOld()
	if err != nil {
		return false, w.unless(err)
	}
	defer f.Close()
	g, err := c.OpenNew()
	if err != nil {
		return false, w.unless(err)
	}
	defer g.Close()
	a, b := w.bufs[0][:], w.bufs[1][:]
	for off := int64(0); off < c.Old.Size; {
		if w.ctx.Err() != nil {
			return false, context.Cause(w.ctx)
		}
		// Where both have holes there is nothing to compare: a file of a terabyte may be all hole.
		if skip := min(data(f, off, c.Old.Size), data(g, off, c.Old.Size)); skip > off {
			off = skip
			continue
		}
		n := min(int64(len(a)), c.Old.Size-off)
		if err := errors.Join(readAt(f, a[:n], off), readAt(g, b[:n], off)); err != nil {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return true, nil
		}
		off += n
	}
	return false, nil
}

// data is where the next data of f is, at or behind off.
func data(f *os.File, off, size int64) int64 {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return size
	}
	if err != nil {
		return off // a file system that does not know
	}
	return at
}

func readAt(f *os.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	return err
}
