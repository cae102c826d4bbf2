package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test binary is the program under test when it is asked to be.
const asProgram = "HULL_RUNTIME_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(oci(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// host is a state directory and a bundle of one test, and what it checks at the end.
type host struct {
	*testing.T
	root, bundle string
	spec         *specs.Spec
	ids          []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	h := &host{T: t, root: t.TempDir(), bundle: t.TempDir(), spec: exampleSpec()}
	if err := os.Chmod(h.bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "proc", "dev", "sys", "tmp", "mnt"} {
		if err := os.MkdirAll(filepath.Join(h.bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.bundle, "rootfs/bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "echo", "true", "ls", "id", "tty", "stty", "env", "test"} {
		if err := os.Symlink("busybox", filepath.Join(h.bundle, "rootfs/bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	h.spec.Process.Terminal = false
	h.spec.Process.Args = []string{"sleep", "100"}
	t.Cleanup(h.census)
	return h
}

// id returns a name for a container of this test.
func (h *host) id() string {
	id := fmt.Sprintf("hrt-%d-%s-%d", os.Getpid(), strings.ReplaceAll(h.Name(), "/", "-"), len(h.ids))
	h.ids = append(h.ids, id)
	return id
}

func (h *host) writeSpec() {
	h.Helper()
	data, err := json.Marshal(h.spec)
	if err != nil {
		h.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.bundle, specFile), data, 0o600); err != nil {
		h.Fatal(err)
	}
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", h.root}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "SECRET=of the caller")
	return cmd
}

// run runs a command line and returns what it wrote and its exit code. Output goes through files: a created
// container keeps them open.
func (h *host) run(args ...string) (stdout, stderr string, code int) {
	h.Helper()
	cmd := h.command(args...)
	dir := h.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		h.Fatal(err)
	}
	defer out.Close()
	errs, err := os.Create(filepath.Join(dir, "err"))
	if err != nil {
		h.Fatal(err)
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	err = cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		h.Fatal(err)
	}
	a, _ := os.ReadFile(out.Name())
	b, _ := os.ReadFile(errs.Name())
	return string(a), string(b), cmd.ProcessState.ExitCode()
}

// must is run for what has to succeed.
func (h *host) must(args ...string) string {
	h.Helper()
	stdout, stderr, code := h.run(args...)
	if code != 0 {
		h.Fatalf("%v: exit %d: %s", args, code, stderr)
	}
	return stdout
}

// fails is run for what has to fail with a message that holds want.
func (h *host) fails(want string, args ...string) {
	h.Helper()
	_, stderr, code := h.run(args...)
	if code == 0 || !strings.Contains(stderr, want) {
		h.Errorf("%v: exit %d, %q, want a failure with %q", args, code, stderr, want)
	}
}

func (h *host) state(id string) specs.State {
	h.Helper()
	var s specs.State
	if err := json.Unmarshal([]byte(h.must("state", id)), &s); err != nil {
		h.Fatal(err)
	}
	return s
}

func (h *host) waitStatus(id string, want specs.ContainerState) {
	h.Helper()
	var got specs.ContainerState
	for range 300 {
		if got = h.state(id).Status; got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.Fatalf("%s is %s, want %s", id, got, want)
}

// census removes what a failed test left and complains about what a good one should not have.
func (h *host) census() {
	for _, id := range h.ids {
		if _, err := os.Stat(filepath.Join(h.root, id)); err == nil {
			if !h.Failed() {
				h.Errorf("state of %s is left", id)
			}
			h.run("delete", "--force", id)
		}
		g, err := cgroup.Open(cgroup.Detect(), "hull-runtime/"+id)
		if err != nil {
			h.Fatal(err)
		}
		if g.Exists() {
			h.Errorf("cgroup of %s is left", id)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.Fatal(err)
	}
	if strings.Contains(string(mounts), h.bundle) {
		h.Error("a mount is left on the host")
	}
}

func TestLifecycle(t *testing.T) {
	h := newHost(t)
	h.writeSpec()
	id := h.id()
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.must("create", "--bundle", h.bundle, "--pid-file", pidFile, id)
	s := h.state(id)
	data, err := os.ReadFile(pidFile)
	if err != nil || string(data) != strconv.Itoa(s.Pid) || s.Status != created || s.Bundle != h.bundle || s.Version != specs.Version {
		t.Errorf("state %+v, pid file %q, %v", s, data, err)
	}
	h.fails("already exists", "create", "--bundle", h.bundle, id)
	h.fails("not stopped: created", "delete", id)
	// What the bundle says after create does not count.
	if err := os.WriteFile(filepath.Join(h.bundle, specFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("start", id)
	if s := h.state(id); s.Status != running {
		t.Errorf("status %s, want running", s.Status)
	}
	comm := ""
	for i := 0; comm != "sleep\n"; i++ {
		if i == 300 {
			t.Fatalf("process %q, want sleep", comm)
		}
		time.Sleep(10 * time.Millisecond)
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.Pid))
		comm = string(data)
	}
	h.fails("cannot start an already running container", "start", id)
	if out := h.must("ps", "--format", "json", id); out != fmt.Sprintf("[%d]\n", s.Pid) {
		t.Errorf("ps %q", out)
	}
	if out := h.must("ps", id); !strings.Contains(out, strconv.Itoa(s.Pid)) || strings.Count(out, "\n") != 2 {
		t.Errorf("ps table %q", out)
	}
	if out := h.must("list", "-q"); out != id+"\n" {
		t.Errorf("list %q", out)
	}
	h.must("pause", id)
	h.waitStatus(id, paused)
	h.fails("the container is paused", "exec", id, "true")
	h.must("kill", id, "KILL") // of a paused one
	h.waitStatus(id, stopped)
	h.fails("cannot start a container that has stopped", "start", id)
	h.fails("container not running", "kill", id)
	if s := h.state(id); s.Pid != 0 {
		t.Errorf("pid %d of a stopped container", s.Pid)
	}
	h.must("delete", id)
	h.fails("does not exist", "state", id)
	h.fails("does not exist", "delete", id)
	h.must("delete", "--force", id)
}

func TestRunAndExitCodes(t *testing.T) {
	h := newHost(t)
	for _, tt := range []struct {
		script string
		want   int
	}{{"exit 0", 0}, {"exit 7", 7}, {"kill -9 $$", 0}} { // init of a pid namespace ignores its own SIGKILL
		h.spec.Process.Args = []string{"sh", "-c", tt.script}
		h.writeSpec()
		if _, stderr, code := h.run("run", "--bundle", h.bundle, h.id()); code != tt.want {
			t.Errorf("run %q: exit %d (%s), want %d", tt.script, code, stderr, tt.want)
		}
	}
	h.spec.Process.Args = []string{"no-such-command"}
	h.writeSpec()
	h.fails("no-such-command", "run", "--bundle", h.bundle, h.id())
}

func TestExec(t *testing.T) {
	h := newHost(t)
	h.spec.Process.Env = append(h.spec.Process.Env, "OF=container")
	h.writeSpec()
	id := h.id()
	h.must("run", "-d", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	if out := h.must("exec", "-e", "MORE=1", "--cwd", "/tmp", "-u", "5:6", id, "sh", "-c", "pwd; id -u; id -g; echo $OF $MORE $SECRET"); out != "/tmp\n5\n6\ncontainer 1\n" {
		t.Errorf("exec: %q", out)
	}
	// Those were the files of the host that became its stdio: stdin was /dev/null.
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil || st.Uid != 0 {
		t.Errorf("/dev/null of the host belongs to %d, %v", st.Uid, err)
	}
	if _, _, code := h.run("exec", id, "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	if _, _, code := h.run("exec", id, "sh", "-c", "kill -TERM $$"); code != 128+15 {
		t.Errorf("exit code %d, want 143", code)
	}
	if _, stderr, code := h.run("exec", id, "nothing"); code != 255 || !strings.Contains(stderr, "nothing") {
		t.Errorf("exec of nothing: %d, %q", code, stderr)
	}
	// A detached one with its process from a file, as containerd does it.
	file, pidFile := filepath.Join(t.TempDir(), "process.json"), filepath.Join(t.TempDir(), "pid")
	data, err := json.Marshal(specs.Process{Args: []string{"sleep", "50"}, Cwd: "/", Env: []string{"PATH=/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("exec", "-d", "-p", file, "--pid-file", pidFile, id)
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if out := h.must("ps", "--format", "json", id); !strings.Contains(out, string(pid)) {
		t.Errorf("exec %s is not among %s", pid, out)
	}
	h.fails("socket", "exec", "-d", "-t", id, "sh")
	h.must("kill", "--all", id, "KILL")
	h.waitStatus(id, stopped)
	h.fails("stopped container", "exec", id, "true")
}

// receiveTerminal takes the master that comes to a console socket.
func receiveTerminal(t *testing.T, ln *net.UnixListener) *os.File {
	t.Helper()
	ln.SetDeadline(time.Now().Add(5 * time.Second))
	conn, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("control messages %v, %v", msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "terminal")
	t.Cleanup(func() { f.Close() })
	return f
}

func readUntil(t *testing.T, f *os.File, want string) {
	t.Helper()
	var all []byte
	buf := make([]byte, 1024)
	timer := time.AfterFunc(5*time.Second, func() { f.Close() })
	defer timer.Stop()
	for !strings.Contains(string(all), want) {
		n, err := f.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			t.Fatalf("terminal said %q, then %v; want %q", all, err, want)
		}
	}
}

func TestConsoleSocket(t *testing.T) {
	h := newHost(t)
	h.spec.Process.Terminal = true
	h.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	h.spec.Process.Args = []string{"sh", "-c", "tty; stty size; read x; echo got $x; sleep 100"}
	h.writeSpec()
	h.fails("console socket", "create", "--bundle", h.bundle, h.id())
	dir, err := os.MkdirTemp("", "con") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	id := h.id()
	h.must("create", "--bundle", h.bundle, "--console-socket", dir+"/s", id)
	defer h.must("delete", "--force", id)
	term := receiveTerminal(t, ln)
	h.must("start", id)
	readUntil(t, term, "33 99")
	if _, err := term.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, term, "got hello")
	h.must("exec", "-d", "-t", "--console-socket", dir+"/s", id, "sh", "-c", "echo exec on $(tty); sleep 1")
	readUntil(t, receiveTerminal(t, ln), "exec on /dev/pts/")
	// A console socket that is not there: nothing of the container stays.
	other := h.id()
	h.fails("console socket", "create", "--bundle", h.bundle, "--console-socket", dir+"/none", other)
	h.fails("does not exist", "state", other)
}

func hook(t *testing.T, name, script string) specs.Hook {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return specs.Hook{Path: path, Args: []string{name}}
}

func TestHooks(t *testing.T) {
	h := newHost(t)
	log := filepath.Join(t.TempDir(), "log")
	note := func(name string) []specs.Hook {
		return []specs.Hook{hook(t, name, "{ echo "+name+" $(pwd) $(env | grep -c -E 'SECRET|OF'); cat; echo; } >> "+log)}
	}
	h.spec.Process.Env = append(h.spec.Process.Env, "OF=image", "LD_PRELOAD=/evil.so")
	h.spec.Hooks = &specs.Hooks{
		Prestart: note("prestart"), CreateRuntime: note("createRuntime"), Poststart: note("poststart"), Poststop: note("poststop"), //nolint:staticcheck
		CreateContainer: []specs.Hook{hook(t, "createContainer", "{ echo createContainer $(hostname); cat; echo; } > "+log+".inside; mount -t tmpfs made-by-hook "+h.bundle+"/rootfs/mnt")},
		StartContainer:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > /tmp/state; pwd >> /tmp/state"}}},
	}
	h.spec.Root.Readonly = false
	h.writeSpec()
	id := h.id()
	h.must("create", "--bundle", h.bundle, id)
	pid := h.state(id).Pid
	if _, err := os.Stat(filepath.Join(h.bundle, "rootfs/tmp/state")); err == nil {
		t.Error("startContainer hook ran at create")
	}
	h.must("start", id)
	if out := h.must("exec", id, "cat", "/proc/mounts"); !strings.Contains(out, "made-by-hook /mnt tmpfs") {
		t.Errorf("the mount of the createContainer hook is not in the container:\n%s", out)
	}
	h.must("kill", id, "KILL")
	h.waitStatus(id, stopped)
	h.must("delete", id)
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var order []string
	for i := 0; i+1 < len(lines); i += 2 {
		name, rest, _ := strings.Cut(lines[i], " ")
		order = append(order, name)
		if rest != "/ 0" {
			t.Errorf("%s ran with directory and foreign variables %q, want / and none", name, rest)
		}
		var s specs.State
		if err := json.Unmarshal([]byte(lines[i+1]), &s); err != nil {
			t.Errorf("%s: state %q: %v", name, lines[i+1], err)
			continue
		}
		want := map[string]specs.ContainerState{"prestart": creating, "createRuntime": creating, "poststart": running, "poststop": stopped}[name]
		if s.ID != id || s.Status != want || s.Bundle != h.bundle || name != "poststop" && s.Pid != pid {
			t.Errorf("%s got %+v", name, s)
		}
	}
	if want := []string{"prestart", "createRuntime", "poststart", "poststop"}; !slices.Equal(order, want) {
		t.Errorf("hooks ran as %v, want %v", order, want)
	}
	inside, err := os.ReadFile(log + ".inside")
	if err != nil || !strings.HasPrefix(string(inside), "createContainer hull\n{") {
		t.Errorf("createContainer hook, which runs in the container's namespaces, left %q, %v", inside, err)
	}
	inside, err = os.ReadFile(filepath.Join(h.bundle, "rootfs/tmp/state"))
	if err != nil || !strings.Contains(string(inside), id) || !strings.HasSuffix(string(inside), "}/\n") {
		t.Errorf("startContainer hook left %q, %v", inside, err)
	}
}

func TestHookFailures(t *testing.T) {
	h := newHost(t)
	stopFile := filepath.Join(t.TempDir(), "stopped")
	h.spec.Hooks = &specs.Hooks{
		CreateRuntime: []specs.Hook{hook(t, "bad", "echo reason; exit 3")},
		Poststop:      []specs.Hook{hook(t, "stop", "echo x > "+stopFile)},
	}
	h.writeSpec()
	id := h.id()
	h.fails("createRuntime hook: ", "create", "--bundle", h.bundle, id)
	h.fails("does not exist", "state", id)
	if _, err := os.Stat(stopFile); err != nil {
		t.Error("poststop hook did not run after a failed create")
	}
	h.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{hook(t, "bad", "exit 3")}}
	h.writeSpec()
	h.fails("createContainer hook: ", "create", "--bundle", h.bundle, h.id())
	one := 1
	slow := hook(t, "slow", "sleep 60 & sleep 60")
	slow.Timeout = &one
	h.spec.Hooks = &specs.Hooks{Prestart: []specs.Hook{slow}} //nolint:staticcheck
	h.writeSpec()
	began := time.Now()
	h.fails("timeout of 1 s", "create", "--bundle", h.bundle, h.id())
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("a hook with a timeout of 1 s held create up for %v", d)
	}
	h.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{hook(t, "bad", "exit 3")}}
	h.writeSpec()
	id = h.id()
	h.must("run", "-d", "--bundle", h.bundle, id)
	h.must("delete", "--force", id)
	h.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "relative"}}}
	h.writeSpec()
	h.fails("poststart hook: path \"relative\" is not absolute", "create", "--bundle", h.bundle, h.id())
}

// A create that dies leaves what delete --force clears up, with the process that may exist already.
func TestKilledCreate(t *testing.T) {
	h := newHost(t)
	h.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{hook(t, "slow", "sleep 1000")}}
	h.writeSpec()
	id := h.id()
	cmd := h.command("create", "--bundle", h.bundle, id)
	cmd.SysProcAttr = &unix.SysProcAttr{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for i := 0; pid == 0; i++ {
		if i == 300 {
			t.Fatal("no process appeared")
		}
		time.Sleep(10 * time.Millisecond)
		if out, _, code := h.run("state", id); code == 0 {
			var s specs.State
			json.Unmarshal([]byte(out), &s)
			pid = s.Pid
		}
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	cmd.Process.Kill()
	cmd.Wait()
	for _, c := range strings.Fields(string(children)) { // the hook
		if n, _ := strconv.Atoi(c); n != pid {
			unix.Kill(-n, unix.SIGKILL)
		}
	}
	h.must("delete", "--force", id)
	if st, _ := processState(pid); st != 0 && st != 'Z' {
		t.Errorf("process %d of the container is still there, in state %c", pid, st)
	}
}

func TestOneOfManyCreatesWins(t *testing.T) {
	h := newHost(t)
	h.writeSpec()
	id := h.id()
	codes := make(chan int)
	for range 8 {
		go func() {
			cmd := h.command("create", "--bundle", h.bundle, id)
			cmd.Run()
			codes <- cmd.ProcessState.ExitCode()
		}()
	}
	won := 0
	for range 8 {
		if <-codes == 0 {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d creates of one name succeeded, want 1", won)
	}
	h.must("delete", "--force", id)
}

func TestPreservedDescriptors(t *testing.T) {
	h := newHost(t)
	h.spec.Process.Args = []string{"sh", "-c", "cat <&3; ls /proc/self/fd"}
	h.writeSpec()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("through 3\n")
	w.Close()
	cmd := h.command("run", "--bundle", h.bundle, "--preserve-fds", "1", h.id())
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.Output()
	// ls opens the directory itself as one more.
	if err != nil || string(out) != "through 3\n0\n1\n2\n3\n4\n" {
		t.Errorf("%q, %v", out, err)
	}
	h.fails("not open", "run", "--bundle", h.bundle, "--preserve-fds", "99", h.id())
}

func TestUpdate(t *testing.T) {
	h := newHost(t)
	if !slices.Contains(cgroup.Detect().Controllers(), "pids") {
		t.Skip("no pids controller")
	}
	h.writeSpec()
	id := h.id()
	h.must("run", "-d", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	h.must("update", "--pids-limit", "23", id)
	cmd := h.command("update", "-r", "-", id)
	cmd.Stdin = strings.NewReader(`{"pids":{"limit":24},"memory":{"limit":33554432}}`)
	g, err := cgroup.Open(cgroup.Detect(), "hull-runtime/"+id)
	if err != nil {
		t.Fatal(err)
	}
	if n := g.Stats().PidsLimit; n != 23 {
		t.Errorf("pids limit %d, want 23", n)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if s := g.Stats(); s.PidsLimit != 24 || s.MemoryLimit != 33554432 && s.MemoryLimit != 0 {
		t.Errorf("%+v", s)
	}
	h.fails("not a number", "update", "--memory", "x", id)
}

func TestLogAndUsage(t *testing.T) {
	h := newHost(t)
	log := filepath.Join(t.TempDir(), "log")
	h.fails("does not exist", "--log", log, "--log-format", "json", "start", "nothing")
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// A warning with a log is no business of the container's stderr.
	c := &command{log: log, logFormat: "text"}
	c.report("warning", "beware")
	if data, _ := os.ReadFile(log); !strings.Contains(string(data), `level=warning msg="beware"`) {
		t.Errorf("log %q has no warning", data)
	}
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(bytes.TrimSpace(data), &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "nothing") {
		t.Errorf("log %q: %+v, %v", data, line, err)
	}
	for _, bad := range [][]string{
		{"frobnicate"}, {"start"}, {"start", "a", "b"}, {"state", "../x"}, {"state", ""}, {"--no-such-flag", "list"},
		{"--log-format", "xml", "list"}, {"kill", "x", "SIGNOTHING"}, {"--systemd-cgroup", "list"}, {"list", "--format", "xml"},
		{"create", "--bundle", "/nowhere", "x"}, {"create", "--no-pivot", "--bundle", h.bundle, "x"},
	} {
		if _, stderr, code := h.run(bad...); code == 0 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, want a failure in one line", bad, code, stderr)
		}
	}
	for _, good := range [][]string{{"--version"}, {"--help"}, {"create", "--help"}, {"features"}, {"list"}, {}} {
		h.must(good...)
	}
	if out := h.must("--version"); !strings.Contains(out, "spec: 1.3.0") {
		t.Errorf("version %q", out)
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "RTMIN+1": 35, "SIGRTMAX-1": 63, "usr1": 10} {
		if got, err := parseSignal(s); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "SIG", "RTMIN+99", "RTMAX+1", "FOO"} {
		if got, err := parseSignal(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestLogLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got, want := logLine("text", "error", "a \"b\"\n", at), `time="2026-01-02T03:04:05Z" level=error msg="a \"b\"\n"`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSpecOnlyOnce(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	h.must("spec", "-b", dir)
	h.fails("Remove it first", "spec", "-b", dir)
	if _, err := readSpec(filepath.Join(dir, specFile)); err != nil {
		t.Error(err)
	}
}

// The stream of a container whose runtime stays with it ends with it.
func TestRunPassesStreams(t *testing.T) {
	h := newHost(t)
	h.spec.Process.Args = []string{"cat"}
	h.writeSpec()
	cmd := h.command("run", "--bundle", h.bundle, h.id())
	cmd.Stdin = strings.NewReader("through")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(out)
	if err != nil || string(data) != "through" {
		t.Errorf("%q, %v", data, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// On most hosts every mount is shared: what a container mounts below a bind must not appear on the host, unless asked for.
func TestSharedMounts(t *testing.T) {
	h := newHost(t)
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("hrt-shared", shared, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount here: ", err)
	}
	t.Cleanup(func() { unix.Unmount(shared, unix.MNT_DETACH) })
	if err := unix.Mount("", shared, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	// The root as well: pivot_root(2) refuses one that is shared.
	rootfs := filepath.Join(h.bundle, "rootfs")
	if err := unix.Mount(rootfs, rootfs, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(rootfs, unix.MNT_DETACH)
	if err := unix.Mount("", rootfs, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*[]string{&h.spec.Process.Capabilities.Bounding, &h.spec.Process.Capabilities.Permitted, &h.spec.Process.Capabilities.Effective} {
		*c = append(slices.Clone(*c), "CAP_SYS_ADMIN")
	}
	h.spec.Root.Readonly = false
	h.spec.Process.Args = []string{"/bin/busybox", "sh", "-c", "busybox mkdir -p /mnt/sub && busybox mount -t tmpfs from-inside /mnt/sub; busybox mount -t tmpfs from-inside /tmp"}
	for _, tt := range []struct {
		options []string
		want    bool
	}{
		{[]string{"rbind"}, false}, {[]string{"rbind", "rprivate"}, false}, {[]string{"rbind", "rslave"}, false}, {[]string{"rbind", "rshared"}, true},
	} {
		h.spec.Mounts = append(exampleSpec().Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: shared, Options: tt.options})
		h.writeSpec()
		h.must("run", "--bundle", h.bundle, h.id())
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(mounts), shared+"/sub "); got != tt.want {
			t.Errorf("%v: a mount of the container is on the host: %v, want %v", tt.options, got, tt.want)
		}
		if strings.Contains(string(mounts), rootfs+"/tmp ") {
			t.Errorf("%v: a mount in the container's root is on the host", tt.options)
		}
		unix.Unmount(shared+"/sub", unix.MNT_DETACH)
	}
}
