package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"hull/errdef"
	"hull/kernel"

	"golang.org/x/sys/unix"
)

// openRoot makes the root file system, detached: attached it is only in the container's mount namespace.
func (b *boot) openRoot() error {
	if b.rootless {
		return nil
	}
	if o := b.cfg.Root; o != nil {
		k := &kernel.Overlay{Lower: o.Lower, Upper: o.Upper, Work: o.Work, Scratch: b.cfg.Bundle}
		if o.Volatile {
			k.Options = append(k.Options, "volatile")
		}
		if b.userns != nil {
			k.IDMap = b.userns
			k.Owner, _ = outside(b.spec.Linux.UIDMappings, 0)
		}
		fd, err := k.Mount()
		if errors.Is(err, kernel.ErrNoIDMap) {
			return errdef.Unavailable("this kernel cannot map ids on the file system of the store (%w): choose another "+
				"place for it with --root, or give up the user namespace with --userns=host", err)
		}
		if err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		b.root = fd
		b.fds = append(b.fds, fd)
		return nil
	}
	path := b.rootPath()
	// CVE-2026-48749: a root that is a symbolic link leads wherever its maker wants.
	dir, err := b.open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return errdef.Invalid("root file system %s is not a directory", path)
	}
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if b.root, err = kernel.Clone(dir, "", true); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	b.fds = append(b.fds, b.root)
	if err := cutPropagation(b.root); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	return nil
}

func (b *boot) rootPath() string {
	path := b.spec.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.cfg.Bundle, path)
	}
	return path
}

// cutPropagation keeps mounts made in the container out of the host: the copy of a shared mount, as systemd makes all
// of them, is its peer. The other direction stays open. pivot_root(2) refuses a shared root, too.
func cutPropagation(tree int) error {
	attr := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("cut mount propagation: %w", err)
	}
	return nil
}

// attachRoot is the child's side: the root becomes a mount of its namespace, over the old root. Lookups that begin at
// the old root, or at a descriptor, do not see what is mounted on top of it. For hooks it is where the configuration says.
func (b *boot) attachRoot() {
	p := b.prog
	p.Call("cut mount propagation", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_SLAVE, 0)
	if b.root == rootNone && b.cfg.Root != nil {
		// Inside a user namespace overlayfs keeps its marks in user.* attributes (Linux 5.11).
		o := b.cfg.Root
		opts := "userxattr,lowerdir=" + strings.Join(o.Lower, ":") + ",upperdir=" + o.Upper + ",workdir=" + o.Work
		if o.Volatile {
			opts += ",volatile"
		}
		p.Call("mount root", unix.SYS_MOUNT, "overlay", b.cfg.Bundle, "overlay", 0, opts)
		b.rootReg = p.Call("open root", unix.SYS_OPENAT, unix.AT_FDCWD, b.cfg.Bundle, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Result()
		return
	}
	if b.root == rootNone {
		b.rootReg = p.Call("clone root", unix.SYS_OPEN_TREE, unix.AT_FDCWD, b.rootPath(),
			unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE).Result()
	} else {
		b.rootReg = p.Call("take root", unix.SYS_FCNTL, b.root, unix.F_DUPFD_CLOEXEC, 3).Result()
	}
	at := "/"
	if b.cfg.BeforePivot != nil && b.cfg.Root == nil {
		at = b.rootPath() // where hooks look for it
	}
	p.Call("attach root", unix.SYS_MOVE_MOUNT, b.rootReg, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// readRootFile reads a small regular file of the root file system, before anything is mounted over it. A missing
// file is empty; one that is no regular file, or larger than a database of users may be, is refused.
func (b *boot) readRootFile(name string) ([]byte, error) {
	for _, dir := range b.rootDirs() {
		data, err := readBelow(dir, name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		return data, err
	}
	return nil, nil
}

// rootDirs are what to look for a file in, in this order: the merged root, or, where only the children can mount it,
// its layers.
func (b *boot) rootDirs() []any {
	switch {
	case b.root != rootNone:
		return []any{b.root}
	case b.cfg.Root != nil:
		dirs := []any{b.cfg.Root.Upper}
		for _, l := range b.cfg.Root.Lower {
			dirs = append(dirs, l)
		}
		return dirs
	}
	return []any{b.rootPath()}
}

const maxRootFile = 8 << 20

func readBelow(dir any, name string) ([]byte, error) {
	fd, ok := dir.(int)
	if !ok {
		var err error
		fd, err = unix.Open(dir.(string), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
	}
	// O_NONBLOCK: a FIFO in the image must not make us wait.
	f, err := unix.Openat2(fd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(f), name)
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errdef.Invalid("/%s of the image is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxRootFile+1))
	if len(data) > maxRootFile {
		return nil, errdef.Invalid("/%s of the image is larger than %d bytes", name, maxRootFile)
	}
	return data, err
}
