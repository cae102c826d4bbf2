package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hull/kernel"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// TestVolumeRace: 50 commands ask for one volume at once and all get it; and whoever starts a container with a volume
// has it, whole, however often others remove it meanwhile.
func TestVolumeRace(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	n := 50
	if rig.Guest() {
		n = 10
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if r := h.Run(t, "volume", "create", "wanted"); r.Code != 0 || r.Stdout != "wanted\n" {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	if got := h.Must(t, "volume", "ls", "-q"); got != "wanted" {
		t.Errorf("want one volume, got %q", got)
	}
	for range n / 4 {
		wg.Go(func() {
			r := h.Run(t, "run", "--rm", "--network", "none", "-v", "wanted:/etc", "busybox", "cat", "/etc/passwd")
			if r.Code != 0 || !strings.Contains(r.Stdout, "app") {
				t.Errorf("a container lost its volume: %+v", r)
			}
		})
		wg.Go(func() {
			r := h.Run(t, "volume", "rm", "-f", "wanted")
			if r.Code != 0 && !strings.Contains(r.Stderr, "volume is in use") {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	h.Must(t, "volume", "rm", "-f", "wanted")
}

// TestVolumesOfUser is what volumes are for an ordinary user.
func TestVolumesOfUser(t *testing.T) {
	h := unprivileged(t, "")
	h.Must(t, "load", "-q", "-i", public(t, h, rig.Busybox(t)))
	h.Mark(t)
	run := func(args ...string) string {
		t.Helper()
		return h.Must(t, append([]string{"run", "--rm", "--network", "none"}, args...)...)
	}
	if got := run("-v", "data:/etc", "-v", "/scratch", "busybox", "sh", "-c", "echo x >/etc/new && touch /scratch/x && head -n 1 /etc/passwd"); !strings.HasPrefix(got, "root:") {
		t.Errorf("copy-up: %q", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(h.Root, "volumes/data/_data/new"), &st); err != nil || st.Uid != nobodys {
		t.Errorf("the file belongs to %d, %v; want the user", st.Uid, err)
	}
	if got := run("-v", "data:/d:ro", "busybox", "sh", "-c", "cat /d/new; touch /d/y 2>/dev/null || echo read-only"); got != "x\nread-only" {
		t.Errorf("read-only: %q", got)
	}
	if got := run("--mount", "type=volume,src=data,dst=/p,volume-subpath=passwd", "--mount", "type=image,src=busybox,dst=/i",
		"--mount", "type=image,src=busybox,dst=/j,image-subpath=etc", "busybox", "sh", "-c",
		"head -c 4 /p; head -c 4 /i/etc/passwd; head -c 4 /j/passwd; ls -d /i/bin; touch /i/x /j/x 2>/dev/null || echo read-only"); got != "rootrootroot/i/bin\nread-only" {
		t.Errorf("parts and images: %q", got)
	}
	if got := h.Must(t, "volume", "ls", "-q"); got != "data" {
		t.Errorf("volumes %q: the anonymous one was to go with its container", got)
	}
	h.Must(t, "volume", "create", "remote", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=192.0.2.1")
	if r := h.Run(t, "run", "--rm", "--network", "none", "-v", "remote:/r", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "only root mounts") {
		t.Errorf("a volume on NFS: %+v", r)
	}
	h.Must(t, "volume", "create", "memory", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m")
	run("-v", "memory:/m", "busybox", "touch", "/m/x")
	h.Must(t, "volume", "prune", "-a", "-f")
}

// TestUnmappableBelow: a recursive bind of which one mount below cannot be id-mapped. All others are, and the
// person is told of that one.
func TestUnmappableBelow(t *testing.T) {
	if !kernel.AtLeast(6, 3) {
		t.Skip("before Linux 6.3 a tmpfs cannot map ids either")
	}
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	home := t.TempDir() // and not the engine's, whose mounts the census counts
	top := filepath.Join(home, "tree")
	for _, d := range []string{"lower", "upper", "work", "tree/over", "tree/mem"} {
		if err := os.MkdirAll(filepath.Join(home, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(kind, at, options string) {
		t.Helper()
		if err := unix.Mount(kind, at, kind, 0, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(at, 0); err != nil {
				t.Error(err)
			}
		})
	}
	mount("tmpfs", top+"/mem", "")
	if err := os.Mkdir(top+"/mem/in it", 0o755); err != nil {
		t.Fatal(err)
	}
	mount("tmpfs", top+"/mem/in it", "")
	mount("overlay", top+"/over", fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", home, home, home))
	r := h.Run(t, "run", "--rm", "--network", "none", "-v", top+":/t", "busybox", "sh", "-c",
		`touch /t/x /t/mem/x "/t/mem/in it/x"; stat -c %u /t /t/mem "/t/mem/in it" /t/over; touch /t/over/x 2>/dev/null || echo refused`)
	if r.Code != 0 || r.Stdout != "0\n0\n0\n65534\nrefused\n" {
		t.Errorf("%+v", r)
	}
	if want := top + "/over is on a file system that cannot map ids"; strings.Count(r.Stderr, "cannot map ids") != 1 || !strings.Contains(r.Stderr, want) {
		t.Errorf("want one warning, about %s/over, got %s", top, r.Stderr)
	}
	r = h.Run(t, "run", "--rm", "--network", "none", "-v", top+":/t:ro", "busybox", "sh", "-c",
		`for d in /t /t/mem "/t/mem/in it" /t/over; do touch "$d/y" 2>/dev/null && echo wrote $d; done; true`)
	if r.Code != 0 || r.Stdout != "" {
		t.Errorf("read-only: %+v", r)
	}
	for _, name := range []string{"x", "mem/x", "mem/in it/x"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(top, name), &st); err != nil || st.Uid != 0 {
			t.Errorf("%s belongs to %d, %v; want 0", name, st.Uid, err)
		}
	}
}
