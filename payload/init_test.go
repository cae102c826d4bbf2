package payload

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// initFile puts the init where it can be executed.
func initFile(t *testing.T) string {
	t.Helper()
	if len(Init()) == 0 {
		t.Skip("no init for this architecture")
	}
	name := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(name, Init(), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInitStatus(t *testing.T) {
	name := initFile(t)
	for _, c := range []struct {
		script string
		code   int
		out    string
	}{
		{"echo $0 $1; exit 7", 7, "me too\n"},
		{"exit 255", 255, ""},
		{"kill -9 $$", 137, ""},
		{"kill -TERM $$", 143, ""},
		// what is left to somebody else does not decide
		{"(sleep 0.05; exit 3) & exit 4", 4, ""},
	} {
		cmd := exec.Command(name, "/bin/sh", "sh", "-c", c.script, "me", "too")
		out, _ := cmd.Output()
		if got := cmd.ProcessState.ExitCode(); got != c.code || string(out) != c.out {
			t.Errorf("%s: want %d and %q, got %d and %q", c.script, c.code, c.out, got, out)
		}
	}
	for path, want := range map[string]int{"/nowhere": 127, "/etc/passwd": 126} {
		cmd := exec.Command(name, path, "x")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != want || string(out) != "init: cannot run the command\n" {
			t.Errorf("%s: want %d, got %v: %q", path, want, cmd.ProcessState, out)
		}
	}
}

// TestInitAsFirst: process 1 of a pid namespace gets orphans, and signals of its parents.
func TestInitAsFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a pid namespace")
	}
	name := initFile(t)
	cmd := exec.Command(name, "/bin/sh", "sh", "-c",
		`trap 'echo hup' HUP; trap 'echo term; exit 5' TERM; (sh -c 'sleep 0.1 & exit') ; echo ready; while :; do sleep 0.05; done`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	var out bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	wait := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		for !strings.Contains(out.String(), want) {
			_ = r.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := r.Read(buf)
			if out.Write(buf[:n]); err != nil {
				t.Fatalf("waiting for %q, got %q, %v", want, out.String(), err)
			}
		}
	}
	wait("ready\n")
	zombies := func() int {
		ps, _ := exec.Command("ps", "-o", "stat=", "--ppid", strconv.Itoa(cmd.Process.Pid)).Output()
		return strings.Count(string(ps), "Z")
	}
	for end := time.Now().Add(10 * time.Second); zombies() > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if n := zombies(); n != 0 {
		t.Errorf("%d zombies stay", n)
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	wait("hup\n")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	wait("term\n")
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("want 5, got %v", cmd.ProcessState)
	}
}
