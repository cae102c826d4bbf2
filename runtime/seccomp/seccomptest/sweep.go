package seccomptest

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Question is a system call whose verdict is asked, of the kernel and of our interpreter.
type Question struct {
	ABI    string
	Nr     uint32
	A0, A1 uint64
}

func (q Question) String() string { return fmt.Sprintf("%s %d %#x %#x", q.ABI, q.Nr, q.A0, q.A1) }

// Data is what a filter sees of the call.
func (q Question) Data() Data {
	d := Data{Nr: q.Nr, Arch: unix.AUDIT_ARCH_X86_64, Args: [6]uint64{q.A0, q.A1}}
	switch q.ABI {
	case "32":
		d.Arch = unix.AUDIT_ARCH_I386
	case "x32":
		d.Nr |= 0x40000000
	}
	return d
}

// Questions are every number up to 600 on all interfaces of an amd64 kernel, and the calls judged by arguments in detail.
func Questions() []Question {
	var list []Question
	for _, abi := range []string{"64", "x32", "32"} {
		for nr := range uint32(601) {
			if nr == 335 || nr == 336 {
				continue // uretprobe and uprobe: since Linux 6.14 no filter sees them, and a stray one is SIGILL
			}
			list = append(list, Question{abi, nr, 0, 0})
		}
	}
	for family := range uint64(48) {
		for _, high := range []uint64{0, 1 << 32} {
			list = append(list, Question{"64", unix.SYS_SOCKET, family | high, 1})
		}
		list = append(list, Question{"64", unix.SYS_SOCKETPAIR, family, 1}, Question{"x32", unix.SYS_SOCKET, family, 1},
			Question{"32", 359, family, 1}, Question{"32", 360, family, 1}, Question{"32", 102, family, 0})
	}
	for bit := range 64 {
		list = append(list, Question{"64", unix.SYS_CLONE, 1 << bit, 0}, Question{"64", unix.SYS_PERSONALITY, 1 << bit, 0})
		if bit < 32 {
			list = append(list, Question{"32", 120, 1 << bit, 0}, Question{"32", 136, 1 << bit, 0})
		}
	}
	for _, persona := range []uint64{8, 0x20000, 0x20008, 0xffffffff, 0xffffffffffffffff} {
		list = append(list, Question{"64", unix.SYS_PERSONALITY, persona, 0})
	}
	return list
}

//go:embed testdata/sweep.c
var sweepSource []byte

// Sweep builds sweep.c and returns the program. It skips t where the inline assembly of it or a compiler is missing.
func Sweep(t testing.TB) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the sweep makes system calls of amd64")
	}
	if ready := filepath.Join(os.Getenv("HULL_TEST_BIN"), "sweep"); exists(ready) {
		return ready // the guest of make test-vm has no compiler
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not installed")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "sweep")
	if err := os.WriteFile(program+".c", sweepSource, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-O1", "-Wall", "-Werror", "-static", "-o", program, program+".c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Ask runs cmd, a sweep, and returns its answers.
func Ask(t testing.TB, cmd *exec.Cmd, list []Question) map[Question]string {
	t.Helper()
	var in, diag bytes.Buffer
	for _, q := range list {
		fmt.Fprintln(&in, q)
	}
	cmd.Stdin, cmd.Stderr = &in, &diag
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Path, err, diag.Bytes())
	}
	answers := map[Question]string{}
	for line := range strings.Lines(string(out)) {
		var q Question
		var verdict string
		if _, err := fmt.Sscanf(line, "%s %d %v %v %s", &q.ABI, &q.Nr, &q.A0, &q.A1, &verdict); err != nil {
			t.Fatalf("answer %q: %v", line, err)
		}
		answers[q] = verdict
	}
	for _, q := range list {
		if answers[q] == "" {
			t.Fatalf("no answer to %s", q)
		}
	}
	return answers
}

// Answer is what the filter says in the words of Ask.
func Answer(t testing.TB, filter []unix.SockFilter, q Question) string {
	t.Helper()
	ret, err := Run(filter, q.Data())
	if err != nil {
		t.Fatal(err)
	}
	switch ret & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW:
		return "allow"
	case unix.SECCOMP_RET_ERRNO:
		return fmt.Sprint(ret & unix.SECCOMP_RET_DATA)
	}
	return fmt.Sprintf("%#x", ret)
}
