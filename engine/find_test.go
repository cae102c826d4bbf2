package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/errdef"
	"hull/monitor"
	"hull/test/rig/nobody"

	"golang.org/x/sys/unix"
)

// TestUnreadAsNobody is what root can read whatever its mode.
func TestUnreadAsNobody(t *testing.T) { nobody.Runs(t, "^TestUnread$", "TestUnread") }

// TestUnread: a definition or a state that cannot be read is no damaged one. The container is listed, nothing is done to
// it, and it is as before once it can be read.
func TestUnread(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("left out: root can read everything")
	}
	for _, file := range []string{recordFile, monitor.StateFile} {
		e := fresh(t)
		bad, good := placed(t, e, definition("bad")), placed(t, e, definition("good"))
		if err := os.WriteFile(filepath.Join(e.dir(bad.ID), monitor.StateFile), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(e.dir(bad.ID), file)
		mode := func(m os.FileMode) {
			t.Helper()
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
		}
		mode(0)
		list, err := e.List(t.Context(), ListOptions{All: true})
		if err != nil || len(list) != 2 {
			t.Fatalf("%s: want both listed, got %d, %v", file, len(list), err)
		}
		for _, c := range list {
			if c.Damaged != "" || (c.Unread != nil) != (c.ID == bad.ID) || c.Unread != nil && c.State.Status != StatusDead {
				t.Errorf("%s: listed as %+v", file, c)
			}
		}
		_, removed := e.Remove(t.Context(), bad.ID, RemoveOptions{Force: true})
		_, layers := e.layersInUse()
		_, volumes := e.volumeUsers()
		_, started := e.Start(t.Context(), bad.ID)
		for what, err := range map[string]error{"remove": removed, "start": started, "layers": layers, "volumes": volumes} {
			if file == monitor.StateFile && (what == "layers" || what == "volumes") && err == nil {
				continue // the definition says it
			}
			if !errors.Is(err, os.ErrPermission) || errors.Is(err, errdef.ErrCorrupt) || strings.Contains(err.Error(), "damaged") {
				t.Errorf("%s: %s: %v", file, what, err)
			}
		}
		mode(0o600)
		if c, err := e.load(bad.ID); err != nil || !c.known() || c.Name != "bad" {
			t.Errorf("%s: afterwards: %+v, %v", file, c, err)
		}
		if _, err := e.Remove(t.Context(), good.ID, RemoveOptions{}); err != nil {
			t.Errorf("%s: remove the other: %v", file, err)
		}
	}
}

// TestUnreadCauses: what is said is the cause and what to do about it.
func TestUnreadCauses(t *testing.T) {
	e := fresh(t)
	for cause, want := range map[error]string{unix.EIO: "see dmesg", unix.ENFILE: "fs.file-max", unix.EMFILE: "ulimit -n"} {
		c := unread(strings.Repeat("a", 64), &os.PathError{Op: "open", Path: "config.json", Err: cause})
		for _, err := range []error{e.unreadable(c), e.unknown([]*Container{c}, "layers")} {
			if !strings.Contains(err.Error(), want) || !errors.Is(err, cause) {
				t.Errorf("%v: %v", cause, err)
			}
		}
	}
	if err := e.unknown(nil, "layers"); err != nil {
		t.Error(err)
	}
}
