package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hull/errdef"
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
		{"half a record and no configuration", "image sha256:", "its record is damaged", func(s *Store, img *Image) error {
			return errors.Join(os.Truncate(s.recordPath(img.ID), 20), os.Remove(s.blobPath(ref.Digest(img.ID))))
		}},
		{"an empty record", "image sha256:", "its record is damaged", func(s *Store, img *Image) error { return os.Truncate(s.recordPath(img.ID), 0) }},
		{"a name of nothing", "name app:latest", "cannot be read", func(s *Store, img *Image) error {
			return os.WriteFile(s.root+"/refs/docker.io/library/app/:latest", []byte("garbage"), 0o600)
		}},
		{"index.json", "index.json", "cannot be understood", func(s *Store, img *Image) error { return os.WriteFile(s.root+"/index.json", []byte("x"), 0o600) }},
		{"a line of a log", "log of app:latest", "1 of its lines cannot be understood", func(s *Store, img *Image) error {
			path := s.root + "/refs.log/docker.io/library/app/:latest"
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, append([]byte("garbage\n"), data...), 0o600))
		}},
		{"no log", "log of app:latest", "it is missing", func(s *Store, img *Image) error {
			return os.Remove(s.root + "/refs.log/docker.io/library/app/:latest")
		}},
		{"a log of something else", "log of app:latest", "does not end with", func(s *Store, img *Image) error {
			e := LogEntry{New: "sha256:" + strings.Repeat("0", 64), By: "tag"}
			return os.WriteFile(s.root+"/refs.log/docker.io/library/app/:latest", []byte(e.line()), 0o600)
		}},
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
			o := CheckOptions{Repair: true, Fetch: places(origin)}
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

// places offers blobs, as one place does.
func places(all ...map[ref.Digest][]byte) func(context.Context, ref.Digest) iter.Seq2[io.ReadCloser, error] {
	return func(_ context.Context, d ref.Digest) iter.Seq2[io.ReadCloser, error] {
		return func(yield func(io.ReadCloser, error) bool) {
			for _, place := range all {
				data, ok := place[d]
				if !ok && !yield(nil, errors.New("unknown")) || ok && !yield(io.NopCloser(bytes.NewReader(data)), nil) {
					return
				}
			}
		}
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
	found, err := s.Check(t.Context(), CheckOptions{Repair: true, Busy: func(string) (bool, error) { return true, nil }})
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

// endless is a place that sends without end.
type endless struct{ sent int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.sent += int64(len(p))
	return len(p), nil
}

// No place can send more than a manifest says the blob has; the next one that has it is asked.
func TestCheckBounds(t *testing.T) {
	s := memoryStore(t)
	smp := newSample(t, "one")
	load(t, s, smp.docker(t, "app"))
	d := ref.Digest(resolve(t, s, "app").Layers[0].DiffID)
	data, err := os.ReadFile(s.blobPath(d))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.blobPath(d), 100); err != nil {
		t.Fatal(err)
	}
	var e endless
	found, err := s.Check(t.Context(), CheckOptions{Repair: true, Fetch: func(ctx context.Context, _ ref.Digest) iter.Seq2[io.ReadCloser, error] {
		return func(yield func(io.ReadCloser, error) bool) {
			if yield(io.NopCloser(io.LimitReader(&e, math.MaxInt32)), nil) {
				places(map[ref.Digest][]byte{d: data})(ctx, d)(yield)
			}
		}
	}})
	if err != nil || len(found) != 1 || !found[0].Repaired {
		t.Errorf("got %+v, %v", found, err)
	}
	if limit := int64(len(data) + 1<<20); e.sent > limit {
		t.Errorf("%d bytes were taken of a blob of %d", e.sent, len(data))
	}
	checkImage(t, s, resolve(t, s, "app"), smp)
}

// A manifest that is wrong is brought first, for it says how large the wrong blobs are that it names.
func TestCheckAllWrong(t *testing.T) {
	s := memoryStore(t)
	smp := newSample(t, "one")
	load(t, s, smp.docker(t, "app"))
	origin := map[ref.Digest][]byte{}
	entries, err := os.ReadDir(s.blobsDir() + "/sha256")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(s.blobsDir(), "sha256", e.Name())
		if origin[ref.Digest("sha256:"+e.Name())], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 1); err != nil {
			t.Fatal(err)
		}
	}
	found, err := s.Check(t.Context(), CheckOptions{Repair: true, Fetch: places(nil, origin)})
	if err != nil || len(found) != len(origin) || slices.ContainsFunc(found, func(d Damage) bool { return !d.Repaired }) {
		t.Errorf("got %+v, %v", found, err)
	}
	checkImage(t, s, resolve(t, s, "app"), smp)
}

