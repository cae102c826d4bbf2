package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hull/test/rig"
)

// TestNameRace lets 50 commands ask for one name at once: one gets it, 49 say who has it, nothing else is left.
func TestNameRace(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	n := 50
	if rig.Guest() {
		n = 10
	}
	results := make([]rig.Result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = h.Run(t, "create", "--name", "wanted", "busybox", "true") })
	}
	wg.Wait()
	winner := ""
	for _, r := range results {
		if r.Code == 0 {
			if winner != "" {
				t.Errorf("two won: %s and %s", winner, r.Stdout)
			}
			winner = strings.TrimSpace(r.Stdout)
		}
	}
	if winner == "" {
		t.Fatalf("nobody won: %+v", results)
	}
	for _, r := range results {
		if r.Code != 0 && !strings.Contains(r.Stderr, `Conflict. The container name "/wanted" is already in use by container`) {
			t.Errorf("a loser said %q", r.Stderr)
		}
		if r.Code != 0 && r.Code != 1 {
			t.Errorf("a loser ended with %d", r.Code)
		}
	}
	if ids := h.Must(t, "ps", "-aq", "--no-trunc"); ids != winner {
		t.Errorf("want only %s listed, got %q", winner, ids)
	}
	h.Must(t, "rm", "wanted")
}

// TestCrowd starts and removes many containers at once.
func TestCrowd(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	n := 40
	if rig.Guest() {
		n = 8
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			want := fmt.Sprintf("out %d", i)
			if got := h.Run(t, "run", "--rm", "--network", "none", "busybox", "echo", want); got.Stdout != want+"\n" || got.Code != 0 {
				t.Errorf("container %d: %+v", i, got)
			}
		})
		wg.Go(func() {
			name := fmt.Sprintf("c%d", i)
			if got := h.Run(t, "run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "1000"); got.Code != 0 {
				t.Errorf("%s: %+v", name, got)
				return
			}
			if got := h.Run(t, "exec", name, "echo", name); got.Stdout != name+"\n" {
				t.Errorf("exec in %s: %+v", name, got)
			}
			if got := h.Run(t, "rm", "-f", name); got.Code != 0 {
				t.Errorf("rm %s: %+v", name, got)
			}
		})
	}
	wg.Wait()
}

// TestMonitorKilled kills the monitor of a running container: the next command says what became of it.
func TestMonitorKilled(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
	h.Must(t, "run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000")
	h.Kill(t)
	if got := h.Must(t, "ps", "-q"); got != "" {
		t.Errorf("still running: %q", got)
	}
	if got := h.Must(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "orphan"); got != "exited 137" {
		t.Errorf("want exited 137, got %q", got)
	}
	if got := h.Must(t, "ps", "-a", "--format", "{{.Names}}"); got != "orphan" {
		t.Errorf("want only orphan left, got %q", got)
	}
	h.Must(t, "start", "orphan")
	h.Must(t, "rm", "-f", "orphan")
}

// TestEnginesApart gives two engines the same names at the same time.
func TestEnginesApart(t *testing.T) {
	a, b := rig.Engine(t), rig.Engine(t)
	for _, h := range []*rig.Hull{a, b} {
		h.Load(t, rig.Busybox(t))
		h.Must(t, "run", "-d", "--name", "same", "busybox", "sleep", "1000")
	}
	b.Must(t, "rm", "-f", "same")
	if got := a.Must(t, "exec", "same", "echo", "alive"); got != "alive" {
		t.Errorf("engine a after engine b's rm: %q", got)
	}
	a.Must(t, "rm", "-f", "same")
}

// TestNewerStore refuses a store of a later Hull without touching it.
func TestNewerStore(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	version := filepath.Join(h.Root, "version")
	if err := os.WriteFile(version, []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ps"}, {"run", "--rm", "busybox", "true"}, {"images"}, {"rm", "x"}, {"create", "busybox"}} {
		r := h.Run(t, args...)
		if r.Code == 0 || !strings.Contains(r.Stderr, "newer") || strings.Count(r.Stderr, "\n") > 2 {
			t.Errorf("hull %s on a newer store: %+v", strings.Join(args, " "), r)
		}
	}
	if err := os.WriteFile(version, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
