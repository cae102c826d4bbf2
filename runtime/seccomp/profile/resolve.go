package profile

import (
	"slices"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/runtime/seccomp"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// machine is what a profile's conditions are about, beside the capabilities.
type machine struct {
	arch   specs.Arch
	kernel [2]uint64 // 6, 18
}

// host is the machine we run on.
func host() (machine, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return machine{}, err
	}
	kernel, err := parseRelease(unix.ByteSliceToString(u.Release[:]))
	return machine{seccomp.Native(), kernel}, err
}

// parseRelease reads the first two numbers of uname's release: "6.18.44-fc", "5.10-rc1", "6.1+".
func parseRelease(release string) (v [2]uint64, err error) {
	rest := release
	for i := range v {
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(rest)
		}
		if v[i], err = strconv.ParseUint(rest[:end], 10, 32); err != nil {
			return v, errdef.Unavailable("kernel release %q: %w", release, err)
		}
		if rest = rest[end:]; i == 0 {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, "."); !ok {
				return v, errdef.Unavailable("kernel release %q has no minor number", release)
			}
		}
	}
	return v, nil
}

// dockerName is what profiles call an architecture in their conditions: libseccomp's names.
func dockerName(a specs.Arch) string {
	switch a {
	case specs.ArchX86_64:
		return "amd64"
	case specs.ArchAARCH64:
		return "arm64"
	case specs.ArchLOONGARCH64:
		return "loongarch64"
	}
	return strings.ToLower(strings.TrimPrefix(string(a), "SCMP_ARCH_"))
}

// resolve drops what does not concern this machine and these capabilities. The result shares nothing with p that is changed.
func (m machine) resolve(p *moby.Seccomp, caps []string) (*specs.LinuxSeccomp, error) {
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return nil, errdef.Invalid("seccomp profile: use either 'architectures' or 'archMap', not both")
	}
	s := p.LinuxSeccomp
	s.Syscalls = nil
	s.Architectures = slices.Clone(s.Architectures)
	for _, a := range p.ArchMap {
		if a.Arch == m.arch {
			s.Architectures = append([]specs.Arch{a.Arch}, a.SubArches...)
			break
		}
	}
	for _, call := range p.Syscalls {
		if call == nil {
			return nil, errdef.Invalid("seccomp profile: an entry of 'syscalls' is null")
		}
		rule := call.LinuxSyscall
		if call.Name != "" {
			if len(call.Names) > 0 {
				return nil, errdef.Invalid("seccomp profile: use either 'name' or 'names', not both")
			}
			rule.Names = []string{call.Name}
		}
		if m.included(call.Includes, caps) && !m.excluded(call.Excludes, caps) {
			s.Syscalls = append(s.Syscalls, rule)
		}
	}
	return &s, nil
}

// included: all the named capabilities, any of the architectures, at least the kernel.
func (m machine) included(f *moby.Filter, caps []string) bool {
	if f == nil {
		return true
	}
	for _, c := range f.Caps {
		if !slices.Contains(caps, c) {
			return false
		}
	}
	return (len(f.Arches) == 0 || slices.Contains(f.Arches, dockerName(m.arch))) &&
		(f.MinKernel == nil || m.atLeast(f.MinKernel))
}

// excluded: any of it.
func (m machine) excluded(f *moby.Filter, caps []string) bool {
	if f == nil {
		return false
	}
	return slices.ContainsFunc(f.Caps, func(c string) bool { return slices.Contains(caps, c) }) ||
		slices.Contains(f.Arches, dockerName(m.arch)) ||
		f.MinKernel != nil && m.atLeast(f.MinKernel)
}

func (m machine) atLeast(v *moby.KernelVersion) bool {
	return slices.Compare(m.kernel[:], []uint64{v.Kernel, v.Major}) >= 0
}
