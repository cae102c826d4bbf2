package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/monitor"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// TestEventsOfTheKilled kills what would have told an end: whoever repairs tells it, once.
func TestEventsOfTheKilled(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	id := h.Must(t, "run", "-d", "--name", "lost", "--network", "none", "busybox", "sleep", "1000")
	pid, alive := monitor.Alive(filepath.Join(h.RunDir, "containers", id))
	if !alive {
		t.Fatal("no monitor")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "the monitor is gone", func() bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid))
		return err != nil
	})
	for range 3 { // each of which looks at the container
		h.Must(t, "inspect", "lost")
		h.Must(t, "ps", "-a")
	}
	h.Must(t, "start", "lost")
	h.Must(t, "rm", "-f", "lost")
	h.Must(t, "ps", "-a")
	now := time.Now().Format(time.RFC3339Nano)
	got := h.Must(t, "events", "--since", "10m", "--until", now, "--filter", "container=lost",
		"--filter", "event=start", "--filter", "event=die", "--filter", "event=destroy",
		"--format", `{{.Action}}{{with .Actor.Attributes.exitCode}}:{{.}}{{end}}`)
	got = strings.ReplaceAll(got, "\n", " ")
	if want := "start die:137 start die:137 destroy"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	got = h.Must(t, "events", "--since", "10m", "--until", now, "--filter", "network=none", "--format", "{{.Action}}")
	got = strings.ReplaceAll(got, "\n", " ")
	if want := "connect disconnect connect disconnect"; got != want {
		t.Errorf("events of the network %q, want %q", got, want)
	}
}
