package profile

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"hull/runtime/seccomp"
	"hull/runtime/seccomp/seccomptest"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// BenchmarkLoad is seccomp(2) alone: the kernel checks and compiles the filter and runs it for every call number,
// to know which it may always let through. That makes a list of comparisons quadratic.
// BenchmarkLoad/list is what a straightforward compiler makes of the same profile.
func BenchmarkLoad(b *testing.B) {
	m, err := host()
	if err != nil {
		b.Fatal(err)
	}
	for _, compat := range []bool{false, true} {
		s, err := m.harden(moby.DefaultProfile(), Options{Caps: dockerCaps, Compat32: compat})
		if err != nil {
			b.Fatal(err)
		}
		p, _, err := seccomp.Compile(s)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("tree/compat32=%v", compat), func(b *testing.B) { benchmarkLoad(b, p.Filter) })
		b.Run(fmt.Sprintf("list/compat32=%v", compat), func(b *testing.B) { benchmarkLoad(b, asList(b, p.Filter, compat)) })
	}
}

// benchmarkLoad gives each filter a thread of its own, which ends with its goroutine.
func benchmarkLoad(b *testing.B, filter []unix.SockFilter) {
	if unix.Geteuid() != 0 {
		b.Skip("loading a filter without no_new_privs needs root")
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	var took time.Duration
	var wg sync.WaitGroup
	for b.Loop() {
		wg.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread dies with its filter
			start := time.Now()
			_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
			took += time.Since(start)
			if errno != 0 {
				b.Error(errno)
			}
		})
		wg.Wait()
	}
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "µs/load")
	b.ReportMetric(float64(len(filter)), "insns")
}

// asList rewrites a filter as a list of comparisons, one for each allowed call.
func asList(b *testing.B, tree []unix.SockFilter, compat bool) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	list := []unix.SockFilter{load(4)}
	audits := []uint32{auditOf(seccomp.Native())}
	if compat {
		audits = append(audits, unix.AUDIT_ARCH_I386)
	}
	for _, audit := range audits {
		part := []unix.SockFilter{load(0)}
		for nr := range uint32(600) {
			v, err := seccomptest.Run(tree, seccomptest.Data{Nr: nr, Arch: audit})
			if err != nil {
				b.Fatal(err)
			}
			if v == unix.SECCOMP_RET_ALLOW {
				part = append(part, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr}, ret(v))
			}
		}
		part = append(part, ret(unix.SECCOMP_RET_ERRNO|1))
		list = append(list, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: audit},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(part))})
		list = append(list, part...)
	}
	return append(list, ret(unix.SECCOMP_RET_ERRNO|38))
}

func auditOf(a specs.Arch) uint32 {
	if a == specs.ArchAARCH64 {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

// BenchmarkFile is the hot path of run: the file is there.
func BenchmarkFile(b *testing.B) {
	root := b.TempDir()
	o := Options{Caps: dockerCaps}
	if _, err := File(root, o); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := File(root, o); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBuild is the first run on a machine.
func BenchmarkBuild(b *testing.B) {
	m, err := host()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := m.compiled(Options{Caps: dockerCaps, Compat32: true}); err != nil {
			b.Fatal(err)
		}
	}
}
