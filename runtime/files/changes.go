package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"hull/archive"
	"hull/errdef"

	"golang.org/x/sys/unix"
)

// Change is one way in which a container differs from its image.
type Change struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"` // absolute
}

// Kind of a Change, in the numbers of Docker's API.
type Kind uint8

const (
	Modified Kind = iota
	Added
	Deleted
)

// tree writes the named entries of the directory dir as a tar.
func (s *server) tree(ctx context.Context, dir int, names []string) error {
	slices.Sort(names)
	w := archive.NewWriter(s.out)
	w.Foreign = s.foreign
	for _, n := range names {
		if err := w.Add(ctx, dir, n, n); err != nil {
			return err
		}
	}
	return w.Close()
}

// changes writes a line for each change, directories before what is in them.
func (s *server) changes(ctx context.Context) error {
	d, err := s.differ()
	if err != nil {
		return err
	}
	defer d.close()
	s.reply(&Reply{})
	enc := json.NewEncoder(s.out)
	listed := map[string]bool{"/": true}
	d.changed = func(k Kind, p string, isDir bool) error {
		// As in Docker: a directory in which something came or went counts as changed, whatever its time says.
		if dir := path.Dir(p); k != Modified && !listed[dir] {
			listed[dir] = true
			if err := enc.Encode(Change{Modified, dir}); err != nil {
				return err
			}
		}
		if isDir {
			if listed[p] {
				return nil
			}
			listed[p] = true
		}
		return enc.Encode(Change{k, p})
	}
	return d.walk(ctx, "", d.upper, d.lower, d.lower, true)
}

// layer writes the changes as a layer over the image's. Directories on the way to a change come too: in overlayfs those
// of the topmost layer lend their owner and mode.
func (s *server) layer(ctx context.Context) error {
	d, err := s.differ()
	if err != nil {
		return err
	}
	defer d.close()
	s.reply(&Reply{})
	w := archive.NewWriter(s.out)
	w.Room = s.job.Room
	if err := w.Entry(d.upper, "./"); err != nil {
		return err
	}
	d.changed = func(k Kind, p string, _ bool) error {
		if k != Deleted {
			return nil
		}
		dir, base := path.Split(p[1:])
		return w.Whiteout(strings.TrimSuffix(dir, "/"), base)
	}
	d.seen = func(v *entry, name string) error {
		if v.dirs != nil {
			return w.Entry(v.dirs[0], name)
		}
		if v.data >= 0 {
			return w.File(ctx, v.dir, v.base, v.data, name)
		}
		return w.Add(ctx, v.dir, v.base, name)
	}
	if err := d.walk(ctx, "", d.upper, d.lower, d.lower, true); err != nil {
		return err
	}
	return w.Close()
}

// differ compares what a container shows with what its image does.
//
//	visible = upper over content      content is the lower layers, but those of another directory where upper has been
//	image   = lower                   renamed (redirect), and none where upper is opaque
type differ struct {
	upper   int
	lower   stack
	attr    string // "trusted.overlay." or "user.overlay."
	changed func(k Kind, p string, isDir bool) error
	seen    func(v *entry, name string) error // each entry that is new or other than in the image; nil: not wanted
}

func (s *server) differ() (*differ, error) {
	d := &differ{upper: -1, attr: "trusted.overlay."}
	if s.job.Weak {
		d.attr = "user.overlay."
	}
	for i, dir := range append([]string{s.job.Upper}, s.job.Lower...) {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			d.close()
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
		if i == 0 {
			d.upper = fd
		} else {
			d.lower = append(d.lower, fd)
		}
	}
	return d, nil
}

func (d *differ) close() {
	unix.Close(d.upper)
	d.lower.close()
}

// stack is the same directory in several layers, topmost first, as far as they are merged.
type stack []int

func (s stack) close() {
	for _, fd := range s {
		unix.Close(fd)
	}
}

