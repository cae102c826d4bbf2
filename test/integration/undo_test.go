package integration

import (
	"strings"
	"testing"

	"hull/test/rig"
)

// TestUndoHint: a person on a terminal learns how to get back what is gone; what a script reads is Docker's.
func TestUndoHint(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "create", "--name", "web", "busybox")
	term := rig.Pty(t, h.Cmd(t, "rm", "web"))
	term.Expect("(hull undo brings it back for 24h)")
	if code := term.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	h.Must(t, "undo")
	if r := h.Run(t, "rm", "web"); r.Stdout != "web\n" || r.Stderr != "" {
		t.Errorf("got %+v", r)
	}
	h.Must(t, "undo")
	term = rig.Pty(t, h.Cmd(t, "rm", "--no-trash", "web"))
	if code := term.Wait(); code != 0 || strings.Contains(term.Seen(), "undo") {
		t.Errorf("exit status %d, seen %q", code, term.Seen())
	}
	h.Check(t)
}
