package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
)

// opener opens o whatever it is called, and counts.
func opener(o Origin, asked *[]string) Opener {
	var mu sync.Mutex
	return func(_ context.Context, name string) (Origin, func(), error) {
		mu.Lock()
		defer mu.Unlock()
		*asked = append(*asked, name)
		return o, func() {}, nil
	}
}

// droppedStore has the image app, pulled from o, of which the blobs of the layers were dropped.
func droppedStore(t *testing.T) (s *Store, o *memoryOrigin, smp sample, layers []ref.Digest) {
	t.Helper()
	s, o, smp = memoryStore(t), newOrigin(), newSample(t, "one")
	layers = o.layers(t, o.put(t, "latest", smp, gz, "+gzip"))
	pull(t, s, o, "app")
	c := must(s.GC(t.Context(), GCOptions{Drop: true}))
	if len(c.Dropped) != len(layers) || len(c.Stay) > 0 {
		t.Fatalf("%+v", c)
	}
	for _, d := range layers {
		if s.hasBlob(d) {
			t.Fatalf("%s is still here", d)
		}
	}
	clear(o.served)
	return s, o, smp, layers
}

// fetchOf is CheckOptions.Fetch of what o has.
func fetchOf(o *memoryOrigin) func(context.Context, ref.Digest) iter.Seq2[io.ReadCloser, error] {
	return func(ctx context.Context, d ref.Digest) iter.Seq2[io.ReadCloser, error] {
		return func(yield func(io.ReadCloser, error) bool) {
			r, _, err := o.Blob(ctx, d, 0)
			yield(r, err)
		}
	}
}

// checkTrees verifies that app is still what want says, as far as containers go.
func checkTrees(t *testing.T, s *Store, want sample) {
	t.Helper()
	img := resolve(t, s, "app")
	mark := want.config.Run.Labels["mark"]
	if img.ID != want.id(t) || len(img.Layers) != 2 {
		t.Fatalf("want %s, got %s with %d layers", want.id(t), img.ID, len(img.Layers))
	}
	for path, content := range map[string]string{img.Layers[0].Dir + "/bin/sh": "#!shell " + mark, img.Layers[1].Dir + "/etc/new": mark} {
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("%s: want %q, got %q, %v", path, content, data, err)
		}
	}
}

// saved is the archive of app in a format.
func saved(t *testing.T, s *Store, format string, from Opener) ([]byte, error) {
	t.Helper()
	out, err := s.Save(t.Context(), []string{"app"}, SaveOptions{Format: format, From: from})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	var b bytes.Buffer
	if _, err := out.WriteTo(&b); err != nil {
		return nil, err
	}
	if int64(b.Len()) != out.Size {
		t.Errorf("%s: announced %d bytes, wrote %d", format, out.Size, b.Len())
	}
	return b.Bytes(), nil
}

// meeting is an origin whose blobs come only once as many of them are wanted as it waits for.
type meeting struct {
	Origin
	want chan struct{}
	all  chan struct{}
}

