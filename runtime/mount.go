package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/kernel"
	"hull/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// options are the mount options of one mount of the runtime-spec, sorted.
type options struct {
	set, clear uint64 // MOUNT_ATTR_*
	recSet     uint64 // "rro" and its kind: for all mounts below
	recClear   uint64
	propagate  uint64 // MS_SHARED and its kind
	propRec    bool
	bind       bool
	recursive  bool
	idmap      bool
	copyUp     bool
	subpath    string   // of what is mounted; never leaves it
	lower      []string // layers of an overlay, topmost first
	data       []string
}

// Options of our own, beside those of the runtime-spec.
const (
	// SubpathOption begins the option that shows only a part of a bind or another mount: a relative path, resolved
	// inside it by descriptor.
	SubpathOption = "hull.subpath="
	// LowerOption begins the option that names one layer of a mount of type overlay, topmost first. It is read-only,
	// made by the parent and id-mapped if asked for.
	LowerOption = "hull.lower="
)

// attrOf is the mount attribute an option sets, or clears when on is false.
func attrOf(o string) (attr uint64, on, ok bool) {
	switch o {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, true, true
	case "rw":
		return unix.MOUNT_ATTR_RDONLY, false, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, true, true
	case "suid":
		return unix.MOUNT_ATTR_NOSUID, false, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, true, true
	case "dev":
		return unix.MOUNT_ATTR_NODEV, false, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, true, true
	case "exec":
		return unix.MOUNT_ATTR_NOEXEC, false, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, true, true
	case "atime":
		return unix.MOUNT_ATTR_NOATIME, false, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, true, true
	case "nostrictatime":
		return unix.MOUNT_ATTR_STRICTATIME, false, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, true, true
	case "diratime":
		return unix.MOUNT_ATTR_NODIRATIME, false, true
	case "nosymfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, true, true
	case "symfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, false, true
	case "relatime", "norelatime", "defaults", "sync", "async", "mand", "nomand", "dirsync", "iversion", "noiversion", "lazytime", "nolazytime", "silent", "loud", "remount":
		return 0, true, true
	}
	return 0, false, false
}

func propagation(o string) uint64 {
	switch strings.TrimPrefix(o, "r") {
	case "private":
		return unix.MS_PRIVATE
	case "shared":
		return unix.MS_SHARED
	case "slave":
		return unix.MS_SLAVE
	case "unbindable":
		return unix.MS_UNBINDABLE
	}
	return 0
}

func parseOptions(m *specs.Mount) options {
	o := options{bind: m.Type == "bind"}
	for _, s := range m.Options {
		if attr, on, ok := attrOf(s); ok {
			if on {
				o.set, o.clear = o.set|attr, o.clear&^attr
			} else {
				o.clear, o.set = o.clear|attr, o.set&^attr
			}
			continue
		}
		if attr, on, ok := attrOf(strings.TrimPrefix(s, "r")); ok && strings.HasPrefix(s, "r") {
			if on {
				o.recSet |= attr
			} else {
				o.recClear |= attr
			}
			continue
		}
		if p := propagation(s); p != 0 {
			o.propagate, o.propRec = p, s[0] == 'r'
			continue
		}
		if sub, ok := strings.CutPrefix(s, SubpathOption); ok {
			o.subpath = sub
			continue
		}
		if dir, ok := strings.CutPrefix(s, LowerOption); ok {
			o.lower = append(o.lower, dir)
			continue
		}
		switch s {
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "idmap", "ridmap":
			o.idmap = true
		case "tmpcopyup":
			o.copyUp = true
		default:
			o.data = append(o.data, s)
		}
	}
	return o
}

// FileSystemOptions are those of a mount's options that its file system takes; the others belong to the mount.
func FileSystemOptions(opts []string) []string {
	o := parseOptions(&specs.Mount{Options: opts})
	return o.data
}

