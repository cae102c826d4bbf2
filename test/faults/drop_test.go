package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"hull/registry/registrytest"
	"hull/test/rig"
)

// TestEveryCallOfDrop kills or fails a gc that drops blobs. After each, every blob is there whole or not at all, a check
// finds nothing, the image runs, what is saved is what it was before, and the same command works.
func TestEveryCallOfDrop(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	remote := rig.Layered(t)
	remote.Tag = registrytest.New(t, registrytest.Options{}).Addr + "/team/app:1"
	archive := remote.OCI(t)
	h := rig.Engine(t)
	h.Must(t, "load", "-q", "-i", archive)
	h.Must(t, "rmi", remote.Tag)
	h.Mark(t)
	// Loaded and pushed it is known to be at the registry, and loaded again all of it is here again.
	h.Must(t, "load", "-q", "-i", archive)
	h.Must(t, "push", "-q", "--compress", "none", remote.Tag)
	saved := func() []byte {
		file := filepath.Join(t.TempDir(), "saved.tar")
		h.Must(t, "save", "-o", file, remote.Tag)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	want := saved()
	d := New(t, h)
	drop := []string{"gc", "--drop-blobs"}
	check := func(what any) {
		t.Helper()
		if r := h.Run(t, "system", "check"); r.Code != 0 {
			t.Errorf("%v: %s%s", what, r.Stdout, r.Stderr)
		}
		if r := h.Run(t, "run", "--rm", "--network", "none", "--entrypoint", "/bin/true", remote.Tag); r.Code != 0 {
			t.Errorf("%v: it does not run: %s", what, r.Stderr)
		}
		if !bytes.Equal(saved(), want) {
			t.Errorf("%v: another archive is saved", what)
		}
		if r := h.Run(t, drop...); r.Code != 0 {
			t.Errorf("%v: and then: %+v", what, r)
		}
		h.Must(t, "load", "-q", "-i", archive)
	}
	clear := func() { // as if none had been dropped ever
		sums, err := filepath.Glob(filepath.Join(h.Root, "layers", "*", "sum"))
		if err != nil || len(sums) == 0 {
			t.Fatal(sums, err)
		}
		for _, sum := range sums {
			if err := os.Remove(sum); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, calls, _ := d.Run(t, nil, drop...)
	if r.Code != 0 || len(calls) < 10 {
		t.Fatalf("undisturbed: %d calls, %+v", len(calls), r)
	}
	check("undisturbed")
	stride := max(1, len(calls)*3/points())
	for _, f := range disturbances {
		for at := 1 + int(f.Errno)%stride; at <= len(calls); at += stride {
			clear()
			f.At = at
			_, _, hit := d.Run(t, &f, drop...)
			if hit == nil && f.Do == Fail {
				break
			}
			check(fmt.Sprintf("%v: %v", f, hit))
		}
	}
	h.Must(t, "rmi", remote.Tag) // sweeps what the killed ones left
}
