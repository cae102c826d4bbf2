package image

import (
	"errors"
	"os"
	"slices"
	"testing"

	"hull/errdef"
	"hull/ref"
)

// keeper is a trash in memory: what is in it keeps its layers.
type keeper struct {
	t    *testing.T
	kept []*Removed
}

func (k *keeper) options() RemoveOptions {
	return RemoveOptions{Save: func(r *Removed) func(bool) {
		k.kept = append(k.kept, r)
		return func(went bool) {
			if !went {
				k.kept = k.kept[:len(k.kept)-1]
			}
		}
	}}
}

func (k *keeper) store() *Store {
	s := newStore(k.t)
	s.Kept = func() (map[string]bool, error) { return nil, nil }
	s.Saved = func() (roots []ref.Digest, err error) {
		for _, r := range k.kept {
			roots = append(roots, r.Roots()...)
		}
		return roots, nil
	}
	return s
}

// What was saved survives sweeps and comes back with its references as they were.
func TestRestore(t *testing.T) {
	k := &keeper{t: t}
	s := k.store()
	smp := newSample(t, "x")
	load(t, s, smp.docker(t, "app:1", "app:2"))
	before := resolve(t, s, "app:1")
	plan, err := s.Removal(t.Context(), before.ID, RemoveOptions{Force: true})
	if err != nil || plan.Bytes == 0 {
		t.Fatalf("got %+v, %v", plan, err)
	}
	opts := k.options()
	opts.Force = true
	list, err := s.Remove(t.Context(), before.ID, opts)
	if got := deleted(list); err != nil || got != "-app:1 -app:2 x" && got != "-app:2 -app:1 x" {
		t.Fatalf("got %s, %v", got, err)
	}
	if len(k.kept) != 1 || k.kept[0].Own != plan.Bytes {
		t.Fatalf("saved %+v, the plan was %d bytes", k.kept, plan.Bytes)
	}
	if got := s.summaries(); len(got) != 0 {
		t.Errorf("still listed: %+v", got)
	}
	if swept, err := s.Sweep(t.Context(), nil); err != nil || len(swept) != 0 {
		t.Fatalf("swept %v, %v", swept, err)
	}
	load(t, s, newSample(t, "other").docker(t, "app:2"))
	for range 2 { // idempotent
		got, err := s.Restore(t.Context(), k.kept[0], "undo")
		if err != nil || !slices.Equal(got.Refs, []string{"app:1"}) || !slices.Equal(got.Taken, []string{"app:2"}) {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	checkImage(t, s, resolve(t, s, "app:1"), smp)
	if resolve(t, s, "app:2").ID == before.ID {
		t.Error("a name that was taken meanwhile was taken back")
	}
	if log := mustLog(t, s, "app:1"); log[len(log)-1].By != "undo" {
		t.Errorf("the log ends with %+v", log[len(log)-1])
	}
	checkLayout(t, s)
}

// One of several names that goes comes back too, and needs nothing when the image stayed.
func TestRestoreName(t *testing.T) {
	k := &keeper{t: t}
	s := k.store()
	load(t, s, newSample(t, "x").docker(t, "app:1", "app:2"))
	if _, err := s.Remove(t.Context(), "app:1", k.options()); err != nil {
		t.Fatal(err)
	}
	if r := k.kept[0]; r.Own != 0 || !slices.Equal(r.Familiar(), []string{"app:1"}) || !s.Gone(r) {
		t.Errorf("got %+v", r)
	}
	if got, err := s.Restore(t.Context(), k.kept[0], "undo"); err != nil || !slices.Equal(got.Refs, []string{"app:1"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if s.Gone(k.kept[0]) {
		t.Error("still something is gone")
	}
}

// A removal that is refused saves nothing; what is no longer whole is not restored, and keeps nothing from being swept.
func TestRestoreRefuses(t *testing.T) {
	k := &keeper{t: t}
	s := k.store()
	load(t, s, newSample(t, "x").docker(t, "app"))
	img := resolve(t, s, "app")
	opts := k.options()
	opts.InUse = func(string) []User { return []User{{ID: "0123456789abcdef", Running: true}} }
	if _, err := s.Remove(t.Context(), img.ID, opts); !errors.Is(err, errdef.ErrConflict) || len(k.kept) != 0 {
		t.Errorf("got %v, saved %+v", err, k.kept)
	}
	if _, err := s.Remove(t.Context(), "app", k.options()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.blobPath(ref.Digest(img.Manifest)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(t.Context(), k.kept[0], "undo"); !errors.Is(err, errdef.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Error(err)
	}
	wantEmpty(t, s)
}
