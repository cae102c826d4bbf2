package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/monitor"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

func inspect(t *testing.T, h *rig.Hull, name, format string) string {
	t.Helper()
	return h.Must(t, "inspect", "--format", format, name)
}

// monitorOf is the process id of the container's monitor, 0 without one.
func monitorOf(t *testing.T, h *rig.Hull, name string) int {
	t.Helper()
	pid, _ := monitor.Alive(filepath.Join(h.RunDir, "containers", inspect(t, h, name, "{{.Id}}")))
	return pid
}

// killMonitor kills the monitor that is there now and waits until it is gone.
func killMonitor(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		t.Fatal("no monitor")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "the monitor is gone", func() bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

// TestMonitorKilled: the next command finds that out and does what the policy asks for, whatever the monitor was doing.
func TestRestartAfterKill(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "runs", "--network", "none", "--restart", "always", "busybox", "sleep", "1000")
	h.Must(t, "run", "-d", "--name", "plain", "--network", "none", "busybox", "sleep", "1000")
	for _, name := range []string{"runs", "plain"} {
		killMonitor(t, monitorOf(t, h, name))
	}
	h.Must(t, "ps")
	rig.Eventually(t, "the one with a policy runs again", func() bool {
		return inspect(t, h, "runs", "{{.State.Status}} {{.RestartCount}}") == "running 1"
	})
	if got := inspect(t, h, "plain", "{{.State.Status}} {{.State.ExitCode}}"); got != "exited 137" {
		t.Errorf("want the one without a policy exited 137, got %s", got)
	}

	h.Must(t, "run", "-d", "--name", "crashes", "--network", "none", "--restart", "always", "busybox", "false")
	waiting := 0
	rig.Eventually(t, "a monitor waits for the back-off", func() bool {
		if inspect(t, h, "crashes", "{{.State.Status}}") != "restarting" || inspect(t, h, "crashes", "{{.RestartCount}}") < "4" {
			return false
		}
		waiting = monitorOf(t, h, "crashes")
		return waiting != 0
	})
	killMonitor(t, waiting)
	if got := inspect(t, h, "crashes", "{{.State.Status}}"); got != "restarting" {
		t.Errorf("want it still restarting, got %s", got)
	}
	before := inspect(t, h, "crashes", "{{.RestartCount}}")
	rig.Eventually(t, "it goes on", func() bool { return inspect(t, h, "crashes", "{{.RestartCount}}") > before })

	// A person's word counts also while nobody waits.
	rig.Eventually(t, "a monitor waits again", func() bool { waiting = monitorOf(t, h, "crashes"); return waiting != 0 })
	killMonitor(t, waiting)
	h.Must(t, "stop", "-t", "0", "crashes")
	if got := inspect(t, h, "crashes", "{{.State.Status}}"); got != "exited" {
		t.Errorf("stopped: want exited, got %s", got)
	}
	h.Must(t, "ps")
	if pid := monitorOf(t, h, "crashes"); pid != 0 {
		t.Errorf("it has a monitor after a stop: %d", pid)
	}
	h.Must(t, "rm", "-f", "runs", "plain", "crashes")
}

