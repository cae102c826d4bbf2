package integration

import (
	"os/exec"
	"strings"
	"testing"

	"hull/test/rig"
)

// profile denies one file that Unix permissions allow.
const profile = `
profile hull-test-profile flags=(attach_disconnected,mediate_deleted) {
	file,
	capability,
	network,
	signal,
	ptrace,
	deny /etc/passwd r,
}
`

// TestAppArmor confines a container and an exec in it by a loaded profile, and refuses one that is not loaded.
func TestAppArmor(t *testing.T) {
	rig.Root(t)
	parser := rig.Tool(t, "apparmor_parser")
	load := exec.Command(parser, "--replace", "--skip-cache")
	load.Stdin = strings.NewReader(profile)
	if out, err := load.CombinedOutput(); err != nil {
		t.Skipf("this kernel takes no AppArmor profile: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		remove := exec.Command(parser, "--remove")
		remove.Stdin = strings.NewReader(profile)
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("remove the profile: %v\n%s", err, out)
		}
	})
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "confined", "--network", "none", "--security-opt", "apparmor=hull-test-profile", "busybox", "sleep", "10000")
	if got := h.Must(t, "exec", "confined", "cat", "/proc/1/attr/current", "/proc/self/attr/current"); strings.Count(got, "hull-test-profile (enforce)") != 2 {
		t.Errorf("want the profile on the container and on its exec, got %q", got)
	}
	if r := h.Run(t, "exec", "confined", "cat", "/etc/passwd"); r.Code == 0 || !strings.Contains(r.Stderr, "Permission denied") {
		t.Errorf("what the profile denies was read: %+v", r)
	}
	h.Must(t, "rm", "-f", "confined")
	h.Must(t, "run", "--rm", "--network", "none", "busybox", "cat", "/etc/passwd")
	if r := h.Run(t, "run", "--rm", "--network", "none", "--security-opt", "apparmor=no-such-profile", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "no-such-profile") {
		t.Errorf("a profile that is not loaded: %+v", r)
	}
}
