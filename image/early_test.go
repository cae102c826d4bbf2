package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hull/ref"
	"hull/state"
)

// TestLoadAgain: an archive that names no digests brings nothing that is here, and still all that lacks.
func TestLoadAgain(t *testing.T) {
	s, smp := memoryStore(t), newSample(t, "one")
	data := smp.docker(t, "app:1")
	load(t, s, data)
	want := resolve(t, s, "app:1")

	in, err := s.receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := in.newEarly(t.Context())
	for _, l := range smp.layers {
		sp, err := e.file(bytes.NewReader(l), int64(len(l)), "", "layer", nil)
		if d := ref.Digest(sumOf(l)); err != nil || sp != (spooled{s.blobPath(d), d, int64(len(l))}) {
			t.Errorf("%+v, %v", sp, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(in.blobs, "*")); len(left)+len(e.made)+len(in.files) > 0 {
		t.Errorf("%q, %v and %v came again", left, e.made, in.files)
	}
	e.close()
	if err := in.close(); err != nil {
		t.Fatal(err)
	}

	// The blobs alone are here: the layers are made of them.
	if err := errors.Join(state.Remove(want.Layers[1].Dir), state.Remove(filepath.Dir(want.Layers[1].Dir))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(want.Layers[1].Dir); err == nil {
		t.Fatal("the layer is still here")
	}
	load(t, s, data)
	img := resolve(t, s, "app:1")
	if img.Manifest != want.Manifest {
		t.Errorf("want the manifest %s, got %s", want.Manifest, img.Manifest)
	}
	checkImage(t, s, img, smp)
}