// entry is what a name means in a stack: a merged directory, or another file.
type entry struct {
	dir  int    // in which layer's directory it was found
	base string // and under which name
	st   unix.Stat_t
	dirs stack // of a directory; the entry's own, to be closed
	data int   // where the content is, when not with the rest (metacopy); -1
}

func (e *entry) close() {
	if e == nil {
		return
	}
	e.dirs.close()
	if e.data >= 0 {
		unix.Close(e.data)
	}
}

func (e *entry) isDir() bool { return e != nil && e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// lookup returns what name means in the stack; nil when nothing.
func (d *differ) lookup(s stack, name string) (*entry, error) {
	var e *entry
	for _, dir := range s {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			e.close()
			return nil, err
		}
		if isWhiteout(&st) || e != nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break
		}
		if e == nil {
			e = &entry{dir: dir, base: name, st: st, data: -1}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break
		}
		fd, err := openDir(dir, name)
		if err != nil {
			e.close()
			return nil, err
		}
		e.dirs = append(e.dirs, fd)
		if d.opaque(fd) {
			break
		}
	}
	return e, nil
}

func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (d *differ) opaque(fd int) bool {
	var buf [8]byte
	n, err := unix.Fgetxattr(fd, d.attr+"opaque", buf[:])
	return err == nil && n == 1 && buf[0] == 'y'
}

// redirect is where the lower part of a renamed directory or of a metacopy is: a name beside it, or an absolute path;
// "" is where it itself is. attributes is a path to the file.
func (d *differ) redirect(attributes string) (string, error) {
	buf := make([]byte, archive.MaxPath+1)
	n, err := unix.Getxattr(attributes, d.attr+"redirect", buf)
	if err == unix.ENODATA || err == unix.ENOTSUP {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read redirect: %w", err)
	}
	if to := string(buf[:n]); validRedirect(to) {
		return to, nil
	}
	return "", errdef.As(errdef.ErrCorrupt, fmt.Errorf("overlayfs cannot have written the redirect %.200q", buf[:n]))
}

// validRedirect is the kernel's rule, ovl_check_redirect: without it a redirect would lead anywhere on the host.
func validRedirect(s string) bool {
	name := func(part string) bool {
		return part != "" && part != "." && part != ".." && strings.IndexByte(part, 0) < 0
	}
	if rest, absolute := strings.CutPrefix(s, "/"); absolute {
		for part := range strings.SplitSeq(rest, "/") {
			if !name(part) {
				return false
			}
		}
		return true
	}
	return name(s) && !strings.Contains(s, "/")
}

