package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Clone returns a detached copy of the mount at the path (open_tree(2)); with all the mounts below it when recursive.
// It needs CAP_SYS_ADMIN over the caller's mount namespace, of which the path has to be part.
func Clone(dirfd int, path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dirfd, path, flags)
	if err != nil {
		return -1, fmt.Errorf("clone mount %s: %w", path, err)
	}
	return fd, nil
}

// ReadOnly returns a detached read-only copy of the mount at the directory, without what is mounted below it. A program
// executed from it cannot be opened for writing through /proc/PID/exe, whoever asks (CVE-2019-5736).
func ReadOnly(path string) (int, error) {
	fd, err := Clone(unix.AT_FDCWD, path, false)
	if err != nil {
		return -1, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make mount of %s read-only: %w", path, err)
	}
	return fd, nil
}

// Mount mounts the source, a device or server, as a file system of the kind, and returns it detached. Each option is a
// flag or KEY=VALUE, as the file system takes it.
func Mount(kind, source string, options []string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return -1, fmt.Errorf("this kernel has no file system %s", kind)
	}
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", kind, err)
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, fmt.Errorf("mount %s: %w%s", source, err, fsMessage(fs))
		}
	}
	for _, o := range options {
		key, value, hasValue := strings.Cut(o, "=")
		if hasValue {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, fmt.Errorf("mount %s: option %s: %w%s", source, o, err, fsMessage(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("mount %s: %w%s", source, err, fsMessage(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", source, err)
	}
	return fd, nil
}

// IDMapMount makes the detached mount fd show its files with the owners mapped by the user namespace ns.
// EINVAL means that its file system does not support it (overlayfs, NFS, FUSE without it, /proc, /sys).
func IDMapMount(fd int, ns *os.File, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	err := unix.MountSetattr(fd, "", flags, &attr)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", ErrNoIDMap, err)
	}
	if err != nil {
		return fmt.Errorf("id-map mount: %w", err)
	}
	return nil
}

// ErrNoIDMap says that a mount cannot be id-mapped: its file system, on this kernel, does not support it.
var ErrNoIDMap = errors.New("the file system maps no ids")

// Overlay is a root file system of overlayfs.
type Overlay struct {
	Lower   []string // topmost first, absolute
	Upper   string   // "" for a read-only one
	Work    string
	Options []string // further mount options, flags only: "volatile", "userxattr"
	IDMap   *os.File // user namespace that maps the owners; nil for none
	Owner   uint32   // with IDMap: what 0 in it is outside
	Scratch string   // a directory to mount on, unseen by others, where the kernel is older than 6.13
}

// Mount returns a detached overlay mount. The kernel must be 5.19 or later for id-mapped layers.
func (o *Overlay) Mount() (int, error) {
	fds := make([]int, 0, len(o.Lower)+2)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	open := func(path string) (int, error) {
		fd, err := o.layer(path)
		if err == nil {
			fds = append(fds, fd)
		}
		return fd, err
	}
	for _, dir := range o.Lower {
		if _, err := open(dir); err != nil {
			return -1, err
		}
	}
	upper, work := -1, -1
	if o.Upper != "" {
		// Upper and work have to be directories of one mount.
		parent, upperName, workName := commonParent(o.Upper, o.Work)
		top, err := open(parent)
		if err != nil {
			return -1, err
		}
		for name, fd := range map[string]*int{upperName: &upper, workName: &work} {
			*fd, err = unix.Openat(top, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, fmt.Errorf("open %s/%s: %w", parent, name, err)
			}
			fds = append(fds, *fd)
		}
	}
	fd := -1
	err := o.asOwner(func() (err error) {
		fd, err = o.mountByFD(fds[:len(o.Lower)], upper, work)
		return err
	})
	if errors.Is(err, errOldOverlay) {
		return o.mountAside(fds, upper, work)
	}
	return fd, err
}

// mountAside calls mountByPath on a thread with a mount namespace of its own. The thread ends with the call, and with it
// whatever is still mounted there; killed at any moment, we leave no mount behind.
func (o *Overlay) mountAside(fds []int, upper, work int) (int, error) {
	var (
		fd   int
		err  error
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is not for anybody else
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("create mount namespace: %w", err)
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			err = fmt.Errorf("cut mount propagation: %w", err)
			return
		}
		err = o.asOwner(func() (err error) {
			fd, err = o.mountByPath(fds, upper, work)
			return err
		})
	}()
	<-done
	return fd, err
}

// asOwner calls f with the file system ids of the container's root and all our capabilities. Overlayfs keeps the
// credentials of whoever mounts it for all it does below: on an id-mapped upper layer, host root has no id (EOVERFLOW,
// and overlayfs quietly falls back to read-only).
func (o *Overlay) asOwner(f func() error) error {
	if o.IDMap == nil {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if err := unix.Setfsgid(int(o.Owner)); err != nil {
		return fmt.Errorf("setfsgid: %w", err)
	}
	if err := unix.Setfsuid(int(o.Owner)); err != nil {
		return fmt.Errorf("setfsuid: %w", err)
	}
	// Leaving uid 0 dropped the capabilities about files, capabilities(7).
	err := unix.Capset(&hdr, &caps[0])
	if err == nil {
		err = f()
	}
	for _, e := range []error{unix.Setfsuid(os.Geteuid()), unix.Setfsgid(os.Getegid()), unix.Capset(&hdr, &caps[0])} {
		if e != nil {
			panic("kernel: cannot go back to our own ids: " + e.Error())
		}
	}
	return err
}

func commonParent(upper, work string) (parent, upperName, workName string) {
	i, j := strings.LastIndexByte(upper, '/'), strings.LastIndexByte(work, '/')
	return upper[:i], upper[i+1:], work[j+1:]
}

// layer opens the directory as a mount of its own, id-mapped when asked.
func (o *Overlay) layer(path string) (int, error) {
	fd, err := Clone(unix.AT_FDCWD, path, false)
	if err != nil || o.IDMap == nil {
		return fd, err
	}
	if err := IDMapMount(fd, o.IDMap, false); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

var errOldOverlay = errors.New("overlayfs of this kernel takes no descriptors")

// mountByFD needs Linux 6.13: layers given as descriptors, detached mounts among them.
func (o *Overlay) mountByFD(lower []int, upper, work int) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlayfs: %w", err)
	}
	defer unix.Close(fs)
	set := func(key string, fd int) error {
		if err := unix.FsconfigSetFd(fs, key, fd); err != nil {
			return fmt.Errorf("overlay option %s: %w", key, err)
		}
		return nil
	}
	for i, fd := range lower {
		err := set("lowerdir+", fd)
		// EOPNOTSUPP before overlayfs knew the mount API (6.5), EINVAL before it took descriptors.
		if i == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
			return -1, errOldOverlay
		}
		if err != nil {
			return -1, fmt.Errorf("%w (layer %d of %d; overlayfs takes at most 500)", err, i+1, len(lower))
		}
	}
	if upper >= 0 {
		if err := set("upperdir", upper); err != nil {
			return -1, err
		}
		if err := set("workdir", work); err != nil {
			return -1, err
		}
	}
	for _, opt := range o.Options {
		if err := unix.FsconfigSetFlag(fs, opt); err != nil {
			return -1, fmt.Errorf("overlay option %s: %w", opt, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create overlay: %w%s", err, fsMessage(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	return fd, nil
}

// mountByPath is for older kernels, whose overlayfs accepts only mounts of the caller's own namespace: the layers are
// attached over Scratch for the moment of mount(2), which takes 4,095 bytes of options, some 230 layers.
// It is called in a mount namespace that nobody shares and that is thrown away.
func (o *Overlay) mountByPath(fds []int, upper, work int) (int, error) {
	layers := fds
	if upper >= 0 {
		layers = fds[:len(o.Lower)+1]
	}
	for _, fd := range layers {
		// The copy of a shared mount, as systemd makes all of them, is its peer: what is mounted on it would be shared too,
		// which pivot_root(2) refuses, and would appear on the layer's directory for everybody.
		private := unix.MountAttr{Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &private); err != nil {
			return -1, fmt.Errorf("cut mount propagation: %w", err)
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, o.Scratch, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("attach layer to %s: %w", o.Scratch, err)
		}
	}
	fdPath := func(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
	var b strings.Builder
	b.WriteString("lowerdir=")
	for i, fd := range fds[:len(o.Lower)] {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(fdPath(fd))
	}
	if upper >= 0 {
		b.WriteString(",upperdir=" + fdPath(upper) + ",workdir=" + fdPath(work))
	}
	for _, opt := range o.Options {
		b.WriteString("," + opt)
	}
	if b.Len() >= os.Getpagesize() {
		return -1, fmt.Errorf("mount overlay: %d layers are too many for this kernel (Linux 6.13 takes 500)", len(o.Lower))
	}
	if err := unix.Mount("overlay", o.Scratch, "overlay", 0, b.String()); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	return Clone(unix.AT_FDCWD, o.Scratch, false)
}

// fsMessage is what the kernel says of a failed fsconfig(2), read from the context itself.
func fsMessage(fs int) string {
	var b [256]byte
	n, err := unix.Read(fs, b[:])
	if err != nil || n <= 2 {
		return ""
	}
	return " (" + strings.TrimSpace(string(b[2:n])) + ")"
}

// Version of the running kernel: major and minor.
func Version() (major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, 0
	}
	release := unix.ByteSliceToString(u.Release[:])
	a, rest, _ := strings.Cut(release, ".")
	major, _ = strconv.Atoi(a)
	digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if digits >= 0 {
		rest = rest[:digits]
	}
	minor, _ = strconv.Atoi(rest)
	return major, minor
}

// AtLeast reports whether the running kernel is major.minor or later.
func AtLeast(major, minor int) bool {
	a, b := Version()
	return a > major || a == major && b >= minor
}
