package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// program builds hull-runtime once for all tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hull-engine-test")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "hull-runtime")
	out, err := exec.Command("go", "build", "-o", bin, "hull/cmd/hull-runtime").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// real is an engine with a runtime and one layer that holds busybox. It needs root.
func real(t *testing.T) *Engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	e := fresh(t)
	e.opt.Runtime = bin
	fs := e.layerDir("base")
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(fs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(e.root, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(fs, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"sh", "true", "cat", "sleep", "echo", "id", "env", "ps", "pwd", "touch", "stty", "ls"} {
		if err := os.Symlink("busybox", filepath.Join(fs, "bin", l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(fs, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := e.List(context.Background(), ListOptions{All: true})
		if err != nil {
			t.Error(err)
		}
		for _, c := range list {
			if _, err := e.Remove(context.Background(), c.ID, RemoveOptions{Force: true}); err != nil && !errors.Is(err, errdef.ErrNotFound) {
				t.Error(err)
			}
		}
		quiet(t, e)
	})
	return e
}

// quiet wants nothing of e on the machine but its store: monitors leave within a moment.
func quiet(t *testing.T, e *Engine) {
	t.Helper()
	var left []string
	for range 1000 {
		left, _ = readNames(filepath.Join(e.run, "containers"))
		if len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) != 0 {
		t.Errorf("left in the run directory: %v", left)
	}
	claims, _ := readNames(rangeDir)
	for _, n := range claims {
		if target, err := os.Readlink(filepath.Join(rangeDir, n)); err == nil && strings.HasPrefix(target, e.run) {
			t.Errorf("id range %s is still claimed by %s", n, target)
		}
	}
	defer func() { // the parents of all containers stay for the next one
		for _, name := range []string{e.Instance(), e.Instance() + ".monitors"} {
			for _, at := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
				parents, _ := filepath.Glob(at + name)
				for _, p := range parents {
					_ = os.Remove(p)
				}
			}
		}
	}()
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + e.Instance() + "/*"); len(groups) != 0 {
		var dirs []string
		for _, g := range groups {
			if st, err := os.Stat(g); err == nil && st.IsDir() {
				dirs = append(dirs, g)
			}
		}
		if dirs != nil {
			t.Errorf("left cgroups: %v", dirs)
		}
	}
}

// with places a container of the test's layer.
func with(t *testing.T, e *Engine, change func(c *Config, h *Host), cmd ...string) *record {
	t.Helper()
	r := definition(generateName(9))
	r.Layers, r.Config.Cmd, r.Host.AutoRemove = []string{"base"}, cmd, false
	if change != nil {
		change(&r.Config, &r.Host)
	}
	if _, err := r.check(); err != nil {
		t.Fatal(err)
	}
	if err := e.place(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// run runs a container to its end and returns its stdout and stderr together.
func run(t *testing.T, e *Engine, r *record) (string, Exit) {
	t.Helper()
	s, _, err := e.Attach(t.Context(), r.ID, AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	type ended struct {
		exit Exit
		err  error
	}
	ready, done := make(chan struct{}), make(chan ended, 1)
	go func() {
		x, err := e.Wait(t.Context(), r.ID, NextExit, func() { close(ready) })
		done <- ended{x, err}
	}()
	<-ready
	if _, err := e.Start(t.Context(), r.ID); err != nil {
		t.Fatalf("start: %v", err)
	}
	out, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	x := <-done
	if x.err != nil {
		t.Fatal(x.err)
	}
	return unframe(out), x.exit
}

// unframe takes the Docker stream format apart.
func unframe(b []byte) string {
	var out bytes.Buffer
	for len(b) >= 8 {
		n := int(b[4])<<24 | int(b[5])<<16 | int(b[6])<<8 | int(b[7])
		out.Write(b[8 : 8+n])
		b = b[8+n:]
	}
	return out.String()
}

func TestRun(t *testing.T) {
	e := real(t)
	r := with(t, e, func(c *Config, _ *Host) { c.Env = []string{"X=1"}; c.User = "app"; c.WorkingDir = "/tmp" },
		"sh", "-c", "echo $X $HOME $(id -u) $(pwd); cat /etc/hostname; exit 3")
	out, exit := run(t, e, r)
	want := "1 /home/app 1000 /tmp\n" + r.ID[:12] + "\n"
	if out != want || exit.Code != 3 {
		t.Errorf("want %q and 3, got %q and %+v", want, out, exit)
	}
	c, err := e.Inspect(t.Context(), r.ID)
	if err != nil || c.State.Status != StatusExited || c.State.ExitCode != 3 || c.State.FinishedAt.IsZero() {
		t.Errorf("state afterwards: %+v, %v", c.State, err)
	}
	// It can be started again, also at once.
	if out, exit := run(t, e, r); out != want || exit.Code != 3 {
		t.Errorf("second start: got %q and %+v", out, exit)
	}
}

func TestAutoRemove(t *testing.T) {
	e := real(t)
	r := with(t, e, func(_ *Config, h *Host) { h.AutoRemove = true }, "true")
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		x, err := e.Wait(t.Context(), r.ID, Removed, func() { close(ready) })
		if err == nil && x.Code != 0 {
			err = fmt.Errorf("exit code %d", x.Code)
		}
		done <- err
	}()
	<-ready
	if _, err := e.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if e.exists(r.ID) {
		t.Error("the container is still there after wait(removed)")
	}
}

func TestStopKillRemove(t *testing.T) {
	e := real(t)
	polite := with(t, e, nil, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done")
	deaf := with(t, e, nil, "sh", "-c", "trap '' TERM; sleep 100")
	for _, r := range []*record{polite, deaf} {
		if _, err := e.Start(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Start(t.Context(), r.ID); !errors.Is(err, errdef.ErrNotModified) {
			t.Errorf("second start: want ErrNotModified, got %v", err)
		}
		if _, err := e.Remove(t.Context(), r.ID, RemoveOptions{}); !errors.Is(err, errdef.ErrConflict) || !strings.Contains(err.Error(), "container is running: stop the container") {
			t.Errorf("remove of a running one: got %v", err)
		}
	}
	awaitHandler(t, e, polite.ID, "SigCgt")
	awaitHandler(t, e, deaf.ID, "SigIgn")
	if err := e.Stop(t.Context(), polite.ID, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(t.Context(), polite.ID, StopOptions{}); !errors.Is(err, errdef.ErrNotModified) {
		t.Errorf("second stop: want ErrNotModified, got %v", err)
	}
	second := 1
	if err := e.Stop(t.Context(), deaf.ID, StopOptions{Timeout: &second}); err != nil {
		t.Fatal(err)
	}
	for r, code := range map[*record]int{polite: 7, deaf: 137} {
		if c, err := e.Inspect(t.Context(), r.ID); err != nil || c.State.ExitCode != code {
			t.Errorf("want exit code %d, got %+v, %v", code, c.State, err)
		}
	}
	if err := e.Kill(t.Context(), deaf.ID, "KILL"); !errors.Is(err, errdef.ErrConflict) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("kill of a stopped one: got %v", err)
	}
	third := with(t, e, nil, "sleep", "100")
	if _, err := e.Start(t.Context(), third.ID); err != nil {
		t.Fatal(err)
	}
	list, err := e.List(t.Context(), ListOptions{})
	if err != nil || len(list) != 1 || list[0].ID != third.ID {
		t.Errorf("running: %v, %v", list, err)
	}
	if _, err := e.Remove(t.Context(), third.ID, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if e.exists(third.ID) {
		t.Error("still there after rm -f")
	}
}

// awaitHandler waits until the first process of the container has SIGTERM in the set of /proc/PID/status.
func awaitHandler(t *testing.T, e *Engine, id, set string) {
	t.Helper()
	c, err := e.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.State.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\n"+set+":")
		var mask uint64
		if _, err := fmt.Sscanf(rest, "%x", &mask); err == nil && mask&(1<<(unix.SIGTERM-1)) != 0 {
			return
		}
	}
	t.Fatalf("the container %s never sets what SIGTERM does", id)
}

// TestNothingWritten: a container that writes nothing has an empty writable layer, though its image has no place for
// /etc/hosts; and killed half way, the making of that layer is finished by the next start.
func TestNothingWritten(t *testing.T) {
	e := real(t)
	r := with(t, e, nil, "sh", "-c", "cat /etc/hosts; test -f /etc/resolv.conf")
	if err := os.MkdirAll(filepath.Join(e.dir(r.ID), "rw", "upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, exit := run(t, e, r); exit.Code != 0 || out != localHosts {
		t.Errorf("want its hosts, got %q, %+v", out, exit)
	}
	upper := e.Files(&Container{ID: r.ID}).Upper
	if names, err := readNames(upper); err != nil || len(names) > 0 {
		t.Errorf("in the writable layer: %v, %v", names, err)
	}
	if st, err := os.Stat(upper); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the mode of / is %v, %v", st.Mode(), err)
	}
}

// TestAutoRemoveStopped: whoever ends a container that removes itself returns when it is gone.
func TestAutoRemoveStopped(t *testing.T) {
	e := real(t)
	for name, end := range map[string]func(id string) error{
		"stop": func(id string) error { return e.Stop(t.Context(), id, StopOptions{Signal: "KILL"}) },
		"rm -f": func(id string) error {
			_, err := e.Remove(t.Context(), id, RemoveOptions{Force: true})
			return err
		},
		"stop late": func(id string) error { return e.Stop(t.Context(), id, StopOptions{Timeout: new(0)}) },
	} {
		r := with(t, e, func(_ *Config, h *Host) { h.AutoRemove = true }, "sleep", "100")
		if _, err := e.Start(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		if err := end(r.ID); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if e.exists(r.ID) {
			t.Errorf("%s: it is still there", name)
		}
	}
}

// TestMonitorKilled: the next command finds out, kills what still runs, and records the end.
func TestMonitorKilled(t *testing.T) {
	e := real(t)
	kept := with(t, e, nil, "sleep", "100")
	auto := with(t, e, func(_ *Config, h *Host) { h.AutoRemove = true }, "sleep", "100")
	var init []int
	for _, r := range []*record{kept, auto} {
		if _, err := e.Start(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		c, err := e.Inspect(t.Context(), r.ID)
		if err != nil || c.State.Pid == 0 {
			t.Fatalf("%+v, %v", c.State, err)
		}
		init = append(init, c.State.Pid)
		pid, ok := monitor.Alive(e.runDir(r.ID))
		if !ok || pid == 0 {
			t.Fatal("no monitor")
		}
		p, _ := os.FindProcess(pid)
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			if _, ok := monitor.Alive(e.runDir(r.ID)); !ok {
				break
			}
			if i > 1000 {
				t.Fatal("the monitor does not die")
			}
			time.Sleep(time.Millisecond)
		}
	}
	list, err := e.List(t.Context(), ListOptions{All: true})
	if err != nil || len(list) != 1 || list[0].ID != kept.ID {
		t.Fatalf("want the one that is kept, got %v, %v", list, err)
	}
	if s := list[0].State; s.Status != StatusExited || s.ExitCode != exitLost || s.Error != lostError || s.FinishedAt.IsZero() {
		t.Errorf("recorded: %+v", s)
	}
	for _, pid := range init {
		if _, ok := readProcess(pid); ok {
			if st, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.HasPrefix(string(st), "sleep") {
				t.Errorf("process %d still runs", pid)
			}
		}
	}
	if _, err := e.Start(t.Context(), kept.ID); err != nil {
		t.Errorf("start after the loss: %v", err)
	}
}

func TestExec(t *testing.T) {
	e := real(t)
	r := with(t, e, func(c *Config, _ *Host) { c.Env = []string{"X=1"} }, "sleep", "100")
	if _, err := e.ExecCreate(t.Context(), r.ID, &ExecConfig{Args: []string{"true"}}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("exec in a stopped one: want ErrConflict, got %v", err)
	}
	if _, err := e.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	id, err := e.ExecCreate(t.Context(), r.ID, &ExecConfig{
		Args: []string{"sh", "-c", "echo $X $Y $(id -u) $(pwd); cat; exit 5"}, Env: []string{"Y=2"}, User: "1000", WorkingDir: "/tmp",
		Stdin: true, Stdout: true, Stderr: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, tty, _, err := e.ExecStart(t.Context(), id, ExecStart{})
	if err != nil || tty {
		t.Fatal(tty, err)
	}
	defer s.Close()
	if _, err := io.WriteString(s, "in"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(s)
	if want := "1 2 1000 /tmp\nin"; err != nil || unframe(b) != want {
		t.Errorf("want %q, got %q, %v", want, unframe(b), err)
	}
	x, err := e.ExecInspect(t.Context(), id)
	if err != nil || x.Running || x.ExitCode != 5 || x.Container != r.ID {
		t.Errorf("%+v, %v", x, err)
	}
	if _, _, _, err := e.ExecStart(t.Context(), id, ExecStart{}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("second start: want ErrConflict, got %v", err)
	}
	if _, err := e.ExecInspect(t.Context(), r.ID+"00"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("unknown exec: want ErrNotFound, got %v", err)
	}
	bad, err := e.ExecCreate(t.Context(), r.ID, &ExecConfig{Args: []string{"nope"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := e.ExecStart(t.Context(), bad, ExecStart{}); !errors.Is(err, errdef.ErrNoCommand) {
		t.Errorf("unknown command: want ErrNoCommand, got %v", err)
	}
}

func TestStartFails(t *testing.T) {
	e := real(t)
	for _, tt := range []struct {
		name   string
		change func(*Config, *Host)
		cmd    string
		kind   error
		code   int
	}{
		{"no such command", nil, "nope", errdef.ErrNoCommand, 127},
		{"not executable", nil, "/etc/passwd", errdef.ErrCannotRun, 126},
		{"a directory", nil, "/etc", errdef.ErrCannotRun, 126},
		{"no such user", func(c *Config, _ *Host) { c.User = "nobody-here" }, "true", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := with(t, e, tt.change, tt.cmd)
			_, err := e.Start(t.Context(), r.ID)
			if err == nil || tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("want %v, got %v", tt.kind, err)
			}
			c, err := e.Inspect(t.Context(), r.ID)
			if err != nil || c.Running() || tt.code != 0 && c.State.ExitCode != tt.code {
				t.Errorf("want exit code %d, got %+v, %v", tt.code, c.State, err)
			}
			auto := with(t, e, func(c *Config, h *Host) {
				h.AutoRemove = true
				if tt.change != nil {
					tt.change(c, h)
				}
			}, tt.cmd)
			if _, err := e.Start(t.Context(), auto.ID); err == nil {
				t.Error("started")
			}
			if e.exists(auto.ID) {
				t.Error("--rm container is still there after its start failed")
			}
		})
	}
}

// TestConfinement looks at what the default is from inside.
func TestConfinement(t *testing.T) {
	e := real(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := with(t, e, func(_ *Config, h *Host) {
		h.Binds = []string{dir + ":/mnt", filepath.Join(dir, "made") + ":/made:ro"}
		h.Tmpfs = map[string]string{"/scratch": "size=1m"}
	}, "sh", "-c", `
		echo caps $(cat /proc/self/status | while read k v; do case $k in CapInh:|CapEff:|CapBnd:|CapAmb:|Seccomp:|NoNewPrivs:) echo $k$v;; esac; done)
		cat /proc/self/uid_map | { read a b c; echo map $a $c; }
		echo 10.0.0.1 added >> /etc/hosts && cat /etc/hosts
		cat /mnt/f; touch /mnt/new && echo wrote
		touch /made/x 2>/dev/null || echo read-only
		touch /scratch/x && echo tmpfs
		echo 1 > /proc/sysrq-trigger || echo masked
		ls /proc/acpi /sys/firmware | while read f; do echo leak $f; done
	`)
	out, exit := run(t, e, r)
	for _, want := range []string{"CapInh:0000000000000000", "CapAmb:0000000000000000", "CapEff:00000000a80425fb", "CapBnd:00000000a80425fb", "Seccomp:2",
		"map 0 65536", "127.0.0.1\tlocalhost", "10.0.0.1 added", "host\n", "wrote", "read-only", "tmpfs", "masked"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing (exit %d) in:\n%s", want, exit.Code, out)
		}
	}
	if strings.Contains(out, "leak ") && !strings.Contains(out, "leak \n") && strings.Contains(out, "leak dmi") {
		t.Errorf("masked paths can be seen:\n%s", out)
	}
	// What the container's root wrote belongs to root outside too: the bind is id-mapped.
	st, err := os.Stat(filepath.Join(dir, "new"))
	if err != nil || !ownedBy(st, 0) {
		t.Errorf("the file made inside is not root's outside: %v", err)
	}
}

// TestRefusedCreateLeavesNoMonitor: what was spawned ahead of a create that is refused is gone with it.
func TestRefusedCreateLeavesNoMonitor(t *testing.T) {
	e := real(t)
	for range 10 {
		if _, _, err := e.Create(t.Context(), "", &Config{Image: "nothing-here"}, &Host{}, true); !errors.Is(err, errdef.ErrNotFound) {
			t.Fatal(err)
		}
		if len(e.heads.of) != 0 {
			t.Error("a monitor is still kept for it")
		}
	}
}