// mountAll attaches the root and everything the configuration mounts in it, in order.
func (b *boot) mountAll() error {
	b.attachRoot()
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		if err := b.mount(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	if !b.hasDev {
		return b.deviceBinds("/dev", b.defaultDevices())
	}
	return nil
}

func (b *boot) mount(m *specs.Mount) error {
	dest := clean(m.Destination)
	if dest == "/" {
		return errdef.Invalid("a mount cannot replace the root")
	}
	o := parseOptions(m)
	switch {
	case o.bind:
		return b.bind(m, &o, dest)
	case m.Type == "cgroup":
		return b.mountCgroups(&o, dest)
	case m.Type == "tmpfs" && dest == "/dev":
		return b.mountDev(m, &o)
	case o.lower != nil || o.idmap || o.subpath != "":
		return b.mountAhead(m, &o, dest)
	}
	what := "mount " + m.Type + " on " + dest
	fd := b.newMount(what, m.Type, m.Source, o.data, o.set)
	if m.Type == "proc" || m.Type == "sysfs" {
		// CVE-2023-27561, CVE-2023-28642: these must not land anywhere but where masking looks for them.
		b.attach(what+" (it must be an ordinary directory)", fd, b.ordinaryDir(dest))
	} else {
		b.attach(what, fd, b.ensureDir(dest))
	}
	if m.Type == "devpts" && dest == "/dev/pts" {
		b.devpts, b.hasPts = fd, true
		return nil
	}
	b.afterAttach(what, fd, &o)
	if !(m.Type == "devpts") {
		b.closeReg(fd)
	}
	return nil
}

func (b *boot) closeReg(fd kernel.Reg) { b.prog.Call("close", unix.SYS_CLOSE, fd) }

// newMount mounts a file system of the kind, detached.
func (b *boot) newMount(what, kind, source string, data []string, attrs uint64) kernel.Reg {
	p := b.prog
	fs := p.Call(what, unix.SYS_FSOPEN, kind, unix.FSOPEN_CLOEXEC).Result()
	if source != "" { // what df(1) and mount(8) show first
		p.Call(what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "source", source, 0)
	}
	for _, d := range data {
		key, value, isString := strings.Cut(d, "=")
		if kind == "devpts" && key == "gid" {
			if id, err := strconv.ParseUint(value, 10, 32); err == nil {
				if _, ok := outside(b.spec.Linux.GIDMappings, uint32(id)); !ok {
					continue // a group that does not exist in there
				}
			}
		}
		if isString {
			p.Call(what+": option "+d, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, key, value, 0)
		} else {
			p.Call(what+": option "+d, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, key, 0, 0)
		}
	}
	p.Call(what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	fd := p.Call(what, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, uint64(attrs)).Result()
	b.closeReg(fs)
	return fd
}

// attach moves the detached mount onto the target, both descriptors.
func (b *boot) attach(what string, fd any, target kernel.Reg) {
	b.prog.Call(what, unix.SYS_MOVE_MOUNT, fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.closeReg(target)
}

func (b *boot) afterAttach(what string, fd any, o *options) {
	if o.recSet|o.recClear != 0 {
		b.setattr(what+": recursive options", fd, unix.MountAttr{Attr_set: o.recSet, Attr_clr: o.recClear}, true)
	}
	if o.propagate != 0 {
		b.setattr(what+": propagation", fd, unix.MountAttr{Propagation: o.propagate}, o.propRec)
	}
}

// bind attaches a part of the host's file tree. The parent opens it where it can, with the rights of whoever asked for
// it; without privileges the child does.
func (b *boot) bind(m *specs.Mount, o *options, dest string) error {
	source := m.Source
	if !filepath.IsAbs(source) {
		source = filepath.Join(b.cfg.Bundle, source)
	}
	// A part is opened before it is looked at: what it is called may be a container's to change.
	at, err := openPart(source, o.subpath)
	if errors.Is(err, os.ErrNotExist) {
		return errdef.Invalid("bind source path does not exist: %s", filepath.Join(source, o.subpath))
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return fmt.Errorf("stat %s: %w", source, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	what := "bind " + source + " to " + dest
	var fd any
	var below []submount
	if b.rootless {
		fd = b.cloneInside(what, source, o.subpath)
	} else {
		tree, err := b.cloneMount(at, source, o, o.recursive)
		if err != nil {
			return err
		}
		if tree, below, err = b.idmapBind(m, o, tree, at, source); err != nil {
			return err
		}
		fd = tree
	}
	if o.set|o.clear != 0 {
		clear := o.clear
		if b.userns != nil {
			clear = 0 // what the host restricts stays restricted, mount_namespaces(7)
		}
		b.setattr(what, fd, mountAttr(o.set, clear), false)
	}
	b.attachOn(what, fd, dest, isDir)
	b.attachBelow(what, fd, below)
	b.afterAttach(what, fd, o)
	return nil
}

// cloneMount clones the mount of what at is, without a way back to the host.
func (b *boot) cloneMount(at int, name string, o *options, recursive bool) (int, error) {
	tree, err := kernel.Clone(at, "", recursive)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	b.fds = append(b.fds, tree)
	if o.propagate == unix.MS_SHARED { // which asks for it
		return tree, nil
	}
	return tree, cutPropagation(tree)
}

// attachOn is attach at the path, which is made if it is missing.
func (b *boot) attachOn(what string, fd any, dest string, isDir bool) {
	if isDir {
		b.attach(what, fd, b.ensureDir(dest))
	} else {
		b.attach(what, fd, b.ensureFile(dest))
	}
}

// openPart opens the source of a bind, or a part of it that cannot be outside of it, for reference only.
func openPart(source, part string) (int, error) {
	dir, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil || part == "" {
		return dir, pathError("open", source, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, part, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	return fd, pathError("open", filepath.Join(source, part), err)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// cloneInside is the child's way to a bind. In a user namespace what is mounted below a directory may not be uncovered:
// the tree comes whole.
func (b *boot) cloneInside(what, source, part string) kernel.Reg {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE
	p := b.prog
	if part == "" {
		return p.Call(what, unix.SYS_OPEN_TREE, unix.AT_FDCWD, source, flags).Result()
	}
	dir := p.Call(what, unix.SYS_OPENAT, unix.AT_FDCWD, source, unix.O_PATH|unix.O_CLOEXEC, 0).Result()
	return b.cloneBelow(what, dir, part, flags)
}

// cloneBelow clones the part of the directory dir and closes dir. The mount of dir must be attached somewhere.
func (b *boot) cloneBelow(what string, dir kernel.Reg, part string, flags int) kernel.Reg {
	p := b.prog
	sub := b.openHow(what, dir, part, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS, 0).Result()
	b.closeReg(dir)
	tree := p.Call(what, unix.SYS_OPEN_TREE, sub, "", flags|unix.AT_EMPTY_PATH).Result()
	b.closeReg(sub)
	return tree
}

// mountAttr fills in the rule of mount_setattr(2) that setting one kind of atime means clearing the others first.
func mountAttr(set, clear uint64) unix.MountAttr {
	if (set|clear)&(unix.MOUNT_ATTR_NOATIME|unix.MOUNT_ATTR_STRICTATIME) != 0 {
		clear = clear&^(unix.MOUNT_ATTR_NOATIME|unix.MOUNT_ATTR_STRICTATIME) | unix.MOUNT_ATTR__ATIME
	}
	return unix.MountAttr{Attr_set: set, Attr_clr: clear}
}

// submount is a mount below a bind that had to be cloned by itself.
type submount struct {
	rel string // where it belongs, relative to the bind
	fd  int
}

// idmapBind maps the owners of a bind mount, so that files have the owners people expect. Where a file system cannot,
// its mounts stay as they are, and the person is told. The kernel maps all mounts of a tree or none, and of a tree only
// its first: if one cannot be mapped, the tree is taken apart.
func (b *boot) idmapBind(m *specs.Mount, o *options, tree, at int, source string) (int, []submount, error) {
	ns, err := b.mapOf(m, o)
	if ns == nil || err != nil {
		return tree, nil, err
	}
	err = kernel.IDMapMount(tree, ns, o.recursive)
	if !unmappable(err) {
		return tree, nil, err
	}
	var unmapped unmapped
	defer func() { b.warnUnmapped(unmapped) }()
	if !o.recursive {
		unmapped.add(source)
		return tree, nil, nil
	}
	if tree, err = b.cloneMount(at, source, o, false); err != nil {
		return -1, nil, err
	}
	if err := unmapped.idmap(tree, ns, source); err != nil {
		return -1, nil, err
	}
	below, err := b.cloneParts(at, o, ns, &unmapped)
	return tree, below, err
}

// unmapped are the mounts of one bind whose owners could not be mapped.
type unmapped []string

func (u *unmapped) add(name string) { *u = append(*u, name) }

// idmap maps one mount, or notes that it cannot be.
func (u *unmapped) idmap(tree int, ns *os.File, name string) error {
	err := kernel.IDMapMount(tree, ns, false)
	if unmappable(err) {
		u.add(name)
		return nil
	}
	return err
}

// cloneParts clones and maps what is mounted below the directory at, each mount by itself, parents first.
func (b *boot) cloneParts(at int, o *options, ns *os.File, unmapped *unmapped) ([]submount, error) {
	top, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(at))
	if err != nil {
		return nil, err
	}
	rels, err := mountsBelow(top)
	if err != nil {
		return nil, err
	}
	var below []submount
	for _, rel := range rels {
		fd, err := unix.Openat2(at, rel, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolvePlain,
		})
		if err != nil {
			continue // covered by another mount, or gone since
		}
		name := filepath.Join(top, rel)
		tree, err := b.cloneMount(fd, name, o, false)
		unix.Close(fd)
		if errors.Is(err, unix.EINVAL) {
			continue // not to be bound: the recursive clone leaves it out too
		}
		if err != nil {
			return nil, err
		}
		if err := unmapped.idmap(tree, ns, name); err != nil {
			return nil, err
		}
		below = append(below, submount{rel, tree})
	}
	return below, nil
}

// resolvePlain is for paths that the kernel has told: nothing on them is a link.
const resolvePlain = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// attachBelow puts the parts of a bind back in their places below it.
func (b *boot) attachBelow(what string, fd any, parts []submount) {
	if len(parts) == 0 {
		return
	}
	at := b.prog.Register()
	for _, part := range parts {
		what := what + ": " + part.rel
		b.openHow(what, fd, part.rel, unix.O_PATH, resolvePlain, 0).Into(at)
		b.attach(what, part.fd, at)
	}
}

// mapOf is the user namespace that maps the owners of a mount, nil for none.
func (b *boot) mapOf(m *specs.Mount, o *options) (*os.File, error) {
	if !o.idmap && len(m.UIDMappings) == 0 {
		return nil, nil
	}
	if len(m.UIDMappings) == 0 || slices.Equal(m.UIDMappings, b.spec.Linux.UIDMappings) && slices.Equal(m.GIDMappings, b.spec.Linux.GIDMappings) {
		return b.userns, nil
	}
	ns, err := kernel.NewUserNS(idMaps(m.UIDMappings), idMaps(m.GIDMappings))
	if err == nil {
		b.files = append(b.files, ns)
	}
	return ns, err
}

func unmappable(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) }

// warnUnmapped is one warning for all mounts of a bind: that of a whole host has dozens.
func (b *boot) warnUnmapped(u unmapped) {
	const named = 3
	switch n := len(u); {
	case n == 1:
		b.warn("%s is on a file system that cannot map ids: its files appear as nobody's in the container", u[0])
	case n > named:
		b.warn("%s and %d other mounts are on file systems that cannot map ids: their files appear as nobody's in the container", strings.Join(u[:named], ", "), n-named)
	case n > 1:
		b.warn("%s are on file systems that cannot map ids: their files appear as nobody's in the container", strings.Join(u, ", "))
	}
}

// mountsBelow lists the mount points of our namespace below the directory, relative to it, each once and parents first.
func mountsBelow(dir string) ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var below []string
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if rel, ok := strings.CutPrefix(unescape(f[4]), strings.TrimSuffix(dir, "/")+"/"); ok && rel != "" {
			below = append(below, rel)
		}
	}
	slices.Sort(below)
	return slices.Compact(below), nil
}

// unescape undoes the octal escapes of mountinfo, proc_pid_mountinfo(5).
func unescape(s string) string {
	if !strings.Contains(s, "\\") {
		return s
	}
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// mountAhead mounts a file system that has to be the parent's work: one that is id-mapped, made of layers of the store,
// or shown only in part.
func (b *boot) mountAhead(m *specs.Mount, o *options, dest string) error {
	what := "mount " + m.Type + " on " + dest
	var fd any
	switch {
	case b.rootless && o.lower != nil:
		fd = b.layersInside(what, o.lower)
	case b.rootless:
		fd = b.newMount(what, m.Type, m.Source, o.data, o.set)
	default:
		tree, err := b.mountNow(m, o)
		if err != nil {
			return err
		}
		b.fds = append(b.fds, tree)
		fd = tree
	}
	if o.set|o.clear != 0 {
		b.setattr(what, fd, mountAttr(o.set, o.clear), false)
	}
	if o.subpath == "" {
		b.attachOn(what, fd, dest, true)
		b.afterAttach(what, fd, o)
		return nil
	}
	// Clones are taken of attached mounts only (before Linux 6.15): the whole goes away with the old root.
	p := b.prog
	if !(b.rootless && o.lower != nil) { // which is attached already
		p.Call(what, unix.SYS_MOVE_MOUNT, fd, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	top := p.Call(what, unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, 3).Result()
	part := b.cloneBelow(what+": "+o.subpath, top, o.subpath, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	isFile, done := p.NewLabel(), p.NewLabel()
	dirFD := b.openHow(what, part, ".", unix.O_PATH|unix.O_DIRECTORY, 0, 0, unix.ENOTDIR).Else(isFile).Result()
	b.closeReg(dirFD)
	b.attachOn(what, part, dest, true)
	p.Jump(done)
	p.Mark(isFile)
	b.attachOn(what, part, dest, false)
	p.Mark(done)
	b.afterAttach(what, part, o)
	return nil
}

// mountNow makes the mount in the parent, detached.
func (b *boot) mountNow(m *specs.Mount, o *options) (int, error) {
	ns, err := b.mapOf(m, o)
	if err != nil {
		return -1, err
	}
	if o.lower != nil {
		k := &kernel.Overlay{Lower: o.lower, IDMap: ns, Scratch: b.cfg.Bundle}
		if ns != nil {
			k.Owner, _ = outside(b.spec.Linux.UIDMappings, 0)
		}
		return k.Mount()
	}
	tree, err := kernel.Mount(m.Type, m.Source, o.data)
	if err != nil || ns == nil {
		return tree, err
	}
	if err = kernel.IDMapMount(tree, ns, false); unmappable(err) {
		b.warnUnmapped(unmapped{m.Source})
		err = nil
	}
	if err != nil {
		unix.Close(tree)
	}
	return tree, err
}

// layersInside mounts layers in the child, as attachRoot does, in a place that goes away with the old root.
func (b *boot) layersInside(what string, lower []string) kernel.Reg {
	p := b.prog
	p.Call(what, unix.SYS_MOUNT, "overlay", "/proc", "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+strings.Join(lower, ":"))
	return p.Call(what, unix.SYS_OPENAT, unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Result()
}

// mountCgroups shows the container its own control groups: one directory of the v2 hierarchy, or one per v1 controller.
func (b *boot) mountCgroups(o *options, dest string) error {
	group, err := cgroup.Open(cgroup.Detect(), b.cfg.cgroupPath())
	if err != nil {
		return err
	}
	mounts := group.Mounts()
	if b.newNS&unix.CLONE_NEWCGROUP == 0 || len(mounts) == 0 {
		b.warn("%s stays empty: the container has no cgroup namespace of its own", dest)
		return nil
	}
	if len(mounts) == 1 && mounts[0].V2 {
		what := "mount cgroup2 on " + dest
		fd := b.newMount(what, "cgroup2", "", nil, o.set)
		b.attach(what, fd, b.ensureDir(dest))
		b.afterAttach(what, fd, o)
		b.closeReg(fd)
		return nil
	}
	top := b.newMount("mount tmpfs on "+dest, "tmpfs", "", []string{"mode=755", "size=64k"}, o.set&^unix.MOUNT_ATTR_RDONLY)
	b.attach("mount tmpfs on "+dest, top, b.ensureDir(dest))
	for _, m := range mounts {
		what := "mount cgroup on " + dest + "/" + m.Name
		// A clone of the host's mount, where the namespace makes the group the root: at each new mount of a v1 hierarchy
		// the kernel visits all groups of the machine, with the one lock of all hierarchies held.
		fd := b.prog.Call(what, unix.SYS_OPEN_TREE, unix.AT_FDCWD, m.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Result()
		attr := mountAttr(o.set, 0)
		attr.Propagation = unix.MS_PRIVATE
		b.setattr(what, fd, attr, false)
		b.prog.Call(what, unix.SYS_MKDIRAT, top, m.Name, 0o755)
		b.prog.Call(what, unix.SYS_MOVE_MOUNT, fd, "", top, m.Name, unix.MOVE_MOUNT_F_EMPTY_PATH)
		b.closeReg(fd)
		if strings.Contains(m.Name, ",") {
			for _, alias := range strings.Split(m.Name, ",") {
				b.prog.Call(what, unix.SYS_SYMLINKAT, m.Name, top, alias)
			}
		}
	}
	if o.set&unix.MOUNT_ATTR_RDONLY != 0 {
		b.setattr("make "+dest+" read-only", top, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	b.closeReg(top)
	return nil
}

// maskPaths hides what leaks or harms: files behind /dev/null, directories behind one empty read-only tmpfs; and makes
// paths read-only by mounts of themselves.
func (b *boot) maskPaths() {
	p := b.prog
	if masked := b.spec.Linux.MaskedPaths; len(masked) > 0 {
		// The host's nodes: this is before pivot_root, and no image can put anything in their place (CVE-2025-31133).
		null := p.Call("open /dev/null", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/null", unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0).Result()
		empty := b.newMount("mask directories", "tmpfs", "", []string{"size=0", "nr_inodes=2", "mode=755"}, unix.MOUNT_ATTR_RDONLY)
		// Clones are taken of attached mounts only (before Linux 6.15): this one goes away with the old root.
		p.Call("mask directories", unix.SYS_MOVE_MOUNT, empty, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
		for _, path := range masked {
			what := "mask " + path
			file, done := p.NewLabel(), p.NewLabel()
			dir := b.openIn(what, path, unix.O_DIRECTORY, unix.ENOENT, unix.EACCES, unix.ENOTDIR).Else(file).Result()
			b.attach(what, b.cloneOf(what, empty), dir)
			p.Jump(done)
			p.Mark(file)
			node := b.openIn(what, path, 0, unix.ENOENT, unix.EACCES, unix.ENOTDIR).Else(done).Result()
			b.attach(what, b.cloneOf(what, null), node)
			p.Mark(done)
		}
	}
	for _, path := range b.spec.Linux.ReadonlyPaths {
		what := "make " + path + " read-only"
		done := p.NewLabel()
		at := b.openIn(what, path, 0, unix.ENOENT, unix.EACCES, unix.ENOTDIR).Else(done).Result()
		tree := p.Call(what, unix.SYS_OPEN_TREE, at, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE).Result()
		b.setattr(what, tree, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, true)
		b.attach(what, tree, at)
		b.closeReg(tree)
		p.Mark(done)
	}
}

// cloneOf returns a detached clone of the mount at fd; it is closed by the end of the program.
func (b *boot) cloneOf(what string, fd kernel.Reg) kernel.Reg {
	return b.prog.Call(what, unix.SYS_OPEN_TREE, fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Result()
}

// openIn opens below the new root without leaving it: symbolic links resolve inside, magic links do not at all.
func (b *boot) openIn(what, path string, flags uint64, allow ...unix.Errno) *kernel.Call {
	return b.openHow(what, b.rootReg, path, flags|unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS, 0, allow...)
}

func (b *boot) openHow(what string, dir any, path string, flags, resolve, mode uint64, allow ...unix.Errno) *kernel.Call {
	how := make([]byte, unix.SizeofOpenHow)
	putU64(how[0:], flags|unix.O_CLOEXEC)
	putU64(how[8:], mode)
	putU64(how[16:], resolve)
	return b.prog.Call(what, unix.SYS_OPENAT2, dir, path, how, len(how)).Allow(allow...)
}

// clean is the path as an absolute one below the root.
func clean(path string) string { return filepath.Clean("/" + path) }

// ordinaryDir opens a directory that must exist under its own name, or makes it.
func (b *boot) ordinaryDir(path string) kernel.Reg {
	p := b.prog
	what := path + " in the image must be an ordinary directory"
	const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS
	fd, missing, done := p.Register(), p.NewLabel(), p.NewLabel()
	b.openHow(what, b.rootReg, path, unix.O_PATH|unix.O_DIRECTORY, resolve, 0, unix.ENOENT).Else(missing).Into(fd)
	p.Jump(done)
	p.Mark(missing)
	p.Call("create "+path, unix.SYS_MKDIRAT, b.rootReg, strings.TrimPrefix(path, "/"), 0o755)
	b.openHow(what, b.rootReg, path, unix.O_PATH|unix.O_DIRECTORY, resolve, 0).Into(fd)
	p.Mark(done)
	return fd
}

// ensureDir opens the directory, making what is missing of it.
func (b *boot) ensureDir(path string) kernel.Reg {
	p := b.prog
	what := "open " + path
	fd, missing, done := p.Register(), p.NewLabel(), p.NewLabel()
	b.openIn(what, path, unix.O_DIRECTORY, unix.ENOENT).Else(missing).Into(fd)
	p.Jump(done)
	p.Mark(missing)
	b.makeDirs(path, fd)
	p.Mark(done)
	return fd
}

// makeDirs makes all directories of the path and leaves the last one, opened, in fd.
func (b *boot) makeDirs(path string, fd kernel.Reg) {
	parent := b.rootReg
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, name := range parts {
		what := "create directory /" + strings.Join(parts[:i+1], "/")
		b.prog.Call(what, unix.SYS_MKDIRAT, parent, name, 0o755).Allow(unix.EEXIST)
		b.openIn(what, "/"+strings.Join(parts[:i+1], "/"), unix.O_DIRECTORY).Into(fd)
		parent = fd
	}
}

// ensureFile opens the file, making it empty if it is missing.
func (b *boot) ensureFile(path string) kernel.Reg {
	p := b.prog
	what := "open " + path
	fd, missing, done := p.Register(), p.NewLabel(), p.NewLabel()
	b.openIn(what, path, 0, unix.ENOENT).Else(missing).Into(fd)
	p.Jump(done)
	p.Mark(missing)
	dir := b.rootReg
	if parent := filepath.Dir(path); parent != "/" {
		dir = b.ensureDir(parent)
	}
	tmp := b.openHow("create "+path, dir, filepath.Base(path), unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS, 0o644).Result()
	b.closeReg(tmp)
	b.openIn(what, path, 0).Into(fd)
	p.Mark(done)
	return fd
}
