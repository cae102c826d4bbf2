package seccomp_test

import (
	"encoding/json"
	"errors"
	"testing"

	"hull/errdef"
	"hull/runtime/seccomp"
	"hull/runtime/seccomp/seccomptest"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Any JSON is refused as invalid, or compiles to a program that ends with a verdict for any call.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X32","SCMP_ARCH_X86"],"flags":["SECCOMP_FILTER_FLAG_LOG"]}`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket","bind","ipc"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}]}`,
		`{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"},{"index":5,"value":18446744073709551615,"op":"SCMP_CMP_GT"}]}]}`,
		`{"defaultAction":"SCMP_ACT_TRAP","architectures":["SCMP_ARCH_S390X","SCMP_ARCH_ARM","SCMP_ARCH_MIPS64N32"],"syscalls":[{"names":["set_tls","read"],"action":"SCMP_ACT_NOTIFY"}]}`,
	} {
		f.Add([]byte(seed), uint32(41), uint64(40))
	}
	f.Fuzz(func(t *testing.T, text []byte, nr uint32, arg uint64) {
		var s specs.LinuxSeccomp
		if json.Unmarshal(text, &s) != nil {
			return
		}
		p, _, err := seccomp.CompileFor(&s, specs.ArchX86_64)
		if err != nil {
			if !errors.Is(err, errdef.ErrInvalid) {
				t.Fatalf("%v is not of the kind invalid", err)
			}
			return
		}
		if len(p.Filter) == 0 || len(p.Filter) > unix.BPF_MAXINSNS || p.Filter[len(p.Filter)-1].Code != unix.BPF_RET|unix.BPF_K {
			t.Fatalf("%d instructions that the kernel does not load", len(p.Filter))
		}
		for _, audit := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, 0} {
			for _, n := range []uint32{nr, nr % 600, nr%600 | 0x40000000} {
				if _, err := seccomptest.Run(p.Filter, seccomptest.Data{Nr: n, Arch: audit, Args: [6]uint64{arg, arg, 0, 0, 0, arg}}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
