// Package profile makes the seccomp profile of a container: Docker's default with Hull's hardening, or a file in
// Docker's format, resolved for a machine and a set of capabilities.
//
//	path, err := profile.File(root, profile.Options{Caps: bounding, Added: capAdd})
//
// It links Docker's profile, so it belongs into the engine; the lean runtime only loads what File has compiled.
package profile

import (
	"encoding/json"
	"slices"

	"hull/errdef"
	"hull/runtime/seccomp"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Options are the facts about a container that its profile depends on.
type Options struct {
	Caps  []string // bounding set, with the CAP_ prefix
	Added []string // capabilities somebody asked for by name (--cap-add), with the CAP_ prefix or ALL
	// Compat32 opens the 32-bit system calls of a 64-bit machine (i386 on amd64, arm on arm64). Set it when the
	// image is of such an architecture or contains a 32-bit loader.
	Compat32 bool
}

// Default returns the default profile for o on this machine. It is Docker's, with these differences:
//
//   - sockets: only the families UNIX, INET, INET6 and NETLINK, and PACKET when NET_RAW was added by name. Docker
//     denies two families and allows the other forty, most of them modules loaded on demand.
//   - x32 is closed, and the 32-bit calls are without Compat32: a call through int 0x80 fails with ENOSYS. With it
//     socketcall(2) makes no sockets, as its arguments are out of a filter's sight: programs that use socket(2)
//     (musl's, since Linux 4.3) do not notice, but those of glibc and Go for i386 are left without. Letting it
//     through would open every family to every container with that option.
func Default(o Options) (*specs.LinuxSeccomp, error) {
	m, err := host()
	if err != nil {
		return nil, err
	}
	return m.harden(moby.DefaultProfile(), o)
}

// Parse reads a profile in the format of docker run --security-opt seccomp=FILE and resolves it for o, as Docker
// would: what the person wrote is not hardened.
func Parse(text []byte, o Options) (*specs.LinuxSeccomp, error) {
	m, err := host()
	if err != nil {
		return nil, err
	}
	var p moby.Seccomp
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, errdef.Invalid("seccomp profile: %w", err)
	}
	return m.resolve(&p, o.Caps)
}

func (m machine) harden(p *moby.Seccomp, o Options) (*specs.LinuxSeccomp, error) {
	s, err := m.resolve(p, o.Caps)
	if err != nil {
		return nil, err
	}
	s.Architectures = slices.DeleteFunc(s.Architectures, func(a specs.Arch) bool {
		return a == specs.ArchX32 || a != m.arch && !o.Compat32
	})
	// The rules for these are ours; what is not named at all gets the default action, EPERM.
	ours := []string{"socket", "socketpair", "socketcall"}
	for i := range s.Syscalls {
		s.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(s.Syscalls[i].Names), func(name string) bool {
			return slices.Contains(ours, name)
		})
	}
	s.Syscalls = slices.DeleteFunc(s.Syscalls, func(c specs.LinuxSyscall) bool { return len(c.Names) == 0 })
	for _, f := range families(o) {
		s.Syscalls = append(s.Syscalls, intArg("socket", 0, f))
	}
	s.Syscalls = append(s.Syscalls, intArg("socketpair", 0, afUnix))
	for _, op := range []uint64{callSocket, callSocketpair} {
		closed := intArg("socketcall", 0, op)
		closed.Action, closed.ErrnoRet = specs.ActErrno, &enosys
		s.Syscalls = append(s.Syscalls, closed)
	}
	return s, nil
}

// Of linux/socket.h and linux/net.h.
const (
	afUnix, afInet, afInet6, afNetlink, afPacket = 1, 2, 10, 16, 17

	callSocket, callSocketpair = 1, 8
)

var enosys uint = 38

func families(o Options) []uint64 {
	list := []uint64{afUnix, afInet, afInet6, afNetlink}
	if slices.Contains(o.Caps, "CAP_NET_RAW") && (slices.Contains(o.Added, "CAP_NET_RAW") || slices.Contains(o.Added, "ALL")) {
		list = append(list, afPacket)
	}
	return list
}

// intArg allows a call when its argument, an int, has the value. The kernel ignores the upper half of the register.
func intArg(call string, index uint, value uint64) specs.LinuxSyscall {
	return specs.LinuxSyscall{
		Names:  []string{call},
		Action: specs.ActAllow,
		Args:   []specs.LinuxSeccompArg{{Index: index, Value: 0xffffffff, ValueTwo: value, Op: specs.OpMaskedEqual}},
	}
}

// compiled returns the default profile for o as the bytes the kernel reads.
func (m machine) compiled(o Options) ([]byte, error) {
	s, err := m.harden(moby.DefaultProfile(), o)
	if err != nil {
		return nil, err
	}
	p, _, err := seccomp.CompileFor(s, m.arch) // its warnings are about calls of other architectures
	if err != nil {
		return nil, err
	}
	return p.Bytes(), nil
}