// self is a path to what fd is open on, which may be open for nothing (O_PATH). /proc is the host's here, as a worker that
// compares layers is in no container.
func self(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// below returns what lies in the lower layers under a file of upper called name, whose parent's are content. attributes is
// a path to the file.
func (d *differ) below(content stack, name, attributes string) (*entry, error) {
	redirect, err := d.redirect(attributes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if redirect == "" {
		return d.lookup(content, name)
	}
	if !path.IsAbs(redirect) {
		return d.lookup(content, redirect)
	}
	at := d.lower
	var e *entry
	for part := range strings.SplitSeq(redirect[1:], "/") {
		next, err := d.lookup(at, part)
		e.close()
		if e = next; err != nil || e == nil {
			return nil, err
		}
		at = e.dirs
	}
	return e, nil
}

// walk visits the directory name ("" is the root), of which up is the upper part, or -1. same says that content is image.
func (d *differ) walk(ctx context.Context, name string, up int, content, image stack, same bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := archive.CheckPath(name); err != nil { // each level holds descriptors
		return err
	}
	dirs := stack{}
	if up >= 0 {
		dirs = append(dirs, up)
	}
	if !same {
		dirs = append(append(dirs, content...), image...)
	}
	names, err := union(dirs)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := d.visit(ctx, path.Join(name, n), n, up, content, image, same); err != nil {
			return err
		}
	}
	return nil
}

// union of the names in directories, in order.
func union(dirs stack) ([]string, error) {
	var all []string
	for _, fd := range dirs {
		names, err := archive.Names(fd)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (d *differ) visit(ctx context.Context, full, n string, up int, content, image stack, same bool) error {
	was, err := d.lookup(image, n)
	if err != nil {
		return err
	}
	defer was.close()
	is, fromUpper, err := d.visible(up, content, n)
	if err != nil {
		return err
	}
	defer is.close()
	p := "/" + full
	switch {
	case is == nil && was == nil:
		return nil
	case is == nil:
		return d.changed(Deleted, p, false)
	case !fromUpper && !is.isDir() && was != nil && is.st.Ino == was.st.Ino && is.st.Dev == was.st.Dev:
		return nil
	}
	kind := Added
	if was != nil {
		kind = Modified
	}
	if !(is.isDir() && was.isDir() && alike(&is.st, &was.st)) {
		if err := d.changed(kind, p, is.isDir()); err != nil {
			return err
		}
	}
	if d.seen != nil {
		if err := d.seen(is, full); err != nil {
			return err
		}
	}
	if !is.isDir() {
		return nil
	}
	var lower stack
	if was.isDir() {
		lower = was.dirs
	}
	if !fromUpper {
		return d.walk(ctx, full, -1, is.dirs, lower, false)
	}
	// The first of its directories is upper's; what it merges with is the rest.
	rest := is.dirs[1:]
	redirect, err := d.redirect(self(is.dirs[0]))
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	same = same && !d.opaque(is.dirs[0]) && redirect == "" && len(rest) == len(lower)
	return d.walk(ctx, full, is.dirs[0], rest, lower, same)
}

// visible returns what the container shows under the name n, and whether upper has it.
func (d *differ) visible(up int, content stack, n string) (e *entry, fromUpper bool, err error) {
	if up < 0 {
		e, err = d.lookup(content, n)
		return e, false, err
	}
	e = &entry{dir: up, base: n, data: -1}
	err = unix.Fstatat(up, n, &e.st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		e, err = d.lookup(content, n)
		return e, false, err
	}
	if err != nil || isWhiteout(&e.st) {
		return nil, true, err
	}
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = d.merge(e, content)
	case unix.S_IFREG:
		err = d.metacopy(e, content)
	}
	if errors.Is(err, unix.ENOENT) { // removed since
		return nil, true, nil
	}
	return e, true, err
}

// merge opens the directory e of upper and those it is merged with.
func (d *differ) merge(e *entry, content stack) error {
	fd, err := openDir(e.dir, e.base)
	if err != nil {
		return err
	}
	e.dirs = stack{fd}
	if d.opaque(fd) {
		return nil
	}
	lower, err := d.below(content, e.base, self(fd))
	if err != nil || lower == nil {
		return err
	}
	if lower.isDir() {
		e.dirs, lower.dirs = append(e.dirs, lower.dirs...), nil
	}
	lower.close()
	return nil
}

// metacopy finds the content of a file of which upper has owner, mode and the like only.
func (d *differ) metacopy(e *entry, content stack) error {
	fd, err := openPath(e.dir, e.base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Getxattr(self(fd), d.attr+"metacopy", nil); err != nil {
		return nil // it has it all
	}
	lower, err := d.below(content, e.base, self(fd))
	if err != nil {
		return err
	}
	defer lower.close()
	if lower == nil || lower.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("the content of %s is missing in the layers of the image", e.base)
	}
	data, err := openPath(lower.dir, lower.base)
	if err != nil {
		return err
	}
	defer unix.Close(data)
	e.data, err = unix.Open(self(data), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

// openPath opens a regular file for nothing, so that it can be looked at before anything acts: what was one a moment ago
// may be a device by now. ENOENT when it is something else.
func openPath(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// alike says whether a directory is the same but for what is in it.
func alike(a, b *unix.Stat_t) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Mtim == b.Mtim
}
