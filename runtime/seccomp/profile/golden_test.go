package profile

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"hull/runtime/seccomp"
	"hull/runtime/seccomp/seccomptest"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite testdata/verdicts.txt")

// testdata/verdicts.txt is the default profile as a person reviews it: which call of which interface is refused, and how.
func TestVerdicts(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# The default seccomp profile: what is refused. Written by go test -update; review every line of a change.")
	fmt.Fprintln(&out, "# Not listed: allowed. \"by arguments\": allowed with some arguments, see the lines below it.")
	kernel := [2]uint64{6, 18}
	for _, c := range []struct {
		name string
		m    machine
		o    Options
	}{
		{"amd64", machine{specs.ArchX86_64, kernel}, Options{Caps: dockerCaps}},
		{"amd64, image with a 32-bit loader", machine{specs.ArchX86_64, kernel}, Options{Caps: dockerCaps, Compat32: true}},
		{"amd64, --cap-add NET_RAW", machine{specs.ArchX86_64, kernel}, Options{Caps: dockerCaps, Added: []string{"CAP_NET_RAW"}}},
		{"amd64, --cap-add SYS_ADMIN", machine{specs.ArchX86_64, kernel}, Options{Caps: append(slices.Clone(dockerCaps), "CAP_SYS_ADMIN")}},
		{"amd64, --cap-add ALL", machine{specs.ArchX86_64, kernel}, Options{Caps: append(relevant[:], "CAP_NET_RAW"), Added: []string{"ALL"}}},
		{"arm64", machine{specs.ArchAARCH64, kernel}, Options{Caps: dockerCaps}},
		{"arm64, image with a 32-bit loader", machine{specs.ArchAARCH64, kernel}, Options{Caps: dockerCaps, Compat32: true}},
	} {
		s, err := c.m.harden(moby.DefaultProfile(), c.o)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := seccomp.CompileFor(s, c.m.arch)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "\n== %s (%d instructions)\n", c.name, len(p.Filter))
		for _, face := range faces(c.m.arch) {
			face.describe(t, &out, p)
		}
	}
	const file = "testdata/verdicts.txt"
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Bytes(); !bytes.Equal(got, want) {
		g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("line %d: %q, want %q (go test -update, then review)", i+1, g[i], w[i])
			}
		}
		t.Fatalf("%d lines, want %d", len(g), len(w))
	}
}

// face is a system call interface of a machine.
type face struct {
	name  string
	audit uint32
	first uint32
}

func faces(native specs.Arch) []face {
	if native == specs.ArchX86_64 {
		return []face{{"x86_64", unix.AUDIT_ARCH_X86_64, 0}, {"x32", unix.AUDIT_ARCH_X86_64, 0x40000000}, {"i386", unix.AUDIT_ARCH_I386, 0}}
	}
	return []face{{"aarch64", unix.AUDIT_ARCH_AARCH64, 0}, {"arm", unix.AUDIT_ARCH_ARM, 0}, {"arm private", unix.AUDIT_ARCH_ARM, 0x0f0000}}
}

func (f face) describe(t *testing.T, out *bytes.Buffer, p *seccomp.Program) {
	verdict := func(nr uint32, args [6]uint64) string {
		ret, err := seccomptest.Run(p.Filter, seccomptest.Data{Nr: nr, Arch: f.audit, Args: args})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case ret == unix.SECCOMP_RET_ALLOW:
			return "allow"
		case ret&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO:
			return unix.ErrnoName(unix.Errno(ret & unix.SECCOMP_RET_DATA))
		}
		return fmt.Sprintf("%#x", ret)
	}
	refused := map[string][]string{}
	var byArgs []string
	calls, holes := 0, map[string]int{}
	for nr := f.first; nr < f.first+1000; nr++ {
		name, ok := seccomp.Name(f.audit, nr)
		if !ok {
			holes[verdict(nr, [6]uint64{})]++
			continue
		}
		calls++
		seen := map[string][]uint64{}
		for _, v := range samples() {
			got := verdict(nr, [6]uint64{v, v})
			seen[got] = append(seen[got], v)
		}
		switch {
		case len(seen) > 1:
			byArgs = append(byArgs, fmt.Sprintf("%s: allowed of the sample %s", name, runs(seen["allow"])))
			for v, list := range seen {
				if v != "allow" && v != "EPERM" {
					byArgs = append(byArgs, fmt.Sprintf("%s: %s for %s", name, v, runs(list)))
				}
			}
		case seen["allow"] == nil:
			v := verdict(nr, [6]uint64{})
			refused[v] = append(refused[v], name)
		}
	}
	fmt.Fprintf(out, "-- %s: numbers that are no call: %v\n", f.name, holes)
	for _, v := range []string{"EPERM", "ENOSYS"} {
		switch list := refused[v]; {
		case len(list) == calls:
			fmt.Fprintf(out, "%s: every call\n", v)
		case len(list) > 0:
			slices.Sort(list)
			fmt.Fprintf(out, "%s: %s\n", v, strings.Join(list, " "))
		}
		delete(refused, v)
	}
	if len(refused) > 0 {
		t.Errorf("%s: other verdicts: %v", f.name, refused)
	}
	slices.Sort(byArgs)
	for _, line := range byArgs {
		fmt.Fprintf(out, "by arguments: %s\n", line)
	}
}

// samples are values of first and second arguments at once: socket families, operations of the multiplexers,
// personalities, clone flags.
func samples() []uint64 {
	var list []uint64
	for v := range uint64(48) {
		list = append(list, v)
	}
	return append(list,
		unix.CLONE_NEWCGROUP, unix.CLONE_NEWIPC, unix.CLONE_NEWNET, unix.CLONE_NEWNS, unix.CLONE_NEWPID, unix.CLONE_NEWUSER,
		unix.CLONE_NEWUTS, unix.CLONE_VM, unix.CLONE_THREAD, 0x20008, 0xffffffff, 1<<32, 1<<32|unix.AF_UNIX, 1<<32|unix.AF_VSOCK)
}

// runs writes 1 2 3 8 as "0x1-0x3 0x8".
func runs(list []uint64) string {
	var words []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if words = append(words, fmt.Sprintf("%#x", list[i])); j > i {
			words[len(words)-1] += fmt.Sprintf("-%#x", list[j])
		}
		i = j + 1
	}
	return strings.Join(words, " ")
}
