package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/ref"
)

// Each kind of damage is named, made good, and gone afterwards; the image is then as it was.
func TestCheck(t *testing.T) {
	smp := newSample(t, "one")
	flip := func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		return os.WriteFile(path, data, 0o600)
	}
	for _, tt := range []struct {
		name, object, problem string
		harm                  func(s *Store, img *Image) error
	}{
		{"nothing", "", "", func(*Store, *Image) error { return nil }},
		{"a bit of a layer's blob", "blob sha256:", "have the digest", func(s *Store, img *Image) error { return flip(s.blobPath(ref.Digest(img.Layers[0].DiffID))) }},
		{"a bit of the configuration", "blob sha256:", "have the digest", func(s *Store, img *Image) error { return flip(s.blobPath(ref.Digest(img.ID))) }},
		{"a bit of the manifest", "blob sha256:", "have the digest", func(s *Store, img *Image) error { return flip(s.blobPath(ref.Digest(img.Manifest))) }},
		{"half a blob", "blob sha256:", "have the digest", func(s *Store, img *Image) error {
			return os.Truncate(s.blobPath(ref.Digest(img.Layers[0].DiffID)), 100)
		}},
		{"no blob", "image sha256:", "is missing", func(s *Store, img *Image) error { return os.Remove(s.blobPath(ref.Digest(img.Layers[1].DiffID))) }},
		{"no configuration", "image sha256:", "is missing", func(s *Store, img *Image) error { return os.Remove(s.blobPath(ref.Digest(img.ID))) }},
		{"a link for a blob", "blob sha256:", "symbolic link", func(s *Store, img *Image) error {
			path := s.blobPath(ref.Digest(img.Layers[0].DiffID))
			return errors.Join(os.Rename(path, path+"x"), os.Rename(path+"x", s.root+"/elsewhere"), os.Symlink("../../elsewhere", path))
		}},
		{"a blob for everybody", "blob sha256:", "others than its owner", func(s *Store, img *Image) error { return os.Chmod(s.blobPath(ref.Digest(img.ID)), 0o666) }},
		{"a byte of a file", "layer sha256:", `"/bin/sh"`, func(s *Store, img *Image) error { return flip(img.Layers[0].Dir + "/bin/sh") }},
		{"a file less", "layer sha256:", `"/etc/new" is missing`, func(s *Store, img *Image) error { return os.Remove(img.Layers[1].Dir + "/etc/new") }},
		{"a file more", "layer sha256:", `"/etc/evil" is not of the image`, func(s *Store, img *Image) error {
			return os.WriteFile(img.Layers[1].Dir+"/etc/evil", nil, 0o644)
		}},
		{"a mode", "layer sha256:", "has the mode 4755", func(s *Store, img *Image) error { return os.Chmod(img.Layers[0].Dir+"/bin/sh", 0o755|fs.ModeSetuid) }},
		{"another target", "layer sha256:", `"/link" points to`, func(s *Store, img *Image) error {
			return errors.Join(os.Remove(img.Layers[0].Dir+"/link"), os.Symlink("/etc/shadow", img.Layers[0].Dir+"/link"))
		}},
		{"a link for a directory", "layer sha256:", `"/etc" is another kind of file`, func(s *Store, img *Image) error {
			return errors.Join(os.Rename(img.Layers[0].Dir+"/etc", s.root+"/elsewhere"), os.Symlink("/etc", img.Layers[0].Dir+"/etc"))
		}},
		{"no layer", "layer sha256:", "it is missing", func(s *Store, img *Image) error { return os.RemoveAll(filepath.Dir(img.Layers[1].Dir)) }},
		{"no record of a layer", "layer sha256:", "its record is damaged", func(s *Store, img *Image) error {
			return os.WriteFile(filepath.Dir(img.Layers[1].Dir)+"/layer.json", []byte("{}"), 0o600)
		}},
		{"half a record", "image sha256:", "its record is damaged", func(s *Store, img *Image) error { return os.Truncate(s.recordPath(img.ID), 20) }},
		{"an empty record", "image sha256:", "its record is damaged", func(s *Store, img *Image) error { return os.Truncate(s.recordPath(img.ID), 0) }},
		{"a name of nothing", "name app:latest", "cannot be read", func(s *Store, img *Image) error {
			return os.WriteFile(s.root+"/refs/docker.io/library/app/:latest", []byte("garbage"), 0o600)
		}},
		{"index.json", "index.json", "cannot be understood", func(s *Store, img *Image) error { return os.WriteFile(s.root+"/index.json", []byte("x"), 0o600) }},
		{"oci-layout", "oci-layout", "damaged", func(s *Store, img *Image) error { return os.WriteFile(s.root+"/oci-layout", nil, 0o600) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := memoryStore(t)
			load(t, s, smp.docker(t, "app"))
			origin := map[ref.Digest][]byte{}
			blobs, _ := os.ReadDir(s.blobsDir() + "/sha256")
			for _, b := range blobs {
				origin[ref.Digest("sha256:"+b.Name())], _ = os.ReadFile(s.blobsDir() + "/sha256/" + b.Name())
			}
			if err := tt.harm(s, resolve(t, s, "app")); err != nil {
				t.Fatal(err)
			}
			found, err := s.Check(t.Context(), CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if tt.object == "" {
				if len(found) != 0 {
					t.Errorf("got %+v", found)
				}
				return
			}
			if len(found) == 0 || !strings.HasPrefix(found[0].Object, tt.object) || !strings.Contains(found[0].Problem, tt.problem) || found[0].Cure == "" || found[0].Repaired {
				t.Fatalf("got %+v", found)
			}
			// Nobody who could help: it says so, and does not get worse.
			o := CheckOptions{Repair: true, Fetch: func(_ context.Context, d ref.Digest) (io.ReadCloser, error) {
				data, ok := origin[d]
				if !ok {
					return nil, errors.New("unknown")
				}
				return io.NopCloser(bytes.NewReader(data)), nil
			}}
			if found, err = s.Check(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			for _, d := range found {
				if !d.Repaired {
					t.Errorf("not repaired: %+v", d)
				}
			}
			if found, err = s.Check(t.Context(), o); err != nil || len(found) != 0 {
				t.Errorf("after the repair: %+v, %v", found, err)
			}
			checkImage(t, s, resolve(t, s, "app"), smp)
		})
	}
}

// What nobody can bring again is put aside and said; a layer that is in use is left alone.
func TestCheckWithoutHelp(t *testing.T) {
	s := memoryStore(t)
	smp := newSample(t, "one")
	load(t, s, smp.docker(t, "app"))
	img := resolve(t, s, "app")
	path := s.blobPath(ref.Digest(img.Layers[0].DiffID))
	if err := errors.Join(os.Truncate(path, 10), os.Remove(img.Layers[1].Dir+"/etc/new")); err != nil {
		t.Fatal(err)
	}
	found, err := s.Check(t.Context(), CheckOptions{Repair: true, Busy: func(string) bool { return true }})
	if err != nil || len(found) != 2 || found[0].Repaired || found[1].Repaired || !strings.Contains(found[1].Cure, "stop the containers") {
		t.Fatalf("got %+v, %v", found, err)
	}
	if aside, _ := os.ReadDir(s.root + "/quarantine"); len(aside) != 1 {
		t.Errorf("in quarantine: %v", aside)
	}
	load(t, s, smp.docker(t, "app")) // as it was told
	if found, err := s.Check(t.Context(), CheckOptions{Repair: true}); err != nil || len(found) != 1 || !found[0].Repaired {
		t.Errorf("got %+v, %v", found, err)
	}
	checkImage(t, s, resolve(t, s, "app"), smp)
}
