package runtime

import (
	"fmt"
	"os"

	"hull/errdef"
	"hull/kernel"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cloneFlag of a namespace type of the runtime-spec; 0 if there is no such type.
func cloneFlag(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME
	}
	return 0
}

// joined is a namespace that exists already.
type joined struct {
	flag uint64
	fd   int
	path string
}

// openNamespaces sorts the namespaces into new ones and ones to join, and makes the user namespace: the mounts of the
// container are id-mapped by it before the container exists.
func (b *boot) openNamespaces() error {
	for _, ns := range b.spec.Linux.Namespaces {
		flag := cloneFlag(ns.Type)
		if (b.newNS|b.joinNS)&flag != 0 {
			return errdef.Invalid("namespace %q is listed twice", ns.Type)
		}
		if ns.Path == "" {
			b.newNS |= flag
			continue
		}
		fd, err := b.open(ns.Path, unix.O_RDONLY)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", ns.Type, err)
		}
		kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
		if err != nil || uint64(kind) != flag {
			return errdef.Invalid("%s is not a %s namespace", ns.Path, ns.Type)
		}
		b.joinNS |= flag
		b.joins = append(b.joins, joined{flag, fd, ns.Path})
	}
	if b.cfg.Link != nil && b.newNS&unix.CLONE_NEWNET == 0 {
		return errdef.Invalid("a container with a link needs a network namespace of its own")
	}
	if b.newNS&unix.CLONE_NEWNS == 0 && b.joinNS&unix.CLONE_NEWNS == 0 {
		return errdef.Invalid("a container needs a mount namespace of its own")
	}
	switch {
	case b.newNS&unix.CLONE_NEWUSER != 0 && b.cfg.Link != nil:
		// The network namespace belongs to the user namespace, and is needed before the container exists.
		user, net, err := kernel.NewUserNetNS(idMaps(b.spec.Linux.UIDMappings), idMaps(b.spec.Linux.GIDMappings))
		if err != nil {
			return err
		}
		b.userns = user
		b.files = append(b.files, user)
		b.enterNet(net)
	case b.newNS&unix.CLONE_NEWUSER != 0:
		ns, err := kernel.NewUserNS(idMaps(b.spec.Linux.UIDMappings), idMaps(b.spec.Linux.GIDMappings))
		if err != nil {
			return err
		}
		b.userns = ns
		b.files = append(b.files, ns)
	case b.cfg.Link != nil:
		net, err := kernel.NewNetNS()
		if err != nil {
			return err
		}
		b.enterNet(net)
	case b.joinNS&unix.CLONE_NEWUSER != 0:
		for _, j := range b.joins {
			if j.flag == unix.CLONE_NEWUSER {
				// A second descriptor: the os.File owns its own.
				fd, err := unix.FcntlInt(uintptr(j.fd), unix.F_DUPFD_CLOEXEC, 3)
				if err != nil {
					return err
				}
				b.userns = os.NewFile(uintptr(fd), j.path)
				b.files = append(b.files, b.userns)
			}
		}
	}
	b.rootless = os.Geteuid() != 0
	return nil
}

// enterNet makes the new network namespace one to join.
func (b *boot) enterNet(net *os.File) {
	b.files = append(b.files, net)
	b.newNS &^= unix.CLONE_NEWNET
	b.joinNS |= unix.CLONE_NEWNET
	b.joins = append(b.joins, joined{unix.CLONE_NEWNET, int(net.Fd()), "network"})
	b.net = net
}

func idMaps(m []specs.LinuxIDMapping) []kernel.IDMap {
	out := make([]kernel.IDMap, len(m))
	for i, l := range m {
		out[i] = kernel.IDMap{Inside: l.ContainerID, Outside: l.HostID, Size: l.Size}
	}
	return out
}

// outside is the host's id for id in the container.
func outside(m []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, l := range m {
		if id >= l.ContainerID && id-l.ContainerID < l.Size {
			return l.HostID + id - l.ContainerID, true
		}
	}
	return 0, len(m) == 0
}

// enterNamespaces is the part of stage 1 that leaves the host.
func (b *boot) enterNamespaces() {
	p := b.prog
	for _, j := range b.joins {
		if j.flag != unix.CLONE_NEWUSER {
			p.Call("join namespace "+j.path, unix.SYS_SETNS, j.fd, uint64(j.flag))
		}
	}
	if off := b.spec.Linux.TimeOffsets; len(off) > 0 && b.newNS&unix.CLONE_NEWTIME != 0 {
		b.unshareTime()
		text := ""
		for clock, o := range off {
			text += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
		b.writeProc("time offsets", "/proc/self/timens_offsets", text)
	}
	if b.userns != nil {
		p.Call("join user namespace", unix.SYS_SETNS, int(b.userns.Fd()), unix.CLONE_NEWUSER)
		b.becomeRoot()
	}
	if len(b.spec.Linux.TimeOffsets) == 0 && b.newNS&unix.CLONE_NEWTIME != 0 {
		b.unshareTime()
	}
}

// unshareTime prepares the time namespace of the children; the caller itself stays outside.
func (b *boot) unshareTime() {
	b.prog.Call("create time namespace", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
}

// becomeRoot takes the ids of the container's root. Where setgroups is denied the groups stay: they are the user's own.
func (b *boot) becomeRoot() {
	p := b.prog
	if !b.setgroupsDenied() {
		p.Call("drop groups", unix.SYS_SETGROUPS, 0, 0)
	}
	p.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
}

func (b *boot) setgroupsDenied() bool {
	return b.rootless && len(b.spec.Linux.GIDMappings) == 1 && b.spec.Linux.GIDMappings[0].Size == 1
}
