package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hull/test/rig"
)

// debian is a root file system made by mmdebstrap, kept in .cache because it takes half a minute.
func debian(t *testing.T) string {
	t.Helper()
	mmdebstrap := rig.Tool(t, "mmdebstrap")
	cache := filepath.Join(rig.Source(t), ".cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(cache, "debian.tar")
	if _, err := os.Stat(name); err == nil {
		return name
	}
	// Without arguments for a mirror it takes those this machine is set up with.
	cmd := rig.Online(t, exec.Command(mmdebstrap, "--variant=apt", "--mode=root", "--include=bash", "bookworm", name+".new.tar"))
	if out, err := cmd.CombinedOutput(); err != nil {
		os.Remove(name + ".new.tar")
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	if err := os.Rename(name+".new.tar", name); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDebian imports a Debian and uses it: a package manager, and a shell with job control on a terminal.
func TestDebian(t *testing.T) {
	h := rig.Engine(t)
	h.Must(t, "import", debian(t), "debian:12")
	h.Mark(t)
	if got := h.Must(t, "run", "--rm", "debian:12", "apt-get", "--version"); !strings.HasPrefix(got, "apt ") {
		t.Errorf("apt-get --version: %q", got)
	}
	if got := h.Must(t, "run", "--rm", "debian:12", "sh", "-c", "dpkg -l apt | tail -n 1; stat -c '%U %a' /tmp /etc/shadow; su -s /bin/sh nobody -c id"); !strings.Contains(got, "ii  apt") ||
		!strings.Contains(got, "root 1777") || !strings.Contains(got, "root 640") || !strings.Contains(got, "uid=65534(nobody)") {
		t.Errorf("a Debian is not as it was made: %q", got)
	}

	p := rig.Pty(t, h.Cmd(t, "run", "--rm", "-it", "debian:12", "bash", "--norc"))
	jobControl(t, p)
	p.Send("exit 5\n")
	if code := p.Wait(); code != 5 {
		t.Errorf("want the shell's exit status 5, got %d", code)
	}

	// The same beside what runs already, by a login shell.
	h.Must(t, "run", "-d", "--name", "beside", "debian:12", "sleep", "1000")
	p = rig.Pty(t, h.Cmd(t, "exec", "-it", "beside", "bash", "--login"))
	jobControl(t, p)
	p.Send("exit 6\n")
	if code := p.Wait(); code != 6 {
		t.Errorf("want the shell's exit status 6 of exec, got %d", code)
	}
	h.Must(t, "rm", "-f", "beside")
}

// jobControl drives an interactive shell as a person would.
func jobControl(t *testing.T, p *rig.Terminal) {
	t.Helper()
	p.Send("PS1='ready> '\n")
	p.Expect("ready> ")
	p.Send("tty; test -t 0 && echo on a terminal; echo cols $(stty size)\n")
	p.Expect("/dev/")
	p.Expect("on a terminal")
	p.Expect("cols 24 80")
	p.Resize(120, 40)
	p.Send("sleep 0.3; echo now $(stty size)\n")
	p.Expect("now 40 120")
	// stop, background, foreground, interrupt
	p.Send("sh -c 'echo read$((7 * 1))y; exec sleep 1000'\n")
	p.Expect("read7y") // a ^Z typed before is only a character of the next line
	p.Send("\x1a")
	p.Expect("Stopped")
	p.Send("jobs; bg; jobs; fg\n")
	p.Expect("Stopped")
	p.Expect("Running")
	p.Expect("sleep 1000")
	p.Send("\x03")
	p.Expect("ready> ")
	p.Send("echo status $?\n")
	p.Expect("status 130")
}

// TestTmux is the same through a terminal multiplexer, as somebody on a server does it.
func TestTmux(t *testing.T) {
	tmux := rig.Tool(t, "tmux")
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	socket := h.Dir + "/tmux"
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tmux, append([]string{"-S", socket, "-f", "/dev/null"}, args...)...)
		cmd.Env = h.Env
		r := rig.Do(t, cmd)
		if r.Code != 0 {
			t.Fatalf("tmux %s: %+v", strings.Join(args, " "), r)
		}
		return r.Stdout
	}
	run("new-session", "-d", "-s", "s", "-x", "90", "-y", "30", h.Program+" run --rm -it --name term busybox sh; echo ended $?; exec sleep 1000")
	t.Cleanup(func() { exec.Command(tmux, "-S", socket, "kill-server").Run() })
	see := func(want string) {
		t.Helper()
		screen := ""
		defer func() {
			if t.Failed() {
				t.Logf("the screen:\n%s", screen)
			}
		}()
		rig.Eventually(t, "the screen shows "+want, func() bool {
			screen = run("capture-pane", "-p", "-t", "s")
			return strings.Contains(screen, want)
		})
	}
	see("/ #")
	run("send-keys", "-t", "s", "stty size; echo $((6*7))", "Enter")
	see("30 90")
	see("42")
	run("send-keys", "-t", "s", "sh -c 'echo front$((40+2)); exec sleep 1000'", "Enter")
	see("front42") // the terminal is theirs now
	run("send-keys", "-t", "s", "C-z", "")
	see("Stopped")
	run("send-keys", "-t", "s", "exit 6", "Enter")
	see("You have stopped jobs")
	run("send-keys", "-t", "s", "exit 6", "Enter")
	see("ended 6")
	run("kill-server")
	rig.Eventually(t, "the container is gone", func() bool { return h.Must(t, "ps", "-aq") == "" })
}

// TestDetach leaves a container with the detach keys and comes back.
func TestDetach(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	p := rig.Pty(t, h.Cmd(t, "run", "-it", "--name", "left", "busybox", "sh"))
	p.Expect("/ #")
	p.Send("X=kept\n")
	p.Expect("/ #")
	p.Send("\x10\x11") // ctrl-p ctrl-q
	if code := p.Wait(); code != 0 {
		t.Errorf("want exit status 0 of a detached run, got %d", code)
	}
	if got := h.Must(t, "inspect", "--format", "{{.State.Running}}", "left"); got != "true" {
		t.Fatalf("the container ended with its client")
	}
	p = rig.Pty(t, h.Cmd(t, "attach", "left"))
	p.Send("echo it was $X\n")
	p.Expect("it was kept")
	p.Send("exit 4\n")
	if code := p.Wait(); code != 4 {
		t.Errorf("want exit status 4 of attach, got %d", code)
	}
	h.Must(t, "rm", "left")
}

// TestTerminalRestored compares the caller's terminal settings before and after, with and without a fault.
func TestTerminalRestored(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	for _, command := range []string{"exit 0", "kill -9 $$", "exec /no/such"} {
		sh := exec.Command("/bin/sh", "-c", `a=$(stty -g); "$@"; b=$(stty -g); [ "$a" = "$b" ] && echo same modes || echo other modes`,
			"sh", h.Program, "run", "--rm", "-it", "busybox", "sh", "-c", command)
		sh.Env = h.Env
		p := rig.Pty(t, sh)
		p.Expect("same modes")
		p.Wait()
	}
}
