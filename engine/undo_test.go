package engine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/trash"
	"hull/volume"

	"golang.org/x/sys/unix"
)

// kept is a container that does not remove itself.
func kept(name string) *record {
	r := definition(name)
	r.Host.AutoRemove = false
	return r
}

// Of fifty that were called the same one gets the name back; the others wait in the trash, and come under other names.
func TestRestoreOneName(t *testing.T) {
	const n = 50
	e := fresh(t)
	for range n {
		r := placed(t, e, kept("web"))
		if saved, err := e.Remove(t.Context(), r.ID, RemoveOptions{}); err != nil || saved == 0 {
			t.Fatalf("saved %v, %v", saved, err)
		}
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, err := e.Restore(t.Context(), strconv.Itoa(i+1), RestoreOptions{})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, errdef.ErrConflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := e.Trash(t.Context())
	if err != nil || won.Load() != 1 || len(list) != n-1 {
		t.Fatalf("%d got the name, %d are left, %v", won.Load(), len(list), err)
	}
	if _, err := e.Restore(t.Context(), "web", RestoreOptions{Name: "web2"}); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{"web": true, "web2": true, "web3": false} {
		if c, err := e.use(t.Context(), name); (err == nil) != want || want && c.Name != name {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// One thing that fifty restore at once comes back once.
func TestRestoreTogether(t *testing.T) {
	e := fresh(t)
	if _, err := e.CreateVolume(t.Context(), volume.Spec{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.RemoveVolume(t.Context(), "data", RemoveVolumeOptions{}); err != nil {
		t.Fatal(err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := e.Restore(t.Context(), "data", RestoreOptions{})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, errdef.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || !slices.Equal(volumeNames(t, e), []string{"data"}) {
		t.Errorf("%d restored it, there are %v", won.Load(), volumeNames(t, e))
	}
}

// A record that a power cut has emptied is made again from the definition; what is damaged beyond that is listed, is in
// nobody's way, and can be removed.
func TestDamagedTrash(t *testing.T) {
	e := fresh(t)
	r := placed(t, e, kept("web"))
	bad := placed(t, e, kept("bad"))
	for _, r := range []*record{r, bad} {
		r.Layers = []string{"sha256:" + newID()}
		if err := r.write(e.dir(r.ID)); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Remove(t.Context(), r.ID, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for n, id := range []string{r.ID, bad.ID} {
		dir := filepath.Join(e.root, "undo", strconv.Itoa(n+1))
		if err := os.WriteFile(filepath.Join(dir, "record.json"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if id == bad.ID {
			if err := os.WriteFile(filepath.Join(dir, id, recordFile), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	layers, err := e.layersInUse()
	if err != nil || !layers[r.Layers[0]] {
		t.Errorf("the layers in use are %v, %v", layers, err)
	}
	list, err := e.Trash(t.Context())
	if err != nil || len(list) != 2 || list[0].Damaged == "" || list[1].Name != "web" || list[1].Damaged != "" {
		t.Fatalf("got %+v, %v", list, err)
	}
	if _, err := e.Undo(t.Context(), RestoreOptions{}); !errors.Is(err, errdef.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if _, err := e.Restore(t.Context(), "web", RestoreOptions{}); err != nil {
		t.Error(err)
	}
	if gone, err := e.EmptyTrash(t.Context(), strconv.Itoa(list[0].Number)); err != nil || len(gone) != 1 {
		t.Errorf("got %+v, %v", gone, err)
	}
	if list, err := e.Trash(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}

// Where the trash cannot be, removals remove.
func TestNoTrash(t *testing.T) {
	e := fresh(t)
	if err := os.WriteFile(filepath.Join(e.root, "undo"), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	r := placed(t, e, withVolumes("web"))
	r.Host.AutoRemove = false
	if err := r.write(e.dir(r.ID)); err != nil {
		t.Fatal(err)
	}
	if saved, err := e.Remove(t.Context(), "web", RemoveOptions{Volumes: true}); err != nil || saved != 0 {
		t.Errorf("saved for %v, %v", saved, err)
	}
	for _, name := range volumeNames(t, e) {
		if saved, err := e.RemoveVolume(t.Context(), name, RemoveVolumeOptions{}); err != nil || saved != 0 {
			t.Errorf("saved for %v, %v", saved, err)
		}
	}
	if left := volumeNames(t, e); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := e.use(t.Context(), "web"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// Something in the trash that is over its time and cannot go is no reason not to bring something else back.
func TestUndoDespiteTrash(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("left out: a mount needs root")
	}
	e := fresh(t)
	for _, name := range []string{"old", "data"} {
		if _, err := e.CreateVolume(t.Context(), volume.Spec{Name: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.RemoveVolume(t.Context(), name, RemoveVolumeOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	old := filepath.Join(e.root, "undo/1")
	record := filepath.Join(old, "record.json")
	data, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	var r trash.Record
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	r.Up -= 48 * time.Hour
	if data, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(old, old, "", unix.MS_BIND, ""); err != nil { // a mount point cannot be renamed
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(old, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if e.tidyTrash(t.Context(), nil) == nil {
		t.Fatal("the trash could be tidied: the test proves nothing")
	}
	if back, err := e.Undo(t.Context(), RestoreOptions{}); err != nil || len(back) != 1 || back[0].Name != "data" {
		t.Errorf("got %+v, %v", back, err)
	}
	if list, err := e.Trash(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the trash has %+v, %v", list, err)
	}
}

// An image with names for different things comes back under one other name only if that is clear.
func TestOneTarget(t *testing.T) {
	one, two := ref.Digest("sha256:"+strings.Repeat("1", 64)), ref.Digest("sha256:"+strings.Repeat("2", 64))
	for _, tt := range []struct {
		refs map[string]ref.Digest
		want ref.Digest
	}{
		{nil, one}, {map[string]ref.Digest{"a": two}, two}, {map[string]ref.Digest{"a": two, "b": two}, two}, {map[string]ref.Digest{"b": two, "a": one}, ""},
	} {
		for range 20 { // a map is read in any order
			got, err := oneTarget(&image.Removed{Manifest: one, Refs: tt.refs})
			if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), ": a, b: ") {
				t.Fatalf("%v: got %s, %v", tt.refs, got, err)
			}
		}
	}
}

// Who has an image mounted uses it as much as who is made of it.
func TestImageUsers(t *testing.T) {
	e := fresh(t)
	r := kept("web")
	mounted := "sha256:" + strings.Repeat("ab", 32)
	r.Mounts = append(r.Mounts, MountPoint{Mount: Mount{Type: mountImage}, ImageID: mounted})
	c := placed(t, e, r)
	users, err := e.imageUsers(nil)
	if err != nil || len(users[mounted]) != 1 || users[mounted][0].ID != c.ID || len(users) != 2 {
		t.Errorf("got %v, %v", users, err)
	}
	if users, err = e.imageUsers(map[string]bool{c.ID: true}); err != nil || len(users) > 0 {
		t.Errorf("without it: %v, %v", users, err)
	}
}
