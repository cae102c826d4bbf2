package runtime

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/errdef"
	"hull/kernel"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const busybox = "/bin/busybox"

// layer makes an unpacked layer with busybox in it.
func layer(t testing.TB) string {
	t.Helper()
	exe, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip("needs busybox-static: ", err)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), exe, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "id", "ls", "cat", "mount", "hostname", "stat", "tty", "sleep", "readlink", "grep", "touch", "ip", "stty", "pwd", "env"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n1001:x:5:5::/:/bin/sh\n",
		"group":  "root:x:0:\nuser:x:1001:\nwheel:x:10:user\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var namespaces = []specs.LinuxNamespaceType{
	specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace,
	specs.CgroupNamespace, specs.UserNamespace, specs.TimeNamespace,
}

// root says whether the tests have its rights. Without them one id is mapped and the children mount the overlay.
func root() bool { return os.Geteuid() == 0 }

// config is a container as the engine makes them: all namespaces, ids of its own, an overlay.
func config(t testing.TB, args ...string) *Config {
	t.Helper()
	id := rand.Text()
	work := t.TempDir()
	for _, d := range []string{"bundle", "rw/upper", "rw/work"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	uids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0xF0000000, Size: 65536}}
	gids := uids
	if !root() {
		uids = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Geteuid()), Size: 1}}
		gids = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Getegid()), Size: 1}}
	}
	s := &specs.Spec{
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{},
		},
		Root:     &specs.Root{},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			UIDMappings: uids, GIDMappings: gids,
			MaskedPaths:   []string{"/proc/kcore", "/proc/acpi", "/sys/firmware", "/proc/nothing"},
			ReadonlyPaths: []string{"/proc/sys", "/proc/bus"},
			Resources:     &specs.LinuxResources{},
		},
	}
	for _, ns := range namespaces {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: ns})
	}
	cfg := &Config{
		ID: id, Bundle: filepath.Join(work, "bundle"), Spec: s, Cgroup: "hull-test/" + id,
		Root: &Overlay{Lower: []string{layer(t)}, Upper: filepath.Join(work, "rw/upper"), Work: filepath.Join(work, "rw/work"), Volatile: true},
	}
	t.Cleanup(func() {
		if err := Delete(deadline(t), cfg); err != nil {
			t.Error("delete: ", err)
		}
		for _, d := range []string{"work", "work/incompat", "work/incompat/volatile"} { // overlayfs makes them with no rights at all
			os.Chmod(filepath.Join(work, "rw/work", d), 0o700)
		}
	})
	return cfg
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// run runs the container to its end and returns what it printed.
func run(t testing.TB, cfg *Config) (string, unix.WaitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cfg.Stdio = [3]*os.File{nil, w, w}
	c, err := Create(deadline(t), cfg)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings {
		t.Log("warning: ", w)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := kernel.Reap(c.Pid)
	if err != nil {
		t.Fatal(err)
	}
	c.Pidfd.Close()
	return string(out), ws
}

// sh runs a script in a container changed by with.
func sh(t testing.TB, script string, with func(*specs.Spec)) string {
	t.Helper()
	cfg := config(t, "sh", "-c", script)
	if with != nil {
		with(cfg.Spec)
	}
	out, ws := run(t, cfg)
	if ws.ExitStatus() != 0 {
		t.Errorf("exit %d of %q: %s", ws.ExitStatus(), script, out)
	}
	return out
}

func TestRun(t *testing.T) {
	out, ws := run(t, config(t, "sh", "-c", "id -u; hostname; exit 42"))
	if out != "0\nbox\n" || ws.ExitStatus() != 42 {
		t.Errorf("want 0, box, exit 42; got %q, %v", out, ws)
	}
}

func TestNamespacesAreNew(t *testing.T) {
	names := []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
	out := strings.Fields(sh(t, "for n in "+strings.Join(names, " ")+"; do readlink /proc/self/ns/$n; done", nil))
	if len(out) != len(names) {
		t.Fatalf("want %d namespaces, got %q", len(names), out)
	}
	for i, n := range names {
		if host, _ := os.Readlink("/proc/self/ns/" + n); out[i] == host {
			t.Errorf("namespace %s is the host's", n)
		}
	}
}

func TestRootIsPrivateAndMapped(t *testing.T) {
	out := sh(t, "touch /tmp/x; stat -c %u:%g /bin/busybox /tmp/x /dev/null /proc/kcore; ls /proc/acpi /sys/firmware | grep -v :; cat /proc/kcore; echo 1 > /proc/sys/vm/drop_caches || echo denied", nil)
	want := "0:0\n0:0\n0:0\n"
	if !root() {
		want = "0:0\n0:0\n65534:65534\n" // without privileges the device is the host's own node
	}
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "denied") {
		t.Errorf("unexpected %q", out)
	}
}

func TestDescriptors(t *testing.T) {
	out := sh(t, "ls /proc/self/fd", nil)
	if out != "0\n1\n2\n3\n" { // 3 is the directory ls reads
		t.Errorf("want 0 1 2 and the directory, got %q", out)
	}
}

func TestLoopbackIsUp(t *testing.T) {
	if out := sh(t, "ip addr show lo", nil); !strings.Contains(out, "127.0.0.1") || !strings.Contains(out, "UP") {
		t.Errorf("want lo up, got %q", out)
	}
}

