package files

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"hull/archive"
	"hull/kernel"

	"golang.org/x/sys/unix"
)

// Root is the root of a container that does not run.
type Root struct {
	Lower   []string `json:"lower"` // topmost first, absolute
	Upper   string   `json:"upper"`
	Work    string   `json:"work"`
	Scratch string   `json:"scratch"` // a directory to mount on
	Mounts  []Mount  `json:"mounts,omitempty"`
	// ReadOnly is about the root itself, not about Mounts.
	ReadOnly bool `json:"readOnly,omitempty"`
	// UserXattr says that the mount is made in a user namespace, where overlayfs keeps its marks in user.* attributes.
	UserXattr bool `json:"userXattr,omitempty"`
}

// Mount is a directory or file of the host at a place in the container.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Part     string `json:"part,omitempty"` // of the source, and never outside of it; "" is all
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// enter mounts the root in the mount namespace of this process, which nobody shares, and makes it the root directory.
// Nothing of the host is left in that namespace; it ends with the process, and with it the mounts.
func (r *Root) enter(binds bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cut mount propagation: %w", err)
	}
	var sources []int
	if binds {
		var err error
		if sources, err = r.sources(); err != nil {
			return err
		}
	}
	if err := r.mount(); err != nil {
		return err
	}
	root, err := archive.Open(unix.AT_FDCWD, r.Scratch, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	for i, fd := range sources {
		if fd < 0 {
			continue
		}
		if err := r.Mounts[i].attach(root, fd); err != nil {
			return fmt.Errorf("mount %s: %w", r.Mounts[i].Target, err)
		}
	}
	if r.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	// The new root is stacked on the old one, which then goes: see pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's file systems: %w", err)
	}
	return unix.Chdir("/")
}

func (r *Root) mount() error {
	if r.UserXattr {
		opts := "userxattr,lowerdir=" + strings.Join(r.Lower, ":") + ",upperdir=" + r.Upper + ",workdir=" + r.Work
		if err := unix.Mount("overlay", r.Scratch, "overlay", 0, opts); err != nil {
			return fmt.Errorf("mount root file system: %w", err)
		}
		return nil
	}
	o := kernel.Overlay{Lower: r.Lower, Upper: r.Upper, Work: r.Work, Scratch: r.Scratch}
	fd, err := o.Mount()
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, r.Scratch, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach root file system: %w", err)
	}
	return nil
}

// sources clones what is to be mounted, while the host's files can still be named. One that is gone is left out, -1: it
// is missed at the next start.
func (r *Root) sources() ([]int, error) {
	fds := make([]int, len(r.Mounts))
	for i, m := range r.Mounts {
		fd, err := m.clone()
		if errors.Is(err, unix.ENOENT) {
			fds[i] = -1
			continue
		}
		if err != nil {
			return nil, err
		}
		if m.ReadOnly {
			attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
			if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
				return nil, fmt.Errorf("make %s read-only: %w", m.Target, err)
			}
		}
		fds[i] = fd
	}
	return fds, nil
}

func (m *Mount) clone() (int, error) {
	if m.Part == "" {
		return kernel.Clone(unix.AT_FDCWD, m.Source, true)
	}
	source, err := archive.Open(unix.AT_FDCWD, m.Source, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(source)
	part, err := archive.Open(source, m.Part, unix.O_PATH, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return -1, err
	}
	defer unix.Close(part)
	return kernel.Clone(part, "", true)
}

// attach puts the mount fd at its place below root, made when missing, as at a start.
func (m *Mount) attach(root, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	target, err := place(root, m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// place opens the place of a mount in the tree root, whose symbolic links mean something inside it.
func place(root int, target string, isDir bool) (int, error) {
	rel := strings.TrimPrefix(path.Clean("/"+target), "/")
	fd, err := archive.Open(root, rel, unix.O_PATH, unix.RESOLVE_IN_ROOT)
	if err != unix.ENOENT {
		return fd, err
	}
	dir, base := path.Split(rel)
	parent := root
	if dir != "" {
		if parent, err = place(root, dir, true); err != nil {
			return -1, err
		}
		defer unix.Close(parent)
	}
	if isDir {
		err = unix.Mkdirat(parent, base, 0o755)
	} else {
		var made int
		if made, err = unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644); err == nil {
			unix.Close(made)
		}
	}
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	return archive.Open(root, rel, unix.O_PATH, unix.RESOLVE_IN_ROOT)
}
