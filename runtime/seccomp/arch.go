package seccomp

import (
	"cmp"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run mktable.go

// The columns of table.
const (
	colAMD64 = iota
	colX32
	col386
	colARM64
	colARM
	colRISCV64
	colLOONG64
	colS390X
	colPPC64
	colPPC
	colMIPS64
	colMIPS
	columns
)

type row struct {
	name string
	nr   [columns]int16
}

// arch is one system call interface: a set of numbers under one AUDIT_ARCH value.
type arch struct {
	name   specs.Arch
	goarch string // the port whose native interface it is
	audit  uint32 // struct seccomp_data.arch
	bits   uint32 // set in every number: x32 shares its AUDIT_ARCH with x86_64
	column int
	wide   bool // arguments are 64 bits
	big    bool // big-endian: the high word of an argument comes first
	mux    bool // has socketcall and ipc, the doors with the call's number in an argument
}

// x32Bit marks a number of the x32 interface, see linux/arch/x86/include/uapi/asm/unistd.h.
const x32Bit = 0x40000000

// Not here: S390 (31 bit), MIPS n32, PARISC, M68K, SH. Nobody's table covers them, and no kernel we run on offers them.
var arches = [...]arch{
	{specs.ArchX86_64, "amd64", unix.AUDIT_ARCH_X86_64, 0, colAMD64, true, false, false},
	{specs.ArchX32, "", unix.AUDIT_ARCH_X86_64, x32Bit, colX32, false, false, false},
	{specs.ArchX86, "386", unix.AUDIT_ARCH_I386, 0, col386, false, false, true},
	{specs.ArchAARCH64, "arm64", unix.AUDIT_ARCH_AARCH64, 0, colARM64, true, false, false},
	{specs.ArchARM, "arm", unix.AUDIT_ARCH_ARM, 0, colARM, false, false, false},
	{specs.ArchRISCV64, "riscv64", unix.AUDIT_ARCH_RISCV64, 0, colRISCV64, true, false, false},
	{specs.ArchLOONGARCH64, "loong64", unix.AUDIT_ARCH_LOONGARCH64, 0, colLOONG64, true, false, false},
	{specs.ArchS390X, "s390x", unix.AUDIT_ARCH_S390X, 0, colS390X, true, true, true},
	{specs.ArchPPC64LE, "ppc64le", unix.AUDIT_ARCH_PPC64LE, 0, colPPC64, true, false, true},
	{specs.ArchPPC64, "ppc64", unix.AUDIT_ARCH_PPC64, 0, colPPC64, true, true, true},
	{specs.ArchPPC, "ppc", unix.AUDIT_ARCH_PPC, 0, colPPC, false, true, true},
	{specs.ArchMIPSEL64, "mips64le", unix.AUDIT_ARCH_MIPSEL64, 0, colMIPS64, true, false, false},
	{specs.ArchMIPS64, "mips64", unix.AUDIT_ARCH_MIPS64, 0, colMIPS64, true, true, false},
	{specs.ArchMIPSEL, "mipsle", unix.AUDIT_ARCH_MIPSEL, 0, colMIPS, false, false, true},
	{specs.ArchMIPS, "mips", unix.AUDIT_ARCH_MIPS, 0, colMIPS, false, true, true},
}

func findArch(name specs.Arch) *arch {
	for i := range arches {
		if arches[i].name == name {
			return &arches[i]
		}
	}
	return nil
}

// Native is the architecture this program was built for.
func Native() specs.Arch {
	for i := range arches {
		if arches[i].goarch == runtime.GOARCH {
			return arches[i].name
		}
	}
	return ""
}

// The calls of 32-bit ARM outside the common numbers, see linux/arch/arm/include/uapi/asm/unistd.h.
const armPrivate = 0x0f0000

var armCalls = [...]struct {
	name string
	nr   uint32
}{
	{"breakpoint", armPrivate + 1}, {"cacheflush", armPrivate + 2}, {"usr26", armPrivate + 3},
	{"usr32", armPrivate + 4}, {"set_tls", armPrivate + 5}, {"get_tls", armPrivate + 6},
}

// number returns the number of the call on a, as seccomp_data.nr shows it.
func (a *arch) number(call string) (nr uint32, ok bool) {
	if a.column == colARM {
		for _, c := range armCalls {
			if c.name == call {
				return c.nr, true
			}
		}
	}
	i, ok := slices.BinarySearchFunc(table[:], call, func(r row, name string) int { return cmp.Compare(r.name, name) })
	if !ok || table[i].nr[a.column] < 0 {
		return 0, false
	}
	return uint32(table[i].nr[a.column]) | a.bits, true
}

// numbers returns all numbers of a in ascending order, each once.
func (a *arch) numbers() []uint32 {
	list := make([]uint32, 0, len(table))
	for i := range table {
		if nr := table[i].nr[a.column]; nr >= 0 {
			list = append(list, uint32(nr)|a.bits)
		}
	}
	if a.column == colARM {
		for _, c := range armCalls {
			list = append(list, c.nr)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Name returns the name of a system call: audit and nr are those of struct seccomp_data.
func Name(audit, nr uint32) (name string, ok bool) {
	for i := range arches {
		a := &arches[i]
		if a.audit != audit || a.bits == x32Bit != (audit == unix.AUDIT_ARCH_X86_64 && nr >= x32Bit) {
			continue
		}
		for _, c := range armCalls {
			if a.column == colARM && c.nr == nr {
				return c.name, true
			}
		}
		for j := range table {
			if n := table[j].nr[a.column]; n >= 0 && uint32(n)|a.bits == nr {
				return table[j].name, true
			}
		}
	}
	return "", false
}

// known tells whether any architecture has a call of that name.
func known(call string) bool {
	for i := range arches {
		if _, ok := arches[i].number(call); ok {
			return true
		}
	}
	return false
}

// The multiplexers' first argument for each call they carry: linux/net.h and linux/ipc.h.
var socketCalls = [...]string{
	1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
	"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
}

var ipcCalls = [...]string{
	1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget", 14: "msgctl",
	21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
}

// muxed returns the multiplexer that also carries the call on a, and the condition that tells it there.
// The kernel takes the operation as an int, and of ipc's only the low 16 bits.
func (a *arch) muxed(call string) (door string, cond specs.LinuxSeccompArg, ok bool) {
	if !a.mux || call == "" {
		return "", cond, false
	}
	if i := slices.Index(socketCalls[:], call); i > 0 {
		return "socketcall", specs.LinuxSeccompArg{Value: 0xffffffff, ValueTwo: uint64(i), Op: specs.OpMaskedEqual}, true
	}
	if i := slices.Index(ipcCalls[:], call); i > 0 {
		return "ipc", specs.LinuxSeccompArg{Value: 0xffff, ValueTwo: uint64(i), Op: specs.OpMaskedEqual}, true
	}
	return "", cond, false
}
