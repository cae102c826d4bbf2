package attack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hull/test/rig"
)

// data is the directory of a volume on the host.
func data(h *rig.Hull, volume string) string {
	return filepath.Join(h.Root, "volumes", volume, "_data")
}

// A09 with volumes: the place of one mount is inside another volume whose user exchanges it for a symbolic link.
func TestA09VolumeInVolume(t *testing.T) {
	host, file := canaries(t)
	h := target(t)
	h.Must(t, "volume", "create", "shared")
	h.Must(t, "volume", "create", "inner")
	t.Cleanup(func() { removeVolumes(t, h) })
	if err := errors.Join(os.Chmod(data(h, "shared"), 0o777), os.MkdirAll(data(h, "shared")+"/a/x", 0o777),
		os.Symlink(strings.Repeat("../", 12)+host[1:], data(h, "shared")+"/b")); err != nil {
		t.Fatal(err)
	}
	detached(t, h, "-v", "shared:/vol", "target", "attacker", "swap", "/vol")
	before := inventory(t, host)
	for range often(40) {
		r := h.Run(t, "run", "--rm", "--network", "none", "-v", "shared:/vol", "-v", "inner:/vol/a/x", "target", "attacker", "leak", file)
		if r.Code == 0 {
			held(t, outputOf(r))
		}
	}
	for _, line := range changes(before, inventory(t, host)) {
		t.Errorf("canary: %s", line)
	}
}

// removeVolumes removes what a test made; h.Must ends with the context of t, which is over in a cleanup.
func removeVolumes(t *testing.T, h *rig.Hull) {
	t.Helper()
	cmd := exec.Command(h.Program, "volume", "prune", "-a", "-f")
	cmd.Env = h.Env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("volume prune: %v: %s", err, out)
	}
}

// A46: an image's VOLUME that leaves the image, by its path or by a link (CVE-2022-23648), and copy-up over data that
// are there (CVE-2020-1726). Must: what is copied is the image's; data stay.
func TestA46VolumeOfImage(t *testing.T) {
	host, file := canaries(t)
	h := target(t)
	t.Cleanup(func() { removeVolumes(t, h) })
	up := strings.Repeat("../", 12)
	links := []rig.File{
		{Name: "abs", Type: tar.TypeSymlink, Link: host}, {Name: "rel", Type: tar.TypeSymlink, Link: up + host[1:]},
		{Name: "proc-root", Type: tar.TypeSymlink, Link: "/proc/self/root" + host}, {Name: "loop", Type: tar.TypeSymlink, Link: "loop"},
		{Name: "in/", Mode: 0o755}, {Name: "in/abs", Type: tar.TypeSymlink, Link: file}, {Name: "in/dir", Type: tar.TypeSymlink, Link: host},
		{Name: "in/fifo", Type: tar.TypeFifo, Mode: 0o666},
	}
	for i, at := range []string{"/abs", "/rel", "/rel/sub", "/proc-root", "/loop", "/in", "/x/../../../../.." + host, up + host[1:], host, "/", "", "/in\n"} {
		name := fmt.Sprintf("volume%d", i)
		b := &rig.Image{Tag: name + ":latest", Env: []string{"PATH=/bin"}, Volumes: map[string]struct{}{at: {}},
			Layers: append([][]rig.File{rig.Layered(t).Layers[0]}, links)}
		if r := h.Run(t, "load", "-q", "-i", b.Docker(t)); r.Code != 0 {
			continue // as good a refusal as any
		}
		h.Mark(t)
		r := h.Run(t, "run", "--name", "copied", "--network", "none", name, "sh", "-c", "cat "+file+" "+strings.TrimSpace(at)+"/secret 2>/dev/null; true")
		if strings.Contains(outputOf(r), strings.TrimSpace(canaryText)) {
			t.Errorf("VOLUME %q: the container read the canary", at)
		}
		filepath.WalkDir(h.Root+"/volumes", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if b, _ := os.ReadFile(path); string(b) == canaryText {
				t.Errorf("VOLUME %q: the canary was copied to %s", at, path)
			}
			return nil
		})
		h.Run(t, "rm", "-f", "-v", "copied")
		h.Check(t)
	}
	h.Must(t, "run", "--rm", "--network", "none", "-v", "full:/srv", "target", "sh", "-c", "echo mine >/srv/passwd")
	h.Must(t, "run", "--rm", "--network", "none", "-v", "full:/etc", "target", "true")
	if b, err := os.ReadFile(data(h, "full") + "/passwd"); err != nil || string(b) != "mine\n" {
		t.Errorf("copy-up replaced data: %q, %v", b, err)
	}
	if _, err := os.Lstat(data(h, "full") + "/group"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("copy-up added to data: %v", err)
	}
}

