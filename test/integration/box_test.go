package integration

import (
	"os"
	"strings"
	"testing"

	"hull/test/rig"
)

// TestBox sits down at the built-in image as a newcomer does: it has to feel like a small Linux.
func TestBox(t *testing.T) {
	h := boxEngine(t)
	p := rig.Pty(t, h.Cmd(t, "run", "-it", "--rm", "--network", "none", "-h", "small", "box"))
	prompt := "root@small\x1b[0m:"
	p.Expect(prompt)
	for _, step := range []struct{ line, want string }{
		{"ls -d /bin", "\x1b[1;34m/bin"}, // colours
		{"ps -o pid,args", "1 sh"},
		{"ip -o addr show lo", "127.0.0.1/8"},
		{"top -b -n 1 | head -n 1", "Mem:"},
		{"httpd -h /var/www && wget -qO- http://127.0.0.1/ | tail -n 1", "This page comes from httpd"},
		{"id box", "uid=1000(box)"},
		{"stty size", "24 80"},
		{"sleep 1000 &", ""},
		{"jobs", "Running"},
		{"kill %1; sleep 0.2; jobs", "Terminated"},
		{"grep -c x /usr/share/doc/busybox/copyright >/dev/null && echo licensed", "licensed"},
	} {
		p.Send(step.line + "\n")
		p.Expect("\n") // the echo ends before the output begins
		if step.want != "" {
			p.Expect(step.want)
		}
		p.Expect(prompt)
	}
	p.Send("vi /tmp/text\n")
	p.Expect("~")
	p.Send("ihello")
	p.Expect("hello")
	p.Send("\x1b")
	p.Expect("- ") // the status line of command mode
	p.Send(":wq\n")
	p.Expect(prompt)
	p.Send("cat /tmp/text\n")
	p.Expect("\nhello\r\n")
	p.Send("sh -c 'echo ready; sleep 1000'\n")
	p.Expect("\nready") // a ^Z typed before is only a character of the next line
	p.Send("\x1a")
	p.Expect("Stopped")
	p.Send("exit 5\n")
	p.Expect("stopped jobs")
	p.Send("exit 5\n")
	if code := p.Wait(); code != 5 {
		t.Errorf("want exit status 5, got %d\n%s", code, p.Seen())
	}
}

// TestBoxOffline: the image is there without load, under its name only, and comes back after it was removed.
func TestBoxOffline(t *testing.T) {
	h := boxEngine(t)
	if got := h.Must(t, "images", "--format", "{{.Repository}}:{{.Tag}}"); got != "box:latest" {
		t.Errorf("images: %q", got)
	}
	h.Must(t, "rmi", "box")
	if got := h.Must(t, "run", "--rm", "--network", "none", "box", "echo", "again"); got != "again" {
		t.Errorf("got %q", got)
	}
	if r := h.Run(t, "run", "--rm", "--pull", "never", "--network", "none", "box:other", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "No such image") {
		t.Errorf("a tag box does not have: %+v", r)
	}
	h.Mark(t) // the image was unpacked again
}

// boxEngine is a private engine of whoever runs the tests, with box unpacked.
func boxEngine(t *testing.T) *rig.Hull {
	t.Helper()
	var h *rig.Hull
	if os.Geteuid() == 0 {
		h = rig.Engine(t)
	} else {
		h = rig.EngineIn(t, "/var/tmp")
	}
	if r := h.Run(t, "run", "--rm", "--network", "none", "box", "true"); strings.Contains(r.Stderr, "without the image box") {
		t.Skip(strings.TrimSpace(r.Stderr))
	} else if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	h.Mark(t)
	return h
}