func (m *meeting) Blob(ctx context.Context, d ref.Digest, offset int64) (io.ReadCloser, int64, error) {
	select {
	case m.want <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	<-m.all
	return m.Origin.Blob(ctx, d, offset)
}

// What an archive needs is fetched at the same time.
func TestSaveFetchesAtOnce(t *testing.T) {
	s, o, _, layers := droppedStore(t)
	m := &meeting{o, make(chan struct{}), make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		defer close(m.all)
		for range layers {
			select {
			case <-m.want:
			case <-ctx.Done():
				return
			}
		}
	}()
	var asked []string
	out, err := s.Save(ctx, []string{"app"}, SaveOptions{Format: FormatDual, From: opener(m, &asked)})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if ctx.Err() != nil {
		t.Error("one was waited for before the next was asked for")
	}
	noIngests(t, s)
}

// What is dropped is what was announced; the image is as it was, a check finds nothing, and archives are the same byte
// for byte.
func TestDrop(t *testing.T) {
	s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
	layers := o.layers(t, o.put(t, "latest", smp, gz, "+gzip"))
	pull(t, s, o, "app")
	formats := []string{FormatDual, FormatDockerArchive, FormatOCIArchive, FormatDockerDir}
	var before [][]byte
	for _, f := range formats {
		before = append(before, must(saved(t, s, f, nil)))
	}
	if d := must(s.Dropping(nil)); d.Dropped != 0 || d.Droppable == 0 {
		t.Errorf("%+v", d)
	}
	plan := must(s.GC(t.Context(), GCOptions{Drop: true, Dry: true}))
	for _, d := range layers {
		if !s.hasBlob(d) {
			t.Errorf("a dry run has dropped %s", d)
		}
	}
	var last Progress
	total := int64(0)
	for _, d := range layers {
		total += int64(len(o.blobs[d]))
	}
	got := must(s.GC(t.Context(), GCOptions{Drop: true, Progress: func(p Progress) {
		if p.Current < last.Current {
			t.Errorf("after %+v comes %+v", last, p)
		}
		last = p
	}}))
	if last.Action != "Comparing layers" || last.Current != total || last.Total != total {
		t.Errorf("want %d bytes compared, got %+v", total, last)
	}
	if !slices.Equal(plan.Dropped, got.Dropped) || plan.Bytes != got.Bytes || plan.After != got.After || got.After != s.Bytes() || len(got.Dropped) != len(layers) {
		t.Errorf("planned\n%+v\ndone\n%+v, %d bytes left", plan, got, s.Bytes())
	}
	for _, b := range got.Dropped {
		if !slices.Contains(layers, b.Digest) || b.From != "docker.io/library/app" || b.Size != int64(len(o.blobs[b.Digest])) {
			t.Errorf("%+v", b)
		}
	}
	if d := must(s.Dropping(nil)); d.Dropped != got.Bytes || d.Droppable != 0 {
		t.Errorf("%+v", d)
	}
	if again := must(s.GC(t.Context(), GCOptions{Drop: true})); len(again.Dropped)+len(again.Stay) > 0 || again.Bytes != 0 {
		t.Errorf("%+v", again)
	}
	checkTrees(t, s, smp)
	if found, err := s.Check(t.Context(), CheckOptions{}); len(found) > 0 || err != nil {
		t.Errorf("%+v, %v", found, err)
	}
	var asked []string
	for i, f := range formats {
		if after, err := saved(t, s, f, opener(o, &asked)); err != nil || !bytes.Equal(before[i], after) {
			t.Errorf("%q: it differs, %v", f, err)
		}
	}
	noIngests(t, s)
	// Neither the same image nor another with the same layers is fetched again.
	clear(o.served)
	pull(t, s, o, "app")
	other := smp
	other.config.Author = "another"
	o.put(t, "other", other, gz, "+gzip")
	pull(t, s, o, "app:other")
	for _, d := range layers {
		if o.served[d] > 0 || s.hasBlob(d) {
			t.Errorf("%s was fetched again", d)
		}
	}
	// Loaded once more they are here again, and as droppable as before.
	load(t, s, before[0])
	if again := must(s.GC(t.Context(), GCOptions{Drop: true})); len(again.Dropped) != len(layers) {
		t.Errorf("%+v", again)
	}
}

// What nobody else is known to hold stays, and so does what is not unpacked as it should be.
func TestDropNot(t *testing.T) {
	for _, c := range []struct {
		name, stays string
		prepare     func(t *testing.T, s *Store, o *memoryOrigin) // app is there
	}{
		{"a loaded image", "", func(t *testing.T, s *Store, o *memoryOrigin) {
			if err := os.RemoveAll(s.originsDir()); err != nil {
				t.Fatal(err)
			}
		}},
		{"a layer that is missing", "", func(t *testing.T, s *Store, o *memoryOrigin) {
			for _, l := range resolve(t, s, "app").Layers {
				if err := os.RemoveAll(filepath.Dir(l.Dir)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a layer that is damaged", "hull system check --repair", func(t *testing.T, s *Store, o *memoryOrigin) {
			for _, l := range resolve(t, s, "app").Layers {
				if err := os.WriteFile(l.Dir+"/evil", nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a blob that is damaged", "it cannot be compared", func(t *testing.T, s *Store, o *memoryOrigin) {
			for _, d := range must(s.droppable(nil)) {
				if err := os.WriteFile(s.blobPath(d.Digest), gz([]byte("no tar")), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
			layers := o.layers(t, o.put(t, "latest", smp, gz, "+gzip"))
			pull(t, s, o, "app")
			c.prepare(t, s, o)
			got, err := s.GC(t.Context(), GCOptions{Drop: true})
			if err != nil || len(got.Dropped) > 0 || got.Bytes != 0 {
				t.Errorf("%+v, %v", got, err)
			}
			for _, d := range layers {
				if !s.hasBlob(d) {
					t.Errorf("%s is gone", d)
				}
			}
			if c.stays == "" && len(got.Stay) > 0 || c.stays != "" && (len(got.Stay) != len(layers) || !strings.Contains(got.Stay[0].Why, c.stays)) {
				t.Errorf("%+v", got.Stay)
			}
		})
	}
}

// Whoever is at work with images keeps blobs where they are.
func TestDropWaits(t *testing.T) {
	s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
	layers := o.layers(t, o.put(t, "latest", smp, gz, "+gzip"))
	pull(t, s, o, "app")
	lease := must(s.Lease(t.Context()))
	_, err := s.GC(t.Context(), GCOptions{Drop: true})
	if !errors.Is(err, errdef.ErrConflict) || !s.hasBlob(layers[0]) {
		t.Errorf("got %v", err)
	}
	lease.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex
	dropped := 0
	for range 3 { // together they drop each once
		wg.Go(func() {
			c, err := s.GC(t.Context(), GCOptions{Drop: true})
			if err != nil && !errors.Is(err, errdef.ErrConflict) {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if c != nil {
				dropped += len(c.Dropped)
			}
		})
	}
	wg.Wait()
	dropped += len(must(s.GC(t.Context(), GCOptions{Drop: true})).Dropped)
	if dropped != len(layers) {
		t.Errorf("want %d blobs dropped, got %d", len(layers), dropped)
	}
}

// Images go for a budget only as far as dropping blobs does not keep it.
func TestDropForBudget(t *testing.T) {
	s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
	o.put(t, "latest", smp, gz, "+gzip")
	pull(t, s, o, "app")
	usedAgo(t, s, smp.id(t), 2*day)
	budget := s.Bytes() - 1
	for _, dry := range []bool{true, false} {
		c := must(s.GC(t.Context(), GCOptions{Keep: &budget, Drop: true, Dry: dry}))
		if len(c.Images) > 0 || len(c.Dropped) != 2 || c.After > budget {
			t.Errorf("%+v", c)
		}
	}
	checkTrees(t, s, smp)
	// What goes with its image is not counted twice.
	other := newSample(t, "two")
	o.put(t, "other", other, gz, "+gzip")
	pull(t, s, o, "app:other")
	usedAgo(t, s, other.id(t), 2*day)
	plan := must(s.GC(t.Context(), GCOptions{Unused: new(day), Drop: true, Dry: true}))
	got := must(s.GC(t.Context(), GCOptions{Unused: new(day), Drop: true}))
	if plan.Bytes != got.Bytes || len(plan.Dropped)+len(got.Dropped) > 0 || got.After != s.Bytes() {
		t.Errorf("planned\n%+v\ndone\n%+v", plan, got)
	}
}

// A layer without a blob is compared all the same; what is damaged is repaired with the blob from where it came.
func TestCheckDropped(t *testing.T) {
	for name, harm := range map[string]func(img *Image) error{
		"a byte":      func(img *Image) error { return os.WriteFile(img.Layers[0].Dir+"/bin/sh", []byte("#!SHELL one"), 0o644) },
		"a file less": func(img *Image) error { return os.Remove(img.Layers[1].Dir + "/etc/new") },
		"a file more": func(img *Image) error { return os.WriteFile(img.Layers[1].Dir+"/etc/evil", nil, 0o644) },
		"a mode":      func(img *Image) error { return os.Chmod(img.Layers[0].Dir+"/bin/sh", 0o755|fs.ModeSetuid) },
		"a target": func(img *Image) error {
			return errors.Join(os.Remove(img.Layers[0].Dir+"/link"), os.Symlink("/etc/shadow", img.Layers[0].Dir+"/link"))
		},
		"no record": func(img *Image) error {
			return os.WriteFile(filepath.Dir(img.Layers[1].Dir)+"/layer.json", []byte("{}"), 0o600)
		},
		"no layer": func(img *Image) error { return os.RemoveAll(filepath.Dir(img.Layers[1].Dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, o, smp, _ := droppedStore(t)
			if err := harm(resolve(t, s, "app")); err != nil {
				t.Fatal(err)
			}
			found, err := s.Check(t.Context(), CheckOptions{})
			if err != nil || len(found) == 0 || found[0].Repaired || !strings.Contains(found[0].Cure, cureRepair) {
				t.Fatalf("%+v, %v", found, err)
			}
			// While nobody has it, it says so.
			found, err = s.Check(t.Context(), CheckOptions{Repair: true})
			if err != nil || len(found) == 0 || found[0].Repaired {
				t.Fatalf("%+v, %v", found, err)
			}
			check := CheckOptions{Repair: true, Fetch: fetchOf(o)}
			if found, err = s.Check(t.Context(), check); err != nil || len(found) == 0 {
				t.Fatalf("%+v, %v", found, err)
			}
			for _, d := range found {
				if !d.Repaired {
					t.Errorf("not repaired: %+v", d)
				}
			}
			if found, err = s.Check(t.Context(), CheckOptions{}); err != nil || len(found) != 0 {
				t.Errorf("after the repair: %+v, %v", found, err)
			}
			checkTrees(t, s, smp)
			if c := must(s.GC(t.Context(), GCOptions{Drop: true})); len(c.Dropped) == 0 || len(c.Stay) > 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Blobs come back from whoever has them, whole and right or not at all.
func TestOpenBlob(t *testing.T) {
	s, o, _, layers := droppedStore(t)
	d, data := layers[0], o.blobs[layers[0]]
	size := int64(len(data))
	open := func(from Opener) ([]byte, error) {
		t.Helper()
		f, err := s.OpenBlob(t.Context(), d, size, from, nil)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return os.ReadFile(f.Name())
	}
	bad := newOrigin()
	bad.blobs[d] = slices.Clone(data)
	bad.blobs[d][len(data)/2] ^= 1
	if err := s.update(t.Context(), func() error { return s.addOrigins("example.com/bad", []ref.Digest{d}) }); err != nil {
		t.Fatal(err)
	}
	both := func(_ context.Context, name string) (Origin, func(), error) {
		if name == "example.com/bad" {
			return bad, func() {}, nil
		}
		return o, func() {}, nil
	}
	got, err := open(both)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if len(bad.rejected) == 0 || o.served[d] != size {
		t.Errorf("rejected %v, %d bytes of the good one", bad.rejected, o.served[d])
	}
	if _, err := open(both); err != nil || o.served[d] != size { // it waits for the next one
		t.Errorf("%v, %d bytes served", err, o.served[d])
	}
	s.DropFetched(d)
	noIngests(t, s)

	// Cut off, and gone on with.
	broken := errors.New("connection lost")
	o.read = func(_ ref.Digest, p []byte, at int64) (int, error) {
		if at >= size/2 {
			return 0, broken
		}
		return copy(p, data[at:size/2]), nil
	}
	clear(o.served)
	only := func(context.Context, string) (Origin, func(), error) { return o, func() {}, nil }
	if _, err := open(only); !errors.Is(err, errdef.ErrUnavailable) || !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	o.read = nil
	if _, err := open(only); err != nil {
		t.Error(err)
	}
	if o.served[d] != size-size/2 {
		t.Errorf("%d bytes of %d were asked for after the half of them", o.served[d], size)
	}
	s.DropFetched(d)

	// Many at once fetch it once.
	clear(o.served)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			f, err := s.OpenBlob(t.Context(), d, size, both, nil)
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		})
	}
	wg.Wait()
	if o.served[d] != size {
		t.Errorf("%d bytes of %d were asked for", o.served[d], size)
	}
	s.DropFetched(d)

	// Gone for good: it is said what, where and what to do.
	delete(o.blobs, d)
	_, err = saved(t, s, FormatDockerArchive, both)
	if !errors.Is(err, errdef.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	for _, part := range []string{"image app:latest", string(d), "example.com/bad", "docker.io/library/app", "hull registry test"} {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not said: %v", part, err)
		}
	}
	if _, err := saved(t, s, FormatDual, nil); !errors.Is(err, errdef.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
