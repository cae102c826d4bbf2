package faults

import (
	"strings"
	"testing"

	"hull/test/rig"
)

// TestUpdateAgrees disturbs an update of a running container: whatever happens to it, the limits on disk are those in the
// kernel when the next command has looked.
func TestUpdateAgrees(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	d := New(t, h)
	update := []string{"update", "-m", "100m", "--memory-swap", "200m", "--pids-limit", "60", "target"}
	kernel := []string{"exec", "target", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max 2>/dev/null; true"}
	disturb(t, func(f *Fault) (calls int, at *Call) {
		h.Must(t, "run", "-d", "--name", "target", "--network", "none", "-m", "64m", "--pids-limit", "50", "busybox", "sleep", "1000")
		defer h.Must(t, "rm", "-f", "target")
		r, made, hit := d.Run(t, f, update...)
		if f == nil && r.Code != 0 {
			t.Fatalf("undisturbed: %+v", r)
		}
		if f != nil && f.Do == KillAll && h.Must(t, "inspect", "-f", "{{.State.Running}}", "target") == "false" {
			return len(made), hit // its monitor was among all
		}
		disk := strings.Fields(h.Must(t, "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", "target"))
		now := strings.Fields(h.Must(t, kernel...))
		if strings.Join(disk, " ") != strings.Join(now, " ") {
			t.Errorf("%v: %v: on disk %v, in the kernel %v; it had said: exit status %d\n%s", f, hit, disk, now, r.Code, r.Stderr)
		}
		if r.Code == 0 && now[0] != "104857600" {
			t.Errorf("%v: it said that all was well, and the limit is %s", f, now[0])
		}
		return len(made), hit
	})
}
