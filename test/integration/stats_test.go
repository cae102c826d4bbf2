package integration

import (
	"strings"
	"testing"

	"hull/test/rig"
)

// A person watches, sorts, makes the window small and quits, and has their terminal back.
func TestStatsOnTerminal(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "watched", "--network", "none", "busybox", "sleep", "1000")
	defer h.Must(t, "rm", "-f", "watched")
	p := rig.Pty(t, h.Cmd(t, "stats"))
	p.Expect("\x1b[?1049h")
	p.Expect("NAME")
	p.Expect("watched")
	p.Expect("q quit")
	p.Send("m")
	p.Expect("watched")
	p.Resize(40, 10)
	p.Expect("watched")
	h.Must(t, "run", "-d", "--name", "later", "--network", "none", "busybox", "sleep", "1000")
	p.Expect("later") // what comes while somebody watches is seen
	h.Must(t, "rm", "-f", "later")
	p.Send("q")
	const giveBack = "\x1b[?25h\x1b[?1049l"
	p.Expect(giveBack)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if !strings.HasSuffix(p.Seen(), giveBack) {
		t.Errorf("the screen is not given back: %q", p.Seen()[max(0, len(p.Seen())-80):])
	}
}
