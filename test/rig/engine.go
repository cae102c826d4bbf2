package rig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hull/engine"
	"hull/network/nft"
	"hull/runtime"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Hull is an engine of a test's own: programs, store and run directory. Its methods may be used from several
// goroutines.
type Hull struct {
	Dir     string // holds everything below and is removed at the end
	Root    string // the store
	RunDir  string
	Program string   // bin/hull, or what a test puts here
	Env     []string // of every command; HULL_ROOT and HULL_RUN are among them
	// Through, when set, is the command line that a hull command line is appended to: to run as another user, say.
	Through []string

	base Census // what Check compares with
}

// Result is what one command did.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status; 128 plus the signal that killed it
}

// Engine makes a private engine for t. At the end of t the census of the engine is compared with the one taken at
// the last call of Mark (at first: nothing there), then whatever is left is killed and removed.
func Engine(t testing.TB) *Hull {
	t.Helper()
	Root(t)
	return private(t, "/var/tmp")
}

// EngineIn is Engine with its directories below parent, and without the demand for root: for small file systems
// and for the engines of ordinary users.
func EngineIn(t testing.TB, parent string) *Hull {
	t.Helper()
	return private(t, parent)
}

func private(t testing.TB, parent string) *Hull {
	t.Helper()
	// A real disk, not a tmpfs; and short, because sockets below it have 108 bytes for their path.
	dir, err := os.MkdirTemp(parent, "rig-")
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	h := &Hull{Dir: dir, Root: dir + "/root", RunDir: dir + "/run", Program: Bin(t, "hull")}
	if err := os.Mkdir(dir+"/home", 0o755); err != nil {
		t.Fatal(err)
	}
	// The machine's own settings are not the test's.
	if err := os.WriteFile(dir+"/hull.toml", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Env = []string{"HULL_ROOT=" + h.Root, "HULL_RUN=" + h.RunDir, "HULL_CONFIG=" + dir + "/hull.toml", "HOME=" + dir + "/home", "TERM=xterm",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	t.Cleanup(func() { h.close(t) })
	h.Mark(t)
	return h
}

// Instance is the name of this engine's cgroups.
func (h *Hull) Instance() string {
	return engine.Open(h.Root, h.RunDir, engine.Options{}).Instance()
}

// Cmd is a hull command with this engine's environment, killed when t ends.
func (h *Hull) Cmd(t testing.TB, args ...string) *exec.Cmd {
	line := slices.Concat(h.Through, []string{h.Program}, args)
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = slices.Clone(h.Env)
	cmd.Dir = h.Dir
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a hull command to its end, which may take a minute on a common machine.
func (h *Hull) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return h.RunStdin(t, nil, args...)
}

// RunStdin is Run with something to read.
func (h *Hull) RunStdin(t testing.TB, stdin io.Reader, args ...string) Result {
	t.Helper()
	cmd := h.Cmd(t, args...)
	cmd.Stdin = stdin
	return Do(t, cmd)
}

// Must is Run of a command that has to succeed; it returns its output without the final newline.
func (h *Hull) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := h.Run(t, args...)
	if r.Code != 0 {
		t.Fatalf("hull %s: exit status %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Load loads the archive and takes a new base for the census.
func (h *Hull) Load(t testing.TB, archive string) {
	t.Helper()
	h.Must(t, "load", "-q", "-i", archive)
	h.Mark(t)
}

// Do runs cmd to its end and collects what it did. It does not fail t on an exit status, only when cmd cannot be
// run or hangs.
func Do(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	limit := Patience(time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !stop() {
		t.Fatalf("%s: no end after %v\n%s%s", cmd, limit, &stdout, &stderr)
	}
	// A monitor that kept the pipes would be a bug of ours that the caller's user sees as a hang.
	if errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("%s: somebody holds its output open after it ended", cmd)
	}
	code := cmd.ProcessState.ExitCode()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return Result{stdout.String(), stderr.String(), code}
}

// close compares the census a last time and then removes everything of the engine, in whatever state it is.
func (h *Hull) close(t testing.TB) {
	t.Helper()
	if exists(h.Root) && !t.Failed() {
		h.Check(t)
	}
	h.Destroy(t)
	if err := state.Remove(h.Dir); err != nil {
		t.Errorf("remove the engine's directory: %v", err)
	}
}

// removeGroup removes a cgroup whose processes have been killed, which takes them a moment.
func removeGroup(dir string) error {
	for end := time.Now().Add(Patience(10 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(dir)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// Destroy kills every process of the engine and removes its cgroups, claims and mounts, not its store.
func (h *Hull) Destroy(t testing.TB) {
	t.Helper()
	h.Kill(t)
	for _, dir := range h.allCgroups() { // deepest first
		if err := removeGroup(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("remove cgroup: %v", err)
		}
	}
	for _, claim := range append(h.claims(), h.subnets()...) {
		os.Remove(claim)
	}
	h.RemoveBridge(t)
	h.removeTables(t)
	for _, m := range slices.Backward(h.mounts("self")) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", m, err)
		}
	}
}

// Reboot leaves of the engine what a reboot of the machine leaves: its store.
func (h *Hull) Reboot(t testing.TB) {
	t.Helper()
	h.Destroy(t)
	if err := os.RemoveAll(h.RunDir); err != nil {
		t.Fatal(err)
	}
}

// RemoveBridge removes the default network's.
func (h *Hull) RemoveBridge(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := runtime.Disconnect(h.Bridge()); err != nil {
		t.Errorf("remove the bridge: %v", err)
	}
}

// removeTables removes the engine's nftables.
func (h *Hull) removeTables(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := h.Table().Remove(); err != nil {
		t.Errorf("remove the firewall tables: %v", err)
	}
}

// Table is the engine's nftables.
func (h *Hull) Table() nft.Table { return nft.Table{Name: h.Instance()} }

// Bridge is the device of the engine's default network.
func (h *Hull) Bridge() string { return h.Instance() }

// Kill sends SIGKILL to every process of the engine, monitors and containers, until none is left.
func (h *Hull) Kill(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(Patience(10 * time.Second)); ; time.Sleep(5 * time.Millisecond) {
		pids := h.Pids()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		if time.Now().After(end) {
			t.Errorf("these processes do not die: %v", h.processes())
			return
		}
	}
}

// Pids are the living processes of this engine: those in its cgroups, those whose program or command line lies in
// its directory, and commands on it.
func (h *Hull) Pids() []int {
	var pids []int
	self, group := os.Getpid(), []byte("/"+h.Instance())
	for _, pid := range allPids() {
		if pid != self && h.owns(pid, group) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (h *Hull) owns(pid int, group []byte) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	if b, err := os.ReadFile(proc + "/stat"); err != nil || dead(b) {
		return false
	}
	if b, _ := os.ReadFile(proc + "/cgroup"); bytes.Contains(b, group) {
		return true
	}
	exe, _ := os.Readlink(proc + "/exe")
	if strings.HasPrefix(exe, h.Dir+"/") {
		return true
	}
	if b, _ := os.ReadFile(proc + "/cmdline"); bytes.Contains(b, []byte(h.Dir+"/")) {
		return true
	}
	// A command that a client left behind tells by its environment only.
	if exe != h.Program {
		return false
	}
	b, _ := os.ReadFile(proc + "/environ")
	return bytes.Contains(b, []byte("HULL_ROOT="+h.Root+"\x00"))
}

// dead tells from /proc/PID/stat whether the process has ended and only waits for its parent.
func dead(stat []byte) bool {
	i := bytes.LastIndexByte(stat, ')')
	return i < 0 || i+2 >= len(stat) || stat[i+2] == 'Z' || stat[i+2] == 'X'
}

func allPids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