// TestUpgrade: the program is replaced while containers run. Their monitors run the new one at the end.
func TestUpgrade(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	first := h.Program
	install := func() {
		b, err := os.ReadFile(first)
		if err == nil {
			err = os.WriteFile(h.Dir+"/hull", b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install()
	h.Program = h.Dir + "/hull"
	h.Must(t, "run", "-d", "--name", "stays", "--network", "none", "--restart", "always", "busybox", "sh", "-c", "read x; exit 1")
	h.Program = first
	if err := os.Remove(h.Dir + "/hull"); err != nil {
		t.Fatal(err)
	}
	install()
	rig.Eventually(t, "it was restarted by the new program", func() bool { return inspect(t, h, "stays", "{{.RestartCount}}") > "2" })
	// Moved, it is found by its name.
	if err := os.Mkdir(h.Dir+"/moved", 0o755); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "rm", "-f", "stays")
	h.Env = append(h.Env, "PATH="+h.Dir+"/moved:/bin")
	h.Program = h.Dir + "/hull"
	h.Must(t, "run", "-d", "--name", "stays", "--network", "none", "--restart", "on-failure:1", "busybox", "sh", "-c", "until [ -e /die ]; do sleep 0.02; done; exit 1")
	if err := os.Rename(h.Dir+"/hull", h.Dir+"/moved/hull"); err != nil {
		t.Fatal(err)
	}
	h.Program = first
	endWith(t, h, "stays", "/die")
	log := filepath.Join(h.Root, "containers", inspect(t, h, "stays", "{{.Id}}"), "restart.json")
	rig.Eventually(t, "its end was judged by the moved program alone", func() bool {
		b, _ := os.ReadFile(log)
		return strings.Contains(string(b), `"count":1`)
	})
	h.Must(t, "rm", "-f", "stays")
}

// TestReboot: everything of the engine is killed and what a reboot takes away is removed.
func TestReboot(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	run := func(name string, args ...string) {
		h.Must(t, slices.Concat([]string{"run", "-d", "--name", name, "--network", "none"}, args)...)
	}
	long := []string{"busybox", "sleep", "1000"}
	policy := func(p string, command ...string) []string {
		return slices.Concat([]string{"--restart", p}, command)
	}
	run("plain", long...)
	run("always", policy("always", long...)...)
	run("unless", policy("unless-stopped", long...)...)
	run("failing", policy("on-failure", long...)...)
	run("always-stopped", policy("always", long...)...)
	run("unless-stopped", policy("unless-stopped", long...)...)
	run("done", policy("on-failure", "busybox", "true")...)
	h.Must(t, "create", "--name", "never", "--network", "none", "--restart", "always", "busybox", "sleep", "1000")
	run("crashing", policy("always", "busybox", "false")...)
	run("volatile", "--rm", "busybox", "sleep", "1000")
	h.Must(t, "stop", "-t", "0", "always-stopped", "unless-stopped")
	h.Must(t, "wait", "done")
	rig.Eventually(t, "done is judged", func() bool { return inspect(t, h, "done", "{{.State.Status}}") == "exited" })

	h.Reboot(t)
	boot := h.Must(t, "event", "boot")
	want := map[string]string{
		"plain": "exited 137", "always": "running 0", "unless": "running 0", "failing": "running 0",
		"always-stopped": "running 0", "unless-stopped": "exited 137", "done": "exited 0", "never": "created 0",
	}
	for name, w := range want {
		if got := inspect(t, h, name, "{{.State.Status}} {{.State.ExitCode}}"); got != w {
			t.Errorf("%s after a boot: want %s, got %s", name, w, got)
		}
		if started := strings.Contains("\n"+boot+"\n", "\nstarted "+name+"\n"); started != strings.HasPrefix(w, "running") {
			t.Errorf("%s: said to be started: %v, in\n%s", name, started, boot)
		}
	}
	if got := inspect(t, h, "plain", "{{.State.Error}}"); !strings.Contains(got, "machine went down") {
		t.Errorf("plain: why it ended: %q", got)
	}
	if got := inspect(t, h, "crashing", "{{.State.Running}}"); got != "true" {
		t.Errorf("crashing: it neither runs nor waits")
	}
	h.Must(t, "stop", "-t", "0", "crashing")
	if r := h.Must(t, "event", "boot"); strings.Contains(r, "always\n") {
		t.Errorf("a second boot starts what runs: %s", r)
	}
	if got := h.Must(t, "ps", "-a", "--format", "{{.Names}}"); strings.Contains(got, "volatile") {
		t.Errorf("what was to remove itself is still there: %s", got)
	}
	h.Must(t, slices.Concat([]string{"rm", "-f"}, strings.Fields(h.Must(t, "ps", "-aq")))...)
}

// TestShutdown stops all with their own signals and time-outs, restarts none, and a boot brings back what ran.
func TestShutdown(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	polite := []string{"busybox", "sh", "-c", "trap 'echo bye; exit 0' TERM; touch /ready; while :; do sleep 0.05; done"}
	for name, args := range map[string][]string{
		"polite":   slices.Concat([]string{"--restart", "always"}, polite),
		"failing":  slices.Concat([]string{"--restart", "on-failure"}, polite),
		"stubborn": {"--restart", "unless-stopped", "--stop-timeout", "1", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"},
		"plain":    polite,
		"crashing": {"--restart", "always", "busybox", "false"},
		"volatile": slices.Concat([]string{"--rm"}, polite),
	} {
		h.Must(t, slices.Concat([]string{"run", "-d", "--name", name, "--network", "none"}, args)...)
	}
	for _, name := range []string{"polite", "failing", "plain", "volatile"} { // the trap is set
		rig.Eventually(t, name+" listens", func() bool { return h.Run(t, "exec", name, "test", "-e", "/ready").Code == 0 })
	}
	rig.Eventually(t, "it crashes", func() bool { return inspect(t, h, "crashing", "{{.State.Status}}") == "restarting" })
	begin := time.Now()
	said := h.Must(t, "event", "shutdown")
	if took := time.Since(begin); took > rig.Patience(8*time.Second) {
		t.Errorf("one container takes a second, all together %v", took)
	}
	for _, name := range []string{"polite", "failing", "stubborn", "plain", "volatile", "crashing"} {
		if !strings.Contains("\n"+said+"\n", "\nstopped "+name+"\n") {
			t.Errorf("%s was not stopped: %s", name, said)
		}
	}
	rig.Eventually(t, "nothing is left", func() bool { return len(h.Pids()) == 0 })
	if got := inspect(t, h, "crashing", "{{.State.Status}}"); got != "exited" {
		t.Errorf("after the shutdown, what waited to be restarted is %s", got)
	}
	if got := h.Must(t, "logs", "polite"); got != "bye" {
		t.Errorf("polite had no time to say bye: %q", got)
	}
	h.Reboot(t)
	h.Must(t, "event", "boot")
	for name, want := range map[string]string{"polite": "true", "failing": "true", "stubborn": "true", "plain": "false", "crashing": "true"} {
		if got := inspect(t, h, name, "{{.State.Running}}"); got != want {
			t.Errorf("%s runs after the boot: want %s, got %s", name, want, got)
		}
	}
	h.Must(t, slices.Concat([]string{"rm", "-f"}, strings.Fields(h.Must(t, "ps", "-aq")))...)
}

// endWith makes the file that a container's process waits for before it ends. Who made it may go down with the container
// before it has ended itself.
func endWith(t *testing.T, h *rig.Hull, name, path string) {
	t.Helper()
	if r := h.Run(t, "exec", name, "touch", path); r.Code != 0 && r.Code != 128+int(unix.SIGKILL) {
		t.Fatalf("exec in %s: %+v", name, r)
	}
}

// TestUpdateRestart: a policy is given to a running container and taken from a crashing one.
func TestUpdateRestart(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "given", "--network", "none", "busybox", "sh", "-c", "while ! [ -e /go ]; do sleep 0.05; done; exit 1")
	h.Must(t, "update", "--restart", "on-failure:2", "given")
	endWith(t, h, "given", "/go")
	rig.Eventually(t, "it was restarted twice", func() bool {
		return inspect(t, h, "given", "{{.State.Status}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}") == "exited 2 on-failure"
	})
	h.Must(t, "run", "-d", "--name", "taken", "--network", "none", "--restart", "always", "busybox", "false")
	rig.Eventually(t, "it crashes", func() bool { return inspect(t, h, "taken", "{{.State.Status}} {{.RestartCount}}") == "restarting 4" })
	h.Must(t, "update", "--restart", "no", "taken")
	rig.Eventually(t, "it stays away", func() bool {
		return inspect(t, h, "taken", "{{.State.Status}}") == "exited" && monitorOf(t, h, "taken") == 0
	})
	h.Must(t, "rm", "given", "taken")
}