func TestUser(t *testing.T) {
	if !root() {
		t.Skip("needs root: more than one mapped id")
	}
	for user, want := range map[string]string{
		"user":    "1000 1001 1001 10 /home/user",
		"1000":    "1000 1001 1001 10 /home/user",
		"1001":    "1001 0 0 /",
		"user:10": "1000 10 10 /home/user",
		"0:wheel": "0 10 10 /root",
		"7:8":     "7 8 8 /",
		"":        "0 0 /root",
	} {
		cfg := config(t, "sh", "-c", "echo $(id -u) $(id -g) $(id -G) $HOME")
		cfg.Spec.Process.User.Username = user
		if user == "" {
			want = "0 0 0 /root"
		}
		if out, _ := run(t, cfg); strings.TrimSpace(out) != want {
			t.Errorf("user %q: want %q, got %q", user, want, out)
		}
	}
	for _, user := range []string{"nobody", "4294967295", "-1", "4294967296", "1000000000000:0", "0:nogroup", "70000"} {
		cfg := config(t, "true")
		cfg.Spec.Process.User.Username = user
		if _, err := Create(deadline(t), cfg); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("user %q: want invalid, got %v", user, err)
		}
	}
}

func TestNoCommand(t *testing.T) {
	for args, want := range map[string]error{
		"nothing": errdef.ErrNoCommand, "/bin/nothing": errdef.ErrNoCommand, "/etc/passwd": errdef.ErrCannotRun,
		"/etc": errdef.ErrCannotRun,
	} {
		_, err := Create(deadline(t), config(t, args))
		if !errors.Is(err, want) {
			t.Errorf("%s: want %v, got %v", args, want, err)
		}
	}
}

func TestTerminal(t *testing.T) {
	cfg := config(t, "sh", "-c", "tty; stty size; ls -l /dev/console; cat <>/dev/tty")
	cfg.Spec.Process.Terminal = true
	cfg.Spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	c, err := Create(deadline(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Pidfd.Close()
	defer c.Terminal.Close()
	if _, err := c.Terminal.WriteString("hello\n\x04"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(c.Terminal) // EIO at the end
	ws, err := kernel.Reap(c.Pid)
	if err != nil || ws.ExitStatus() != 0 {
		t.Errorf("want exit 0, got %v, %v", ws, err)
	}
	for _, want := range []string{"/dev/pts/0", "33 99", "hello"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("want %q in %q", want, out)
		}
	}
}

func TestStartFifo(t *testing.T) {
	cfg := config(t, "sh", "-c", "exit 3")
	cfg.StartFifo = filepath.Join(cfg.Bundle, "start")
	if err := unix.Mkfifo(cfg.StartFifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Create(deadline(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Pidfd.Close()
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(c.Pidfd.Fd()), Events: unix.POLLIN}}, 50); n > 0 {
		t.Fatal("the process did not wait for start")
	}
	if err := Start(cfg.StartFifo); err != nil {
		t.Fatal(err)
	}
	if ws, err := kernel.Reap(c.Pid); err != nil || ws.ExitStatus() != 3 {
		t.Errorf("want exit 3, got %v, %v", ws, err)
	}
}

// What was prepared and never run leaves nothing: no group, no descriptor, and a root that can be mounted again.
func TestPrepareDiscard(t *testing.T) {
	cfg := config(t, "true")
	before := descriptors(t)
	p, err := Prepare(deadline(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Discard(t.Context()); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, _ := filepath.Glob(pattern + cfg.cgroupPath()); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if out, ws := run(t, cfg); ws.ExitStatus() != 0 {
		t.Errorf("run after discard: %v, %s", ws, out)
	}
}

func descriptors(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestExec(t *testing.T) {
	cfg := config(t, "sleep", "100")
	c, err := Create(deadline(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Pidfd.Close()
	defer kernel.Reap(c.Pid)
	defer c.Pidfd.Close()
	defer unix.PidfdSendSignal(int(c.Pidfd.Fd()), unix.SIGKILL, nil, 0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	script := "id -u; hostname; pwd; for n in cgroup ipc mnt net pid time user uts; do test $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) || echo $n differs; done; ls /proc/self/fd; grep -c hull-test /proc/self/cgroup"
	p := &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/tmp", Env: []string{"PATH=/bin"}, Capabilities: &specs.LinuxCapabilities{}}
	e, err := Exec(deadline(t), &Target{Pid: c.Pid, Pidfd: c.Pidfd, Cgroup: cfg.Cgroup, Spec: cfg.Spec}, p, [3]*os.File{nil, w, w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Pidfd.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	ws, _ := kernel.Reap(e.Pid)
	if want := "0\nbox\n/tmp\n0\n1\n2\n3\n0\n"; string(out) != want {
		t.Errorf("want %q, got %q (%v)", want, out, ws)
	}
}

// TestDeadline: a start that is not done at the deadline leaves nothing.
func TestDeadline(t *testing.T) {
	cfg := config(t, "true")
	cfg.StartFifo = filepath.Join(cfg.Bundle, "start")
	if err := unix.Mkfifo(cfg.StartFifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), -time.Second)
	defer cancel()
	if _, err := Create(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("want deadline exceeded, got %v", err)
	}
}

func BenchmarkRun(b *testing.B) {
	cfg := config(b, "true")
	for b.Loop() {
		c, err := Create(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := kernel.Reap(c.Pid); err != nil {
			b.Fatal(err)
		}
		c.Pidfd.Close()
		if err := Delete(context.Background(), cfg); err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(cfg.Root.Work, "work")); err != nil {
			b.Fatal(err)
		}
	}
}
