package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"hull/errdef"
	"hull/volume"
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
