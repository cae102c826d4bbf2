package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// TestSilentMonitor: what ends a container works although its monitor was stopped, and what else asks the monitor says why
// it has no answer.
func TestSilentMonitor(t *testing.T) {
	e := real(t)
	always := func(_ *Config, h *Host) { h.AutoRemove = false; h.Restart.Name = restartAlways }
	kept := func(_ *Config, h *Host) { h.AutoRemove = false }
	removing := func(_ *Config, h *Host) { h.AutoRemove = true }
	killed, forced, policy, gone := with(t, e, kept, "sleep", "1000"), with(t, e, kept, "sleep", "1000"),
		with(t, e, always, "sleep", "1000"), with(t, e, removing, "sleep", "1000")
	polite := with(t, e, kept, "sh", "-c", "trap 'echo bye > /said; exit' TERM; while :; do sleep 0.1; done")
	pids := map[string]int{}
	for _, r := range []*record{killed, forced, policy, gone, polite} {
		if _, err := e.Start(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		pid, _ := monitor.Alive(e.runDir(r.ID))
		if pid == 0 {
			t.Fatal("no monitor tells its pid")
		}
		hold(t, pid)
		pids[r.ID] = pid
	}
	err := e.Rename(t.Context(), killed.ID, "other")
	if !errors.Is(err, errdef.ErrDeadline) {
		t.Errorf("rename: want ErrDeadline, got %v", err)
	} else if want := fmt.Sprintf("`kill -CONT %d`", pids[killed.ID]); !strings.Contains(err.Error(), want) {
		t.Errorf("rename: want %q in %v", want, err)
	}
	// All of it or nothing: the monitor is asked last.
	processes := int64(77)
	if _, err := e.Update(t.Context(), forced.ID, &Resources{PidsLimit: &processes}, &RestartPolicy{Name: restartAlways}); !errors.Is(err, errdef.ErrDeadline) {
		t.Errorf("update: want ErrDeadline, got %v", err)
	}
	if c, err := e.Inspect(t.Context(), forced.ID); err != nil || c.Host.Restart.Name != "" || c.Host.Resources.PidsLimit != nil || c.State.Status != StatusRunning {
		t.Errorf("after an update that failed: %+v, %v", c, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Kill(t.Context(), killed.ID, ""); err != nil {
			t.Errorf("kill: %v", err)
		}
	})
	wg.Go(func() {
		if err := e.Kill(t.Context(), gone.ID, ""); err != nil {
			t.Errorf("kill of one that removes itself: %v", err)
		}
	})
	wg.Go(func() {
		forever := -1
		if err := e.Stop(t.Context(), polite.ID, StopOptions{Timeout: &forever}); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	for _, r := range []*record{forced, policy} {
		wg.Go(func() {
			if _, err := e.Remove(t.Context(), r.ID, RemoveOptions{Force: true}); err != nil {
				t.Errorf("remove: %v", err)
			}
		})
	}
	wg.Wait()
	for _, r := range []*record{killed, polite} {
		if c, err := e.Inspect(t.Context(), r.ID); err != nil || c.State.Status != StatusExited || c.State.ExitCode != exitLost {
			t.Errorf("killed: %+v, %v", c, err)
		}
	}
	if _, err := os.Stat(filepath.Join(e.dir(polite.ID), "rw", "upper", "said")); err != nil {
		t.Errorf("what was stopped had no time to end: %v", err)
	}
	for _, r := range []*record{forced, policy, gone} {
		if e.exists(r.ID) {
			t.Errorf("%s is still there", r.ID)
		}
	}
	if _, err := e.Start(t.Context(), killed.ID); err != nil {
		t.Errorf("start after it: %v", err)
	}
}

// TestTellOfBusy: what only tells of a container waits neither for its monitor nor for a command that does.
func TestTellOfBusy(t *testing.T) {
	e := real(t)
	r := with(t, e, func(_ *Config, h *Host) { h.AutoRemove = false }, "sleep", "1000")
	if _, err := e.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	pid, _ := monitor.Alive(e.runDir(r.ID))
	hold(t, pid)
	l, err := e.lock(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(e.runDir(r.ID), updatingFile)
	if err := os.WriteFile(mark, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := e.Inspect(t.Context(), r.ID); err != nil || !c.Running() {
		t.Errorf("inspect: %+v, %v", c, err)
	}
	if all, err := e.List(t.Context(), ListOptions{}); err != nil || len(all) != 1 || !all[0].Running() {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := os.Remove(mark); err != nil {
		t.Error(err)
	}
	l.Unlock()
	if err := e.Kill(t.Context(), r.ID, ""); err != nil {
		t.Error(err)
	}
}

// hold keeps process pid stopped until the test ends, also when somebody lets everything on the machine go on.
func hold(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer unix.Close(fd)
		for unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0) == nil {
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { close(end); wg.Wait() })
}
