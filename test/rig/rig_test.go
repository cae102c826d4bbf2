package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hull/monitor"

	"golang.org/x/sys/unix"
)

// quiet is an engine without programs: what these tests check needs none.
func quiet(t *testing.T) *Hull {
	t.Helper()
	t.Setenv("HULL_TEST_BIN", t.TempDir())
	dir, err := os.MkdirTemp("/var/tmp", "rig-")
	if err != nil {
		t.Fatal(err)
	}
	h := &Hull{Dir: dir, Root: dir + "/root", RunDir: dir + "/run"}
	t.Cleanup(func() { h.close(t) })
	h.Mark(t)
	return h
}

// The census has to see each kind of thing that a container can leave behind.
func TestCensusSees(t *testing.T) {
	Root(t)
	h := quiet(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Not at the first look: what exec has just begun has no command line for a moment.
	sees := func(kind string) {
		t.Helper()
		seen := func(line string) bool { return strings.HasPrefix(line, kind+" ") }
		c := h.settle(func(_, now Census) bool { return slices.ContainsFunc(now, seen) })
		if !slices.ContainsFunc(c, seen) {
			t.Errorf("census does not see a %s: %q", kind, c)
		}
	}
	target := h.Root + "/containers/x/rw"
	must(os.MkdirAll(target, 0o755))
	must(unix.Mount("none", target, "tmpfs", 0, ""))
	sees("mount")
	sees("file")
	must(unix.Unmount(target, 0))

	cmd := exec.Command(Tool(t, "tail"), "-f", "/dev/null", h.Root+"/none")
	must(cmd.Start())
	sees("process")

	var group string
	for _, dir := range hierarchies() {
		group = filepath.Join(dir, h.Instance(), "x")
		if os.MkdirAll(group, 0o755) == nil {
			break
		}
	}
	sees("cgroup")

	must(os.MkdirAll(monitor.IDClaims, 0o755))
	must(os.Symlink(h.Root+"/containers/x", monitor.IDClaims+"/rig-test"))
	sees("id range")

	f, err := os.Create(h.Root + "/open")
	must(err)
	sees("open file of the test")
	must(f.Close())

	// Destroy has to take all of it away again.
	h.Destroy(t)
	cmd.Wait()
	must(os.Remove(h.Root + "/open"))
	must(os.RemoveAll(h.Root + "/containers"))
	h.Check(t)
}

func TestPty(t *testing.T) {
	p := Pty(t, exec.Command(Tool(t, "bash"), "--norc", "--noprofile", "-i"))
	p.Send("echo $((6*7)) $COLUMNS\n")
	p.Expect("42 80")
	p.Resize(100, 30)
	p.Send("stty size\n")
	p.Expect("30 100")
	p.Send("exit 3\n")
	if code := p.Wait(); code != 3 {
		t.Errorf("want exit status 3, got %d", code)
	}
}

// What is in the trash is looked at before it is emptied.
func TestTrashFaults(t *testing.T) {
	h := &Hull{Root: t.TempDir()}
	add := func(number, path, content string) {
		t.Helper()
		name := filepath.Join(h.Root, "undo", number, path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add("1", "record.json", `{"kind":"container","id":"ab","name":"whole"}`)
	add("1", "ab/config.json", `{"id":"ab"}`)
	add("2", "record.json", `{"kind":"container","id":"ab","name":"empty"}`)
	add("3", "record.json", `{"kind":"container","id":"ab","name":"fleeting"}`)
	add("3", "ab/config.json", `{"id":"ab","host":{"autoRemove":true}}`)
	add("4", "record.json", `{"kind":"volume","name":"half"}`)
	add("4", "volume/volume.json", `{}`)
	add("5", "record.json", `{"kind":"image","name":"unknown"}`)
	add("6", "record.json", ``)
	h.base = h.Census()
	faults := h.trashFaults()
	for number, bad := range map[string]bool{"1": false, "2": true, "3": true, "4": true, "5": true, "6": true} {
		if got := slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, "trash: item "+number+",") }); got != bad {
			t.Errorf("item %s: want a fault %t, got %q", number, bad, faults)
		}
	}
}