// A46: an image asks for volumes without end. Must: a refusal that leaves nothing.
func TestA46VolumeFlood(t *testing.T) {
	h := target(t)
	many := map[string]struct{}{}
	for i := range 1000 {
		many[fmt.Sprintf("/v/%d", i)] = struct{}{}
	}
	load(t, h, "flood", func(i *rig.Image) { i.Volumes = many })
	r := h.Run(t, "run", "--rm", "--network", "none", "flood", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, "mounts, more than") {
		t.Errorf("want a refusal, got %+v", r)
	}
	h.Check(t)
	for i := range 1000 {
		if i >= 240 {
			delete(many, fmt.Sprintf("/v/%d", i))
		}
	}
	load(t, h, "many", func(i *rig.Image) { i.Volumes = many })
	h.Must(t, "run", "--rm", "--network", "none", "many", "true")
	h.Check(t)
}

// A47: a subpath that leaves its volume, and one whose directories are exchanged while containers start
// (CVE-2023-0778, CVE-2025-11395). Must: inside the volume, or no start.
func TestA47Subpath(t *testing.T) {
	host, file := canaries(t)
	h := target(t)
	up := strings.Repeat("../", 12)
	load(t, h, "links", nil, rig.File{Name: "abs", Type: tar.TypeSymlink, Link: host}, rig.File{Name: "rel", Type: tar.TypeSymlink, Link: up + host[1:]},
		rig.File{Name: "magic", Type: tar.TypeSymlink, Link: "/proc/self/root" + host}, rig.File{Name: "root", Type: tar.TypeSymlink, Link: up})
	h.Must(t, "volume", "create", "shared")
	t.Cleanup(func() { removeVolumes(t, h) })
	top := data(h, "shared")
	if err := errors.Join(os.Chmod(top, 0o777), os.MkdirAll(top+"/a/x", 0o777), os.Symlink(up+filepath.Dir(host)[1:], top+"/b"),
		os.Symlink(host, top+"/abs"), os.Symlink("/proc/self/root"+host, top+"/magic"), os.Symlink(up, top+"/root")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"../x", "/etc", "a/../..", "..", up + host[1:], "abs", "magic", "root" + host, "b/" + filepath.Base(host)} {
		r := h.Run(t, "run", "--rm", "--network", "none", "--mount", "type=volume,src=shared,dst=/p,volume-subpath="+sub, "target", "cat", "/p/secret")
		if r.Code == 0 || strings.Contains(outputOf(r), strings.TrimSpace(canaryText)) {
			t.Errorf("subpath %q: %+v", sub, r)
		}
	}
	// The same of an image.
	for _, sub := range []string{"abs", "rel", "magic", "root" + host, "abs/secret", "../" + host[1:]} {
		r := h.Run(t, "run", "--rm", "--network", "none", "--mount", "type=image,src=links,dst=/p,image-subpath="+sub, "target", "sh", "-c", "cat /p/secret /p")
		if r.Code == 0 || strings.Contains(outputOf(r), strings.TrimSpace(canaryText)) {
			t.Errorf("image-subpath %q: %+v", sub, r)
		}
	}
	// Now a is a directory, now a link to where the canary's directory is.
	if err := os.Mkdir(top+"/a/"+filepath.Base(host), 0o777); err != nil {
		t.Fatal(err)
	}
	detached(t, h, "-v", "shared:/vol", "target", "attacker", "swap", "/vol")
	started := 0
	for range often(60) {
		r := h.Run(t, "run", "--rm", "--network", "none", "--mount", "type=volume,src=shared,dst=/p,volume-subpath=a/"+filepath.Base(host),
			"target", "attacker", "leak", file, "/p/secret")
		if r.Code == 0 {
			started++
			held(t, outputOf(r))
		}
	}
	t.Logf("%d starts succeeded", started)
}

// A92 in a volume: a tree that os.RemoveAll cannot remove. Must: volume rm does.
func TestA92DeepVolume(t *testing.T) {
	h := target(t)
	h.Must(t, "run", "--rm", "--network", "none", "-v", "deep:/d", "target", "sh", "-c",
		"cd /d; i=0; while [ $i -lt 4000 ]; do mkdir d; cd d; i=$((i+1)); done; touch end; cd /d; mkdir shut; touch shut/x; chmod 0 shut")
	h.Must(t, "volume", "rm", "deep")
	h.Check(t)
}
