package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A02: the working directory is a leaked descriptor of the host (CVE-2024-21626).
// Must: the start is refused, or the process is inside its root.
func TestA02WorkingDirectory(t *testing.T) {
	dir, file := canaries(t)
	b := newBundle(t, "/bin/attacker", "leak", file)
	leaked, err := os.Open(dir) // somebody's descriptor without close-on-exec is below too
	if err != nil {
		t.Fatal(err)
	}
	defer leaked.Close()
	b.symlink(t, "/proc/self/fd/7/../../..", "link")
	b.symlink(t, "/proc/1/cwd", "one")
	cwds := []string{"/link", "/one", "/proc/1/cwd", "/proc/self/cwd", "/proc/1/root"}
	for fd := 3; fd < 24; fd++ {
		cwds = append(cwds, fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("/proc/self/fd/%d/../../..", fd))
	}
	shown := false
	for _, cwd := range cwds {
		b.spec.Process.Cwd = cwd
		if out, err := b.hull(t); err == nil {
			held(t, out)
		}
	}
	for _, cwd := range []string{"/proc/self/fd/7", "/proc/self/fd/8"} {
		b.spec.Process.Cwd = cwd
		if out, ok := b.runc(t); ok && len(successes(out)) > 0 {
			shown = true
		}
	}
	if !shown {
		t.Log("control: no hole shown; Debian's 1.1.5+ds1-1+deb12u1 carries the fix of CVE-2024-21626")
	}
}

// A04: /dev of the image is a link to a directory of the host (CVE-2026-41579).
// Must: nothing is made there, whether /dev is a mount or the image's own directory.
func TestA04DevSymlink(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, b *bundle, host string)
		control bool // runc 1.1.5 is known to write outside
	}{
		{"dev, no mount", func(t *testing.T, b *bundle, host string) {
			b.withoutMount("/dev", "/dev/pts")
			b.symlink(t, host, "dev")
		}, true},
		{"dev, mount", func(t *testing.T, b *bundle, host string) { b.symlink(t, host, "dev") }, true},
		{"dev relative, no mount", func(t *testing.T, b *bundle, host string) {
			b.withoutMount("/dev", "/dev/pts")
			b.symlink(t, strings.Repeat("../", 12)+host[1:], "dev")
		}, true},
		{"dev/pts, dev/shm and dev/mqueue", func(t *testing.T, b *bundle, host string) {
			b.withoutMount("/dev")
			for _, name := range []string{"dev/pts", "dev/shm", "dev/mqueue"} {
				b.symlink(t, host, name)
			}
			b.spec.Mounts = append(b.spec.Mounts,
				specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "size=65536k"}},
				specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"})
		}, false},
		{"dev/null", func(t *testing.T, b *bundle, host string) {
			b.withoutMount("/dev", "/dev/pts")
			b.symlink(t, host+"/null", "dev/null")
			b.symlink(t, host+"/fd", "dev/fd")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, _ := canaries(t)
			b := newBundle(t, "/bin/sh", "-c", "echo '# ran'")
			c.prepare(t, b, host+"/empty")
			before := inventory(t, host)
			if out, err := b.hull(t); err != nil {
				t.Logf("refused: %v", err)
			} else if !strings.Contains(out, "# ran") {
				t.Errorf("the container said %q", out)
			}
			for _, line := range changes(before, inventory(t, host)) {
				t.Errorf("canary: %s", line)
			}
			control(t, b, host+"/empty", c.control)
		})
	}
}

// control runs the bundle with runc and empties the directory again that it may have filled.
func control(t *testing.T, b *bundle, dir string, want bool) {
	t.Helper()
	if _, ok := b.runc(t); !ok {
		return
	}
	made, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range made {
		t.Logf("control: runc made %s", filepath.Join(dir, e.Name()))
		os.Remove(filepath.Join(dir, e.Name()))
	}
	if want && len(made) == 0 && debianRunc() {
		t.Error("control: runc 1.1.5 wrote nothing outside: the test cannot fail")
	}
}

