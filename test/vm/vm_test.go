package vm

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestGuest checks that the guest is the machine the other tests there expect.
func TestGuest(t *testing.T) {
	if os.Getenv("HULL_TEST_VM") == "" {
		t.Skip("not in the guest of make test-vm")
	}
	for file, want := range map[string]string{
		"/sys/fs/cgroup/cgroup.controllers":       "memory",
		"/sys/fs/cgroup/cgroup.subtree_control":   "pids",
		"/sys/kernel/security/lsm":                "apparmor",
		"/sys/module/apparmor/parameters/enabled": "Y",
		"/proc/filesystems":                       "overlay",
		"/proc/self/mountinfo":                    " / / rw",
	} {
		got, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: want %q in it, got %q, %v", file, want, got, err)
		}
	}
}

// TestScripts keeps the shell of this directory free of syntax errors on machines that never boot the guest.
func TestScripts(t *testing.T) {
	if os.Getenv("HULL_TEST_VM") != "" {
		t.Skip("checked on the host")
	}
	for _, file := range []string{"init", "guest", "run"} {
		if out, err := exec.Command("bash", "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}
