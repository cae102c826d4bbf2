package faults

import (
	"strings"
	"testing"
	"time"

	"hull/test/rig"
)

// TestEveryCallOfCommit kills or fails a commit. After each, the image is there and whole or it is not there, the
// container is not left frozen, and nothing is left once both are removed.
func TestEveryCallOfCommit(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Mark(t)
	d := New(t, h)
	once := func(f *Fault) (int, *Call) {
		if r, _, _ := d.Run(t, nil, "run", "-d", "--name", "target", "--network", "none", "busybox", "sh", "-c", "echo x >/f; exec sleep 1000"); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		r, calls, hit := d.Run(t, f, "commit", "target", "app:1")
		if f == nil && r.Code != 0 {
			t.Fatalf("undisturbed: %+v", r)
		}
		if msg := committed(t, h, r.Code == 0); msg != "" {
			t.Errorf("%v: %v\n%s\nit had said: exit status %d\n%s%s", f, hit, msg, r.Code, r.Stdout, r.Stderr)
			h.Run(t, "rm", "-f", "target")
			h.Mark(t)
		}
		return len(calls), hit
	}
	total, _ := once(nil)
	if total < 10 {
		t.Fatalf("only %d calls were counted: the driver does not see this command", total)
	}
	t.Logf("%d calls", total)
	stride := max(1, total/points())
	for _, f := range disturbances {
		for at := 1 + int(f.Errno)%stride; at <= total; at += stride {
			f.At = at
			if _, hit := once(&f); hit == nil && f.Do == Fail {
				break
			}
			if t.Context().Err() != nil {
				return
			}
		}
	}
}

// committed says what is wrong after a commit, or nothing.
func committed(t *testing.T, h *rig.Hull, promised bool) string {
	t.Helper()
	for deadline := time.Now().Add(rig.Patience(10 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		state := strings.TrimSpace(h.Run(t, "inspect", "-f", "{{.State.Status}}", "target").Stdout)
		if state == "running" || state == "exited" { // the latter when its monitor was killed
			break
		}
		if time.Now().After(deadline) {
			return "the container is " + state
		}
	}
	if r := h.Run(t, "rm", "-f", "target"); r.Code != 0 {
		return "rm: " + r.Stderr
	}
	there := h.Run(t, "image", "inspect", "app:1").Code == 0
	if promised && !there {
		return "it was promised and is not there"
	}
	if there {
		if r := h.Run(t, "run", "--rm", "--network", "none", "app:1", "cat", "/f"); r.Stdout != "x\n" {
			return "the image is not whole: " + r.Stderr
		}
		if r := h.Run(t, "rmi", "app:1"); r.Code != 0 {
			return "rmi: " + r.Stderr
		}
	}
	var left []string
	for range 2 { // a child forked just before the kill holds the lock of its parent until it executes: then the next one
		if r := h.Run(t, "image", "prune", "-f"); r.Code != 0 {
			return "image prune: " + r.Stderr
		}
		if left = h.Difference(); len(left) == 0 {
			break
		}
	}
	return strings.Join(left, "\n")
}
