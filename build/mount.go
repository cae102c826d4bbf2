package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"hull/builds"
	"hull/errdef"
	"hull/kernel"
)

// room is a mount namespace of one thread, in which trees are mounted to be worked on. Nobody else sees them, and nothing is
// left of them when the thread ends, however that is.
type room struct{ j *job }

// enclose calls f in a room. What f calls stays on its goroutine.
func (j *job) enclose(f func(*room) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not for anybody else
		done <- enter(func() error { return f(&room{j}) })
	}()
	return <-done
}

func enter(f func() error) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return noRoot(fmt.Errorf("create mount namespace: %w", err))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cut mount propagation: %w", err)
	}
	return f()
}

// mounted is a tree in a room, on which the kernel follows no symbolic link whoever asks (MOUNT_ATTR_NOSYMFOLLOW, Linux 5.14).
// Links are resolved by reading them, so they can mean nothing outside of the tree, and somebody who swaps a directory for
// a link meanwhile gets ELOOP (CVE-2024-23652 and the like).
type mounted struct {
	fd  int
	dir string
}

// path is where the tree can be found in its room.
func (m *mounted) path() string { return m.dir }

func (m *mounted) close() {
	unix.Close(m.fd)
	_ = unix.Unmount(m.dir, unix.MNT_DETACH) // or the end of the room does
	_ = unix.Rmdir(m.dir)                    // or that of the build
}

// place mounts the detached mount fd, which it takes over.
func (r *room) place(fd int, readOnly bool) (_ *mounted, err error) {
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSYMFOLLOW | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, fmt.Errorf("make a mount private: %w", err)
	}
	dir, err := r.newDir()
	if err != nil {
		return nil, err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return &mounted{fd, dir}, nil
}

// newDir makes a directory that goes with the build.
func (r *room) newDir() (string, error) {
	dir := filepath.Join(r.j.build.Dir(), newID())
	return dir, os.Mkdir(dir, 0o755)
}

// dirs are the directories of a file system, topmost first.
func (b *Builder) dirs(f *builds.FS) []string { return b.e.RootDirs(chains(f.Layers), b.over(f)) }

// over are those of the snapshots, lowest first.
func (b *Builder) over(f *builds.FS) []string {
	out := make([]string, len(f.Snapshots))
	for i, id := range f.Snapshots {
		out[i] = b.store.SnapshotFS(id)
	}
	return out
}

// mount shows a file system for reading.
func (r *room) mount(f *builds.FS) (*mounted, error) {
	lower := r.j.b.dirs(f)
	if len(lower) == 0 {
		empty, err := r.j.emptyDir()
		if err != nil {
			return nil, err
		}
		lower = []string{empty}
	}
	if len(lower) == 1 { // overlayfs wants two; a single layer hides nothing
		fd, err := kernel.Clone(unix.AT_FDCWD, lower[0], false)
		if err != nil {
			return nil, noRoot(err)
		}
		return r.place(fd, true)
	}
	scratch, err := r.j.emptyDir()
	if err != nil {
		return nil, err
	}
	fd, err := (&kernel.Overlay{Lower: lower, Scratch: scratch}).Mount()
	if err != nil {
		return nil, noRoot(err)
	}
	return r.place(fd, true)
}

func noRoot(err error) error {
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return errdef.NotImplemented("an ordinary user cannot build yet: run hull build as root")
	}
	return err
}

// emptyDir is a directory of the build that stays empty.
func (j *job) emptyDir() (string, error) {
	dir := filepath.Join(j.build.Dir(), "empty")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

// draft is a file system that is being changed: the writes go into a snapshot to be.
type draft struct {
	*mounted
	base *builds.FS
	d    *builds.Draft
}

// change mounts a file system to be changed. commit or discard has to follow.
func (r *room) change(base *builds.FS) (_ *draft, err error) {
	j := r.j
	d, err := j.build.NewSnapshot(newID())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Discard())
		}
	}()
	lower := j.b.dirs(base)
	mode, uid, gid := uint32(0o755), 0, 0
	if len(lower) > 0 { // overlayfs shows owner and mode of the upper root
		var st unix.Stat_t
		if err := unix.Stat(lower[0], &st); err != nil {
			return nil, &fs.PathError{Op: "stat", Path: lower[0], Err: err}
		}
		mode, uid, gid = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	} else {
		empty, err := j.emptyDir()
		if err != nil {
			return nil, err
		}
		lower = []string{empty}
	}
	work := filepath.Join(d.Dir(), "work")
	scratch := filepath.Join(d.Dir(), "mnt")
	for _, dir := range []string{d.FS(), work, scratch} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(unix.Chmod(d.FS(), mode), unix.Lchown(d.FS(), uid, gid)); err != nil {
		return nil, err
	}
	fd, err := (&kernel.Overlay{Lower: lower, Upper: d.FS(), Work: work, Scratch: scratch, Options: []string{"volatile"}}).Mount()
	if err != nil {
		return nil, noRoot(err)
	}
	m, err := r.place(fd, false)
	if err != nil {
		return nil, err
	}
	return &draft{m, base, d}, nil
}

// commit ends the change and returns the file system with it.
func (d *draft) commit(what string) (*builds.FS, error) {
	d.close()
	id, err := d.d.Commit(what)
	if err != nil {
		return nil, errors.Join(err, d.d.Discard())
	}
	return d.base.Over(id), nil
}

func (d *draft) discard() error {
	d.close()
	return d.d.Discard()
}

// with calls f with a tree for reading, in a room.
func (j *job) with(t *tree, f func(*view) error) error {
	return j.enclose(func(r *room) error {
		v, err := r.view(t)
		if err != nil {
			return err
		}
		defer v.close()
		return f(v)
	})
}

// view is a tree for reading: a mount of it, and of a directory of the client what of it belongs to the build.
type view struct {
	*mounted
	local *local
	sums  *sums
}

func (r *room) view(t *tree) (*view, error) {
	if t.local != nil {
		m, err := t.local.mount(r)
		if err != nil {
			return nil, err
		}
		return &view{m, t.local, t.local.sums}, nil
	}
	m, err := r.mount(t.fs)
	if err != nil {
		return nil, err
	}
	return &view{m, nil, r.j.b.sumsOf(t.fs)}, nil
}
