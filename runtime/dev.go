package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hull/errdef"
	"hull/kernel"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are in every container, whatever the configuration says (runtime-spec, "Default Devices"), followed
// by its own.
func (b *boot) defaultDevices() []specs.LinuxDevice {
	list := []specs.LinuxDevice{
		{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
		{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
		{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
		{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
		{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
		{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
	}
next:
	for _, d := range b.spec.Linux.Devices {
		d.Path = clean(d.Path)
		if d.Path == "/dev/ptmx" || d.Path == "/dev/console" && b.process.Terminal {
			continue // the container's own, whatever device of the host is listed (Docker lists all for --privileged)
		}
		for i := range list {
			if list[i].Path == d.Path {
				list[i] = d
				continue next
			}
		}
		list = append(list, d)
	}
	return list
}

// links are the symbolic links of /dev (runtime-spec, "Dev symbolic links").
var links = [...][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"},
}

// mountDev makes /dev. The parent does it where it can: a device node made inside a user namespace cannot be opened
// (SB_I_NODEV), one on a tmpfs of the host can, and id-mapped it belongs to the container's root.
func (b *boot) mountDev(m *specs.Mount, o *options) error {
	what := "mount /dev"
	if b.rootless {
		fd := b.newMount(what, "tmpfs", "", o.data, o.set&^unix.MOUNT_ATTR_RDONLY)
		for _, l := range links {
			b.prog.Call(what, unix.SYS_SYMLINKAT, l[0], fd, l[1])
		}
		b.attach(what, fd, b.ensureDir("/dev"))
		b.afterAttach(what, fd, o)
		b.hasDev = true
		return b.deviceBinds("/dev", b.defaultDevices())
	}
	fd, err := devTmpfs(o)
	if err != nil {
		return err
	}
	b.fds = append(b.fds, fd)
	if err := b.fillDev(fd); err != nil {
		return err
	}
	if b.userns != nil {
		err := kernel.IDMapMount(fd, b.userns, false)
		if errors.Is(err, unix.EINVAL) {
			err = b.chownDev(fd, ".") // tmpfs cannot map ids before Linux 6.3
		}
		if err != nil {
			return err
		}
	}
	if b.userns == nil && b.cfg.Root == nil {
		b.mountDevInTurn(what, fd, o)
	} else {
		b.attach(what, fd, b.ensureDir("/dev"))
		b.afterAttach(what, fd, o)
	}
	b.hasDev = true
	return nil
}

// mountDevInTurn attaches a mount made now of the file system that fd is a mount of. Since Linux 6.8 mountinfo lists mounts
// in the order in which they were made, and the one that was made first, to be filled, would come before those that the
// configuration has before it, which others check. It costs some calls, so bundles get it and containers of layers not.
func (b *boot) mountDevInTurn(what string, fd int, o *options) {
	p := b.prog
	// Clones are taken only of mounts that are attached in the caller's namespace.
	p.Call(what, unix.SYS_MOVE_MOUNT, fd, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	first := p.Call(what, unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, 3).Result()
	second := b.cloneOf(what, first)
	p.Call(what, unix.SYS_UMOUNT2, "/proc", unix.MNT_DETACH) // hooks still look at what was there
	b.closeReg(first)
	b.attach(what, second, b.ensureDir("/dev"))
	b.afterAttach(what, second, o)
}

func devTmpfs(o *options) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", "tmpfs"); err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	for _, d := range o.data {
		key, value, _ := strings.Cut(d, "=")
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return -1, errdef.Invalid("tmpfs option %s: %w", d, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create tmpfs: %w", err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.set&^unix.MOUNT_ATTR_RDONLY))
}

// fillDev makes nodes and links on the detached tmpfs. Nobody else can reach it, so plain names are safe.
func (b *boot) fillDev(fd int) error {
	for _, d := range b.defaultDevices() {
		name, ok := strings.CutPrefix(d.Path, "/dev/")
		if !ok {
			return errdef.Invalid("device %s is not below /dev", d.Path)
		}
		if dir := filepath.Dir(name); dir != "." {
			at := ""
			for _, part := range strings.Split(dir, "/") {
				at = filepath.Join(at, part)
				if err := unix.Mkdirat(fd, at, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
					return fmt.Errorf("create /dev/%s: %w", at, err)
				}
			}
		}
		mode := uint32(0o666)
		if d.FileMode != nil {
			mode = uint32(*d.FileMode & 0o7777)
		}
		kind, err := nodeType(d.Type)
		if err != nil {
			return err
		}
		if err := unix.Mknodat(fd, name, kind|mode, int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))); err != nil {
			return fmt.Errorf("create device %s: %w", d.Path, err)
		}
		if err := unix.Fchmodat(fd, name, mode, 0); err != nil {
			return fmt.Errorf("chmod device %s: %w", d.Path, err)
		}
		if d.UID != nil || d.GID != nil {
			// Ids of the container: the id-map of the mount turns them into the host's.
			if err := unix.Fchownat(fd, name, id(d.UID), id(d.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("chown device %s: %w", d.Path, err)
			}
		}
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[0], fd, l[1]); err != nil {
			return fmt.Errorf("create /dev/%s: %w", l[1], err)
		}
	}
	if b.process.Terminal {
		f, err := unix.Openat(fd, "console", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("create /dev/console: %w", err)
		}
		return unix.Close(f)
	}
	return nil
}

// chownDev gives dir, a directory below the detached tmpfs fd, and what is in it the host's ids of its owners.
func (b *boot) chownDev(fd int, dir string) error {
	d, err := unix.Openat(fd, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/%s: %w", dir, err)
	}
	f := os.NewFile(uintptr(d), dir)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("list /dev/%s: %w", dir, err)
	}
	for _, e := range entries {
		if e.IsDir() {
			err = b.chownDev(d, e.Name())
		} else {
			err = b.chownOutside(d, e.Name())
		}
		if err != nil {
			return err
		}
	}
	return b.chownOutside(d, ".")
}

func (b *boot) chownOutside(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat /dev/%s: %w", name, err)
	}
	uid, uok := outside(b.spec.Linux.UIDMappings, st.Uid)
	gid, gok := outside(b.spec.Linux.GIDMappings, st.Gid)
	if !uok || !gok {
		return nil // nobody's in the container, as it would be in a mapped mount
	}
	if err := unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown /dev/%s: %w", name, err)
	}
	return nil
}

func id(p *uint32) int {
	if p == nil {
		return -1
	}
	return int(*p)
}

func nodeType(t string) (uint32, error) {
	switch t {
	case "c", "u":
		return unix.S_IFCHR, nil
	case "b":
		return unix.S_IFBLK, nil
	case "p":
		return unix.S_IFIFO, nil
	}
	return 0, errdef.Invalid("unknown device type %q", t)
}

// deviceBinds shows the host's nodes where no node can be made: without privileges, or in a /dev that is not ours.
func (b *boot) deviceBinds(dir string, devices []specs.LinuxDevice) error {
	for _, d := range devices {
		if _, err := os.Stat(d.Path); err != nil {
			b.warn("device %s is left out: %v", d.Path, err)
			continue
		}
		what := "bind device " + d.Path
		fd := b.prog.Call(what, unix.SYS_OPEN_TREE, unix.AT_FDCWD, d.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Result()
		b.attach(what, fd, b.ensureFile(d.Path))
		b.closeReg(fd)
	}
	return nil
}
