package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/kernel"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// TestFullDisk fills the store's file system: what needs room says so in one sentence and leaves nothing, what
// does not goes on working, and with room again the same command succeeds.
func TestFullDisk(t *testing.T) {
	rig.Root(t)
	if !kernel.AtLeast(6, 3) {
		t.Skip("the tmpfs of this kernel maps no ids, so no store can be on it")
	}
	small := filepath.Join("/var/tmp", fmt.Sprintf("rig-small-%d", os.Getpid()))
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(small) })
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Errorf("the small file system is busy: %v", err)
		}
	})
	h := rig.EngineIn(t, small)
	busybox, layered := rig.Busybox(t), rig.Layered(t).OCI(t)
	h.Load(t, busybox)
	h.Must(t, "create", "--name", "before", "busybox", "true")
	h.Must(t, "run", "--rm", "busybox", "true")
	h.Mark(t)
	trashMakesRoom(t, h, small+"/filler")

	filler := small + "/filler"
	fill(t, filler)
	for _, args := range [][]string{{"load", "-i", layered}, {"run", "--rm", "busybox", "true"}, {"create", "--name", "more", "busybox"}} {
		r := h.Run(t, args...)
		if r.Code == 0 {
			continue // found room in a page that was not full
		}
		if !strings.Contains(r.Stderr, "no space left") {
			t.Errorf("hull %s on a full disk: %+v", args[0], r)
		}
		for _, line := range h.Difference() {
			t.Errorf("hull %s on a full disk: %s", args[0], line)
		}
	}
	for _, args := range [][]string{{"ps", "-a"}, {"images"}, {"inspect", "before"}, {"version"}} {
		if r := h.Run(t, args...); r.Code != 0 {
			t.Errorf("hull %s on a full disk: %+v", strings.Join(args, " "), r)
		}
	}
	if r := h.Run(t, "rm", "before"); r.Code != 0 {
		t.Errorf("rm on a full disk: %+v", r)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "rm", "-f", "more") // -f: says nothing when it was not made
	h.Mark(t)
	h.Must(t, "run", "--rm", "busybox", "true")
}

// trashMakesRoom fills the disk but for what is in the trash: what needs room gets it from there, and what is removed
// then does not go there.
func trashMakesRoom(t *testing.T, h *rig.Hull, filler string) {
	h.Must(t, "volume", "create", "big")
	h.Must(t, "run", "--rm", "--network", "none", "-v", "big:/v", "busybox", "sh", "-c", "head -c 4000000 /dev/zero >/v/f")
	h.Must(t, "volume", "rm", "big")
	if got := h.Must(t, "trash", "ls", "--format", "{{.Name}}"); got != "big" {
		t.Fatalf("in the trash is %q", got)
	}
	fill(t, filler)
	h.Must(t, "create", "--name", "roomy", "busybox")
	if got := h.Must(t, "trash", "ls", "-q"); got != "" {
		t.Errorf("there was no room, and in the trash is %q", got)
	}
	fill(t, filler+"2") // what the trash has freed
	h.Must(t, "rm", "roomy")
	if got := h.Must(t, "trash", "ls", "-q"); got != "" {
		t.Errorf("the disk is full, and in the trash is %q", got)
	}
	for _, f := range []string{filler, filler + "2"} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	h.Check(t)
}

// TestFullDiskGivesSpaceBack removes images from a store that has no byte left.
func TestFullDiskGivesSpaceBack(t *testing.T) {
	rig.Root(t)
	if !kernel.AtLeast(6, 3) {
		t.Skip("the tmpfs of this kernel maps no ids, so no store can be on it")
	}
	small := filepath.Join("/var/tmp", fmt.Sprintf("rig-full-%d", os.Getpid()))
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(small) })
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Errorf("the small file system is busy: %v", err)
		}
	})
	h := rig.EngineIn(t, small)
	layered := rig.Layered(t).OCI(t)
	h.Load(t, layered)
	h.Must(t, "image", "prune", "-a", "-f")
	h.Mark(t)
	filler := small + "/filler"
	for _, args := range [][]string{
		{"rmi", "layered:3"}, {"image", "prune", "-a", "-f"}, {"gc", "--keep", "0", "--unused-for", "0s"}, {"system", "prune", "-a", "-f"},
	} {
		h.Must(t, "load", "-q", "-i", layered)
		fill(t, filler)
		if r := h.Run(t, args...); r.Code != 0 {
			t.Errorf("hull %s on a full disk: %+v", strings.Join(args, " "), r)
		}
		if r := h.Run(t, "images", "-q"); r.Code != 0 || r.Stdout != "" {
			t.Errorf("images after %s: %+v", args[0], r)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	h.Must(t, "trash", "empty", "-f")
}

// fill writes until nothing fits any more.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// TestReadOnlyStore asks for what a store on a read-only file system can still give.
func TestReadOnlyStore(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	if err := unix.Mount(h.Root, h.Root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", h.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r := h.Run(t, "run", "--rm", "busybox", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, "read-only file system") {
		t.Errorf("run on a read-only store: %+v", r)
	}
	for _, args := range [][]string{{"ps", "-a"}, {"images"}} {
		if r := h.Run(t, args...); r.Code != 0 {
			t.Errorf("hull %s on a read-only store: %+v", strings.Join(args, " "), r)
		}
	}
	if err := unix.Unmount(h.Root, 0); err != nil {
		t.Fatal(err)
	}
}
