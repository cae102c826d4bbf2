package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
	"hull/test/rig/disk"
)

// directory is a repository in files, for processes that are to be killed: a manifest or blob is a file named by its
// digits, a tag one that holds such. It is slow.
type directory string

func (o directory) Manifest(_ context.Context, reference string) ([]byte, string, error) {
	if d, err := ref.ParseDigest(reference); err == nil {
		reference = d.Hex()
	}
	data, err := os.ReadFile(filepath.Join(string(o), reference))
	return data, typeManifest, err
}

func (o directory) Blob(_ context.Context, d ref.Digest, offset int64) (io.ReadCloser, int64, error) {
	f, err := os.Open(filepath.Join(string(o), d.Hex()))
	if err != nil {
		return nil, 0, err
	}
	_, err = f.Seek(offset, io.SeekStart)
	return slow{f}, offset, err
}

func (o directory) Reject(ref.Digest) {}

type slow struct{ *os.File }

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Microsecond)
	return s.File.Read(p[:min(len(p), 8<<10)])
}

// write makes files of what is in the repository.
func (o *memoryOrigin) write(t testing.TB) directory {
	t.Helper()
	dir := t.TempDir()
	for d, data := range o.blobs {
		if err := os.WriteFile(filepath.Join(dir, d.Hex()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for reference, data := range o.manifests {
		if err := os.WriteFile(filepath.Join(dir, strings.TrimPrefix(reference, "sha256:")), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return directory(dir)
}

// onDisk returns how many bytes of each blob wait for the next pull.
func onDisk(s *Store) map[ref.Digest]int64 {
	all := map[ref.Digest]int64{}
	names, _ := filepath.Glob(filepath.Join(s.root, "ingest", "*", "data"))
	for _, name := range names {
		if st, err := os.Stat(name); err == nil {
			all[ref.Digest("sha256:"+filepath.Base(filepath.Dir(name)))] = st.Size()
		}
	}
	return all
}

// Killed at any point, a pull leaves old or new; the next one asks for exactly the bytes that are missing.
func TestPullKilled(t *testing.T) {
	o := newOrigin()
	one, two := bigSample(t, "one"), bigSample(t, "two")
	o.put(t, "one", one, plain, "")
	mine := o.put(t, "latest", two, plain, "")
	dir := o.write(t)
	var k killer
	resumed := 0
	for round := range 15 {
		s := memoryStore(t)
		s.Kept = func() (map[string]bool, error) { return nil, nil }
		pull(t, s, o, "app:one")
		if err := s.Tag(t.Context(), "app:one", "app", ""); err != nil {
			t.Fatal(err)
		}
		k.run(t, "pull", s.root, string(dir))
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sum := range list {
			whole(t, s, sum.ID)
		}
		img := resolve(t, s, "app")
		checkBig(t, s, img, img.Config.Run.Labels["mark"])
		kept := onDisk(s)
		for _, d := range o.layers(t, mine) {
			if s.hasBlob(d) { // killed between its last blob and the tag, or a layer of image one
				kept[d] = int64(len(o.blobs[d]))
			}
		}
		before := maps.Clone(o.served)
		pull(t, s, o, "app")
		checkBig(t, s, resolve(t, s, "app"), "two")
		for _, d := range o.layers(t, mine) {
			want := int64(len(o.blobs[d])) - kept[d]
			if kept[d] > 0 && want > 0 {
				resumed++
			}
			if got := o.served[d] - before[d]; got != want {
				t.Errorf("round %d: %d bytes of %s were here; want %d asked for, got %d", round, kept[d], d, want, got)
			}
		}
		checkLayout(t, s)
		if _, err := s.Sweep(t.Context(), nil); err != nil {
			t.Error(err)
		}
		noIngests(t, s)
	}
	t.Logf("killed in %d rounds within %v, %d layers were gone on with", k.killed, k.longest, resumed)
	if k.killed == 0 || resumed == 0 {
		t.Error("nothing was killed, or nothing gone on with: the test proves nothing")
	}
}

// What a pull returned for is there after the power was cut the moment after; cut in the middle, it is old or new.
func TestPullPowerCut(t *testing.T) {
	if !disk.OwnMounts(t) {
		return
	}
	d, s := newDiskStore(t)
	o := newOrigin()
	o.put(t, "latest", bigSample(t, "two"), gz, "+gzip")
	pull(t, s, o, "app")
	d.Cut()
	checkBig(t, s, resolve(t, s, "app"), "two")
	checkBig(t, s, resolve(t, s, "app@{1}"), "one")
	o.put(t, "latest", bigSample(t, "three"), gz, "+gzip")
	dir := o.write(t)
	for range 6 {
		cmd := startChild(t, "pull", d.Dir+"/root", string(dir))
		time.Sleep(rand.N(100 * time.Millisecond))
		t.Log(cutUnder(t, d, cmd))
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sum := range list {
			img := resolve(t, s, sum.ID)
			checkBig(t, s, img, img.Config.Run.Labels["mark"])
		}
		resolve(t, s, "app")
	}
	// Whatever the cuts made of the bytes that were kept, the next one gets there.
	pull(t, s, o, "app")
	checkBig(t, s, resolve(t, s, "app"), "three")
	d.Cut()
	checkBig(t, s, resolve(t, s, "app"), "three")
}

// A full disk is said, and gets its space back; with room again the same command works.
func TestPullFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	o, smp := newOrigin(), newSample(t, "x")
	smp.layers[1] = tarOf(t, "etc/", "", "etc/.wh.old", "", "etc/new", "x", "big", strings.Repeat("0123456789abcdef", 1<<16))
	smp.config.RootFS.DiffIDs[1] = sumOf(smp.layers[1])
	o.put(t, "latest", smp, plain, "")
	for _, kib := range []int{300, 1200, 1900} {
		if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
			t.Skip(err)
		}
		func() {
			defer unix.Unmount(dir, unix.MNT_DETACH)
			root := dir + "/root"
			if err := state.Open(root); err != nil {
				t.Fatal(err)
			}
			s := Open(root)
			if _, err := tryPull(t.Context(), s, o, "app"); !errors.Is(err, unix.ENOSPC) || errors.Is(err, errdef.ErrInvalid) {
				t.Errorf("%d KiB: want the disk blamed, got %v", kib, err)
			}
			wantEmpty(t, s)
			noIngests(t, s)
			if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
				t.Fatal(err)
			}
			pull(t, s, o, "app")
			resolve(t, s, "app")
			checkLayout(t, s)
		}()
	}
}