// A process that may open few files cannot look at everything. It says so, takes nothing for damaged, and moves nothing.
func TestCheckWithFewFiles(t *testing.T) {
	s := memoryStore(t)
	smp := newSample(t, "one")
	load(t, s, smp.docker(t, "app"))
	unchecked := 0
	for files := 3; files < 24; files++ {
		cmd := startChild(t, "check", s.root, strconv.Itoa(files))
		err := cmd.Wait()
		said := cmd.Stderr.(*bytes.Buffer).String()
		unchecked += strings.Count(said, "it could not be checked")
		if err != nil && !strings.Contains(said, "too many open files") && !strings.Contains(said, "runtime:") {
			t.Errorf("%d files: %v\n%s", files, err, said)
		}
		if strings.Contains(said, "DAMAGE") {
			t.Errorf("%d files: %s", files, said)
		}
	}
	if aside, err := os.ReadDir(s.quarantineDir()); len(aside) > 0 {
		t.Errorf("in quarantine: %v, %v", aside, err)
	}
	if unchecked == 0 {
		t.Error("everything could be looked at: the test proves nothing")
	}
	if found, err := s.Check(t.Context(), CheckOptions{}); err != nil || len(found) > 0 {
		t.Errorf("got %+v, %v", found, err)
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil { // what they could not remove
		t.Error(err)
	}
	checkImage(t, s, resolve(t, s, "app"), smp)
}

// What goes wrong with one layer is said of that one, and the others are looked at.
func TestCheckGoesOn(t *testing.T) {
	s := memoryStore(t)
	smp := newSample(t, "one")
	load(t, s, smp.docker(t, "app"))
	img := resolve(t, s, "app")
	if err := errors.Join(os.Remove(img.Layers[0].Dir+"/bin/sh"), os.Remove(img.Layers[1].Dir+"/etc/new")); err != nil {
		t.Fatal(err)
	}
	found, err := s.Check(t.Context(), CheckOptions{Repair: true, Busy: func(chain string) (bool, error) {
		if chain == img.Layers[0].ChainID {
			return false, errors.New("nobody knows")
		}
		return false, nil
	}})
	if err != nil || len(found) != 2 || !found[0].Unchecked || found[0].Repaired || !found[1].Repaired {
		t.Fatalf("got %+v, %v", found, err)
	}
	if _, err := os.Lstat(img.Layers[0].Dir + "/bin/sh"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the layer of which nothing is known was touched: %v", err)
	}
}

// Whoever cancels a check gets it back at once, and nothing was moved.
func TestCheckCancelled(t *testing.T) {
	s := memoryStore(t)
	load(t, s, newSample(t, "one").docker(t, "app"))
	why := errors.New("enough")
	for _, phase := range []string{"blob ", "layer "} {
		ctx, cancel := context.WithCancelCause(t.Context())
		asked := false
		_, err := s.Check(ctx, CheckOptions{Repair: true, Progress: func(p Progress) {
			if strings.HasPrefix(p.ID, phase) {
				cancel(why)
				asked = true
			}
		}})
		if !asked || !errors.Is(err, why) {
			t.Errorf("%s: got %v", phase, err)
		}
		cancel(nil)
	}
	if aside, _ := os.ReadDir(s.quarantineDir()); len(aside) > 0 {
		t.Errorf("in quarantine: %v", aside)
	}
}

// The progress is of bytes, and ends with all of them.
func TestCheckProgress(t *testing.T) {
	s := memoryStore(t)
	load(t, s, newSample(t, "one").docker(t, "app"))
	last := map[string]Progress{}
	if found, err := s.Check(t.Context(), CheckOptions{Progress: func(p Progress) {
		if p.Current < last[p.Action].Current || p.Total != last[p.Action].Total && last[p.Action].Total != 0 {
			t.Errorf("%+v after %+v", p, last[p.Action])
		}
		last[p.Action] = p
	}}); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	for _, action := range []string{"Checking blobs", "Checking layers"} {
		if p := last[action]; p.Total < 1000 || p.Current != p.Total {
			t.Errorf("%s: %+v", action, p)
		}
	}
}

// A name that somebody has set since it was found to be damaged stays as they set it.
func TestCheckRenamesOnlyDamaged(t *testing.T) {
	s := memoryStore(t)
	load(t, s, newSample(t, "one").docker(t, "app"))
	load(t, s, newSample(t, "two").docker(t, "other"))
	r, err := ref.Parse("app:latest")
	if err != nil {
		t.Fatal(err)
	}
	two := resolve(t, s, "other").Manifest
	if err := os.WriteFile(s.refPath(r), []byte(two+"\n"), 0o600); err != nil { // as a tag whose log is not written yet
		t.Fatal(err)
	}
	c := checker{s: s, o: &CheckOptions{Repair: true}}
	if err := c.rename(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got, err := s.readRef(r); string(got) != two || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, two)
	}
}

// Two do not repair one store at once.
func TestCheckAlone(t *testing.T) {
	s := memoryStore(t)
	load(t, s, newSample(t, "one").docker(t, "app"))
	l, err := s.lockQuarantine()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context(), CheckOptions{Repair: true}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Check(t.Context(), CheckOptions{}); err != nil {
		t.Error(err)
	}
	l.Unlock()
	if _, err := s.Check(t.Context(), CheckOptions{Repair: true}); err != nil {
		t.Error(err)
	}
}