// A06: /dev/console or /dev/pts/0 of the image is a link to a file of the host when a terminal is asked for
// (CVE-2025-52565). Must: nothing is mounted or changed there.
func TestA06ConsoleSymlink(t *testing.T) {
	for _, name := range []string{"dev/console", "dev/pts/0", "dev/ptmx"} {
		t.Run(name, func(t *testing.T) {
			host, file := canaries(t)
			b := newBundle(t, "/bin/sh", "-c", "echo '# ran'; echo overwritten > /dev/console; busybox cat /proc/self/mountinfo")
			b.withoutMount("/dev")
			if name == "dev/pts/0" {
				b.withoutMount("/dev/pts")
			}
			b.symlink(t, file, name)
			b.spec.Process.Terminal = true
			if out, err := b.hull(t); err != nil {
				t.Logf("refused: %v", err)
			} else if strings.Contains(out, host) {
				t.Errorf("the host's file is in the container's mounts:\n%s", out)
			}
		})
	}
	t.Log("control: runc 1.1.5 binds the console after pivot_root: the link cannot lead out there")
}

// A07: what the runtime takes for procfs is not, or is another file of it (CVE-2019-16884, CVE-2025-52881).
// Must: a sysctl reaches the container's namespace or the start is refused, whatever lies over /proc; neither the
// fake nor the host's switches are written.
func TestA07FakeProc(t *testing.T) {
	for _, c := range []struct {
		name  string
		mount func(host string) specs.Mount
	}{
		{"directory over /proc", func(host string) specs.Mount {
			return specs.Mount{Destination: "/proc", Type: "bind", Source: host, Options: []string{"rbind", "rw"}}
		}},
		{"tmpfs over /proc/sys", func(string) specs.Mount {
			return specs.Mount{Destination: "/proc/sys", Type: "tmpfs", Source: "tmpfs"}
		}},
		{"directory over /proc/sys/kernel", func(host string) specs.Mount {
			return specs.Mount{Destination: "/proc/sys/kernel", Type: "bind", Source: host, Options: []string{"bind"}}
		}},
		{"tmpfs over /proc, by another name", func(string) specs.Mount {
			return specs.Mount{Destination: "/vol/../proc/./sys/kernel", Type: "tmpfs", Source: "tmpfs"}
		}},
		{"file over the switch", func(host string) specs.Mount {
			return specs.Mount{Destination: "/proc/sys/kernel/domainname", Type: "bind", Source: host + "/domainname", Options: []string{"bind"}}
		}},
		{"another switch of procfs over the switch", func(host string) specs.Mount {
			return specs.Mount{Destination: "/proc/sys/kernel/domainname", Type: "bind", Source: "/proc/sys/kernel/domainname", Options: []string{"bind"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, _ := canaries(t)
			fake := t.TempDir()
			for _, name := range []string{"sys/kernel/domainname", "domainname"} {
				path := filepath.Join(fake, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("untouched\n"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			before := append(inventory(t, fake), inventory(t, host)...)
			b := newBundle(t, "/bin/attacker", "domain")
			mount := c.mount(fake)
			b.spec.Mounts = append(b.spec.Mounts, mount)
			b.spec.Linux.Sysctl = map[string]string{"kernel.domainname": "attacked"}
			if out, err := b.hull(t); err != nil {
				t.Logf("refused: %v", err)
			} else if !strings.Contains(out, `# domain "attacked"`) {
				t.Errorf("started, but the sysctl went elsewhere: %q", out)
			}
			for _, line := range changes(before, append(inventory(t, fake), inventory(t, host)...)) {
				t.Errorf("canary: %s", line)
			}
			if name, err := os.ReadFile("/proc/sys/kernel/domainname"); err != nil || strings.TrimSpace(string(name)) == "attacked" {
				t.Errorf("the host's domain name is %q %v", name, err)
			}
		})
	}
}

// A07 too: switches of the whole host are no sysctls of a container.
func TestA07HostSysctl(t *testing.T) {
	for _, key := range []string{"kernel.core_pattern", "kernel/core_pattern", "kernel.modprobe", "vm.overcommit_memory", "kernel.shm.../../core_pattern",
		"net/../kernel/core_pattern", "kernel.hostname", "fs.mqueue/../../kernel/core_pattern"} {
		b := newBundle(t, "/bin/sh", "-c", "echo '# ran'")
		path := "/proc/sys/kernel/core_pattern"
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b.spec.Linux.Sysctl = map[string]string{key: strings.TrimSpace(string(before))} // harmless if it gets there
		if out, err := b.hull(t); err == nil {
			t.Errorf("sysctl %s was accepted: %q", key, out)
		}
	}
	b := newBundle(t, "/bin/attacker", "domain")
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:3] // without IPC and UTS
	b.spec.Linux.Sysctl = map[string]string{"kernel.shmmax": "1000000"}
	if out, err := b.hull(t); err == nil {
		t.Errorf("a sysctl of the host's IPC namespace was accepted: %q", out)
	}
}

// A08: /proc or /sys of the image is no ordinary directory (CVE-2023-27561, CVE-2023-28642).
// Must: a clear error; the container does not start.
func TestA08ProcSymlink(t *testing.T) {
	for _, name := range []string{"proc", "sys"} {
		for what, target := range map[string]string{"inside": "vol", "absolute inside": "/vol", "outside": ""} {
			t.Run(name+" "+what, func(t *testing.T) {
				host, _ := canaries(t)
				if target == "" {
					target = host + "/empty"
				}
				b := newBundle(t, "/bin/sh", "-c", "echo '# ran'")
				b.symlink(t, target, name)
				out, err := b.hull(t)
				if err == nil {
					t.Fatalf("started with /%s a link: %q", name, out)
				}
				if text := err.Error(); !strings.Contains(text, "/"+name) || !strings.Contains(text, "directory") {
					t.Errorf("error %q, want one that names /%s and says that it must be a directory", text, name)
				}
				b.runc(t) // 1.1.5 is the release that fixed it: the control refuses too
			})
		}
	}
}

// A11: the root file system itself is a link, or climbs out of the bundle.
// Must: the container does not start with a linked root.
func TestA11LinkedRoot(t *testing.T) {
	host, _ := canaries(t)
	b := newBundle(t, "/bin/sh", "-c", "echo '# ran'")
	real := b.root
	for what, target := range map[string]string{"link to the host": host, "link to itself": "rootfs"} {
		link := filepath.Join(b.dir, "linked")
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"linked", link} {
			b.spec.Root.Path = path
			if out, err := b.hull(t); err == nil {
				t.Errorf("%s: started in %s: %q", what, path, out)
			}
		}
	}
	b.spec.Root.Path = real
	if out, err := b.hull(t); err != nil || !strings.Contains(out, "# ran") {
		t.Errorf("an honest absolute root: %q %v", out, err)
	}
}

// A17: device nodes that are already in the root file system, or are made there, of devices nobody allowed.
// Must: none opens. (Class 1: without a user namespace and with CAP_MKNOD only the device rules hold.)
func TestA17Devices(t *testing.T) {
	b := newBundle(t, append([]string{"/bin/attacker", "devices"}, hostDevices(t)...)...)
	if err := os.Mkdir(b.root+"/dev-evil", 0o755); err != nil {
		t.Fatal(err)
	}
	makeNodes(t, b.root+"/dev-evil")
	out, err := b.hull(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	held(t, out)
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	if out, ok := b.runc(t); ok && len(successes(out)) == 0 {
		t.Error("control: with every device allowed runc's container opened none: the test cannot fail")
	}
}
