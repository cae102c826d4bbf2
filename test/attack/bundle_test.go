package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/runtime"
	"hull/state"
	"hull/test/rig"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundle is an OCI bundle that an attacker had a hand in. It has no user namespace: what holds here holds with one.
type bundle struct {
	id   string
	dir  string
	root string // dir/rootfs
	spec specs.Spec
}

// newBundle makes a bundle with busybox and the attacker in it; mounts are those every engine asks for.
func newBundle(t *testing.T, args ...string) *bundle {
	t.Helper()
	rig.Root(t)
	dir, err := os.MkdirTemp("/var/tmp", "attack-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{id: filepath.Base(dir), dir: dir, root: dir + "/rootfs"}
	t.Cleanup(func() {
		if err := state.Remove(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	for _, name := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "vol"} {
		if err := os.MkdirAll(filepath.Join(b.root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, rig.Tool(t, "busybox"), b.root+"/bin/busybox")
	copyFile(t, attacker(t), b.root+"/bin/attacker")
	b.symlink(t, "busybox", "bin/sh")
	b.spec = specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/hull-attack/" + b.id,
			Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
	return b
}

var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// symlink makes name in the root file system a link to target, instead of what is there.
func (b *bundle) symlink(t *testing.T, target, name string) {
	t.Helper()
	path := filepath.Join(b.root, name)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// withoutMount drops the mount, so that the image's own directory is used.
func (b *bundle) withoutMount(destinations ...string) {
	var kept []specs.Mount
	for _, m := range b.spec.Mounts {
		drop := false
		for _, d := range destinations {
			drop = drop || m.Destination == d
		}
		if !drop {
			kept = append(kept, m)
		}
	}
	b.spec.Mounts = kept
}

// hull runs the bundle with our runtime to its end. err is why it did not start.
func (b *bundle) hull(t *testing.T) (output string, err error) {
	t.Helper()
	spec := b.clone(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cfg := &runtime.Config{ID: b.id, Bundle: b.dir, Spec: spec, Cgroup: "hull-attack/" + b.id, Stdio: [3]*os.File{nil, w, w}}
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience(20*time.Second))
	defer cancel()
	defer func() {
		if err := runtime.Delete(ctx, cfg); err != nil {
			t.Errorf("delete: %v", err)
		}
		removeGroups("hull-attack")
	}()
	c, err := runtime.Create(ctx, cfg)
	w.Close()
	if err != nil {
		return "", err
	}
	source := r
	if c.Terminal != nil {
		source = c.Terminal
	}
	var out bytes.Buffer
	var reader sync.WaitGroup
	reader.Go(func() { io.Copy(&out, source) })
	stop := context.AfterFunc(ctx, func() { unix.Kill(c.Pid, unix.SIGKILL) })
	var status unix.WaitStatus
	for {
		if _, err = unix.Wait4(c.Pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if !stop() {
		t.Error("the container did not end")
	}
	c.Pidfd.Close()
	if err != nil {
		t.Fatal(err)
	}
	reader.Wait()
	if c.Terminal != nil {
		c.Terminal.Close()
	}
	return out.String(), nil
}

// runc runs the bundle with Debian's runc. ok is false when there is none.
func (b *bundle) runc(t *testing.T) (output string, ok bool) {
	t.Helper()
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Log("control: runc is not installed")
		return "", false
	}
	text, err := json.Marshal(b.clone(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.dir+"/config.json", text, 0o600); err != nil {
		t.Fatal(err)
	}
	id := "control-" + b.id
	defer func() {
		exec.Command(runc, "--root", b.dir+"/runc", "delete", "--force", id).Run()
		removeGroups("hull-attack")
	}()
	cmd := exec.CommandContext(t.Context(), runc, "--root", b.dir+"/runc", "run", "--bundle", b.dir, id)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	lines := strings.SplitAfterN(out.String(), "\n", 6)
	t.Logf("control: runc ended with %v: %s", err, strings.Join(lines[:min(len(lines), 5)], ""))
	return out.String(), true
}

// debianRunc tells whether runc is the one of Debian 12, whose holes are known.
func debianRunc() bool {
	out, err := exec.Command("runc", "--version").Output()
	return err == nil && strings.Contains(string(out), "runc version 1.1.5")
}

func (b *bundle) clone(t *testing.T) *specs.Spec {
	t.Helper()
	text, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	return &spec
}

// removeGroups removes the empty control groups that bundles were in; engines have their own cleaning.
func removeGroups(parent string) {
	for _, pattern := range []string{"/sys/fs/cgroup/%s", "/sys/fs/cgroup/*/%s"} {
		groups, _ := filepath.Glob(fmt.Sprintf(pattern, parent))
		for _, g := range groups {
			children, _ := filepath.Glob(g + "/*/")
			for _, c := range children {
				os.Remove(c)
			}
			os.Remove(g)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

var built struct {
	once sync.Once
	path string
	err  error
}

// attacker builds test/attack/attacker, once for all tests. In the guest of make test-vm it is there already.
func attacker(t *testing.T) string {
	t.Helper()
	if rig.Guest() {
		return "attacker.bin"
	}
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "attacker-")
		if err != nil {
			built.err = err
			return
		}
		built.path = dir + "/attacker"
		cmd := exec.Command("go", "build", "-o", built.path, "./attacker")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the attacker: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.path != "" {
		os.RemoveAll(filepath.Dir(built.path))
	}
	os.Exit(code)
}
