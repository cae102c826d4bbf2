package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// memoryDestination is a repository in memory that can be pulled from too.
type memoryDestination struct {
	*memoryOrigin
	uploads int
	down    error // what each request ends with
}

func newDestination() *memoryDestination { return &memoryDestination{memoryOrigin: newOrigin()} }

func (o *memoryDestination) Has(_ context.Context, d ref.Digest) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.blobs[d] != nil, o.down
}

func (o *memoryDestination) Mount(context.Context, ref.Digest, string) (bool, error) {
	return false, o.down
}

func (o *memoryDestination) Upload(_ context.Context, d ref.Digest, size int64, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err == nil && (int64(len(data)) != size || sumOf(data) != string(d)) {
		err = fmt.Errorf("%s has %d bytes and the digest %s, not %d", d, len(data), sumOf(data), size)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uploads++
	o.blobs[d] = data
	return errors.Join(err, o.down)
}

func (o *memoryDestination) HasManifest(_ context.Context, d ref.Digest) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.manifests[string(d)] != nil, o.down
}

func (o *memoryDestination) PutManifest(_ context.Context, reference, mediaType string, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range []string{reference, sumOf(data)} {
		o.manifests[r], o.types[r] = data, mediaType
	}
	return o.down
}

// sweptStore is a store that sweeps by itself.
func sweptStore(t *testing.T) *Store {
	s := newStore(t)
	s.Kept = func() (map[string]bool, error) { return nil, nil }
	return s
}

func push(t *testing.T, s *Store, o Destination, name, compress string) Pushed {
	t.Helper()
	p, err := s.Push(t.Context(), o, mustRef(t, name), PushOptions{Compress: compress})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustRef(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// compressions are how the layers of the image are in the repository: what their media types say, and what they are.
func (o *memoryDestination) compressions(t *testing.T, d ref.Digest) string {
	t.Helper()
	m, _, err := parseTarget(o.manifests[string(d)], o.types[string(d)])
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range m.Layers {
		kind, err := layer.Detect(o.blobs[l.Digest])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %d", strings.TrimPrefix(l.MediaType, typeLayer), kind))
	}
	return strings.Join(all, ",")
}

func TestPushCompresses(t *testing.T) {
	for kind, want := range map[string]string{
		"": " 0, 0", "none": " 0, 0",
		"gzip": fmt.Sprintf("+gzip %[1]d,+gzip %[1]d", layer.Gzip), "zstd": fmt.Sprintf("+zstd %[1]d,+zstd %[1]d", layer.Zstd),
	} {
		t.Run("--compress "+kind, func(t *testing.T) {
			s, o, smp := sweptStore(t), newDestination(), newSample(t, "one")
			load(t, s, smp.docker(t, "app:1", "copy:1"))
			before := resolve(t, s, "app:1").Target
			p := push(t, s, o, "app:1", kind)
			if got := o.compressions(t, p.Digest); got != want {
				t.Errorf("want %q, got %q", want, got)
			}
			for _, name := range []string{"app:1", "copy:1", "app:1@{0}"} {
				img := resolve(t, s, name)
				checkImage(t, s, img, smp)
				if string(p.Digest) != img.Target {
					t.Errorf("%s is %s, pushed was %s", name, img.Target, p.Digest)
				}
			}
			compresses := string(p.Digest) != before
			if compresses != (kind == "gzip" || kind == "zstd") {
				t.Errorf("it was %s, now %s", before, p.Digest)
			}
			for _, d := range smp.config.RootFS.DiffIDs {
				if s.hasBlob(ref.Digest(d)) == compresses {
					t.Errorf("is %s here? %v", d, !compresses)
				}
			}
			if v, err := s.Versions("app:1", 0); err != nil || len(v) != 1 {
				t.Errorf("its log has %+v, %v", v, err)
			}
			// Neither another push nor what it may ask for sends or changes anything.
			n := o.uploads
			for _, kind := range []string{"gzip", "zstd", "none"} {
				if again := push(t, s, o, "app:1", kind); again != p || o.uploads != n {
					t.Errorf("again, %s: %+v, %d uploads", kind, again, o.uploads-n)
				}
			}
			if got := pull(t, s, o, "app:1"); got.New {
				t.Errorf("pulled back: %+v", got)
			}
			other := newDestination()
			if again := push(t, s, other, "copy:1", "gzip"); again != p {
				t.Errorf("to another registry: %+v", again)
			}
			fresh := newStore(t)
			pull(t, fresh, o, "app:1")
			checkImage(t, fresh, resolve(t, fresh, "app:1"), smp)
		})
	}
}

// What is compressed has one digest, whoever compresses it, and however often.
func TestCompressedAgain(t *testing.T) {
	smp := newSample(t, "one")
	var want Pushed
	for range 2 {
		s, o := sweptStore(t), newDestination()
		load(t, s, smp.docker(t, "app:1"))
		p := push(t, s, o, "app:1", "gzip")
		if want.Digest != "" && p != want {
			t.Errorf("want %+v, got %+v", want, p)
		}
		want = p
		// The archive once more: the blobs that there are will do.
		load(t, s, smp.docker(t, "again:1"))
		var said []string
		p, err := s.Push(t.Context(), o, mustRef(t, "again:1"), PushOptions{Compress: "gzip", Progress: func(p Progress) { said = append(said, p.Action) }})
		if err != nil || p != want || slices.Contains(said, "Compressing") {
			t.Errorf("want %+v, got %+v, %v: %q", want, p, err, said)
		}
		checkImage(t, s, resolve(t, s, "again:1"), smp)
	}
}

// A layer that a registry holds, and an image that one holds, keep their digests.
func TestPushKeepsWhatIsKnown(t *testing.T) {
	s, o, smp := sweptStore(t), newDestination(), newSample(t, "one")
	o.put(t, "1", smp, plain, "")
	pull(t, s, o, "base:1")
	base := resolve(t, s, "base:1").Target
	if p := push(t, s, newDestination(), "base:1", "gzip"); string(p.Digest) != base {
		t.Errorf("an image that was pulled: want %s, got %s", base, p.Digest)
	}
	// An image that has those layers below one of its own.
	more := smp
	more.layers = append(slices.Clone(smp.layers), tarOf(t, "etc/", "", "etc/more", "more"))
	more.config.RootFS.DiffIDs = append(slices.Clone(smp.config.RootFS.DiffIDs), sumOf(more.layers[2]))
	more.config.History = append(slices.Clone(smp.config.History), History{CreatedBy: "RUN"})
	load(t, s, more.layout(t, plain, "", map[string]string{annotationContainerd: "docker.io/library/more:1"}))
	to := newDestination()
	p := push(t, s, to, "more:1", "zstd")
	if got, want := to.compressions(t, p.Digest), fmt.Sprintf(" 0, 0,+zstd %d", layer.Zstd); got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	// What a registry has, though it is forgotten that it has: a push without compression, from another machine.
	s, to = sweptStore(t), newDestination()
	load(t, s, smp.docker(t, "app:1"))
	at := resolve(t, s, "app:1").Target
	to.manifests[at] = []byte("here")
	if p := push(t, s, to, "app:1", "gzip"); string(p.Digest) != at {
		t.Errorf("what the registry has: want %s, got %s", at, p.Digest)
	}
}

// Versions of a tag stay what they were, with one line each.
func TestCompressionInLog(t *testing.T) {
	s := sweptStore(t)
	ids := newVersions(t, s, "a")
	push(t, s, newDestination(), "app", "gzip")
	ids["b"] = newVersions(t, s, "b")["b"]
	push(t, s, newDestination(), "app", "zstd")
	for name, want := range map[string]string{"app": "b", "app@{0}": "b", "app@{1}": "a"} {
		if img := resolve(t, s, name); img.ID != ids[want] {
			t.Errorf("%s: want %s, got %s", name, want, img.ID)
		}
	}
	v, err := s.Versions("app", 0)
	if err != nil || len(v) != 2 || v[0].By != "load b" || v[1].By != "load a" || v[0].Target != resolve(t, s, "app").Target {
		t.Errorf("got %+v, %v", v, err)
	}
	if _, err := s.Resolve(t.Context(), "app@{2}"); err == nil {
		t.Error("there is a third version")
	}
}

// Docker's manifest has Docker's type for gzip. For zstd there is none that others know: it becomes OCI's.
func TestCompressDockerManifest(t *testing.T) {
	for kind, want := range map[string][3]string{
		"gzip": {typeDockerManifest, typeDockerConfig, typeDockerGzip}, "zstd": {typeManifest, typeConfig, typeLayer + "+zstd"},
	} {
		s, o, smp := sweptStore(t), newDestination(), newSample(t, "one")
		man, files := smp.blobs(t, plain, "")
		man = strings.NewReplacer(typeLayer, typeDockerLayer, typeConfig, typeDockerConfig, typeManifest, typeDockerManifest).Replace(man)
		man = strings.Replace(man, `{`, `{"annotations":{"kept":"yes"},`, 1)
		for i := 0; i < len(files); i += 2 {
			o.blobs[ref.Digest("sha256:"+files[i][strings.LastIndexByte(files[i], '/')+1:])] = []byte(files[i+1])
		}
		o.putManifest("1", man, typeDockerManifest)
		pull(t, s, o, "app:1")
		os.RemoveAll(s.originsDir()) // it came by an archive, say
		to := newDestination()
		p := push(t, s, to, "app:1", kind)
		m, _, err := parseTarget(to.manifests["1"], p.MediaType)
		if err != nil || !bytes.Contains(to.manifests["1"], []byte(`"annotations":{"kept":"yes"}`)) {
			t.Fatalf("%s, %v", to.manifests["1"], err)
		}
		if got := [3]string{m.MediaType, m.Config.MediaType, m.Layers[0].MediaType}; got != want || p.MediaType != want[0] {
			t.Errorf("%s: want %q, got %q and %q", kind, want, got, p.MediaType)
		}
		checkImage(t, s, resolve(t, s, "app:1"), smp)
	}
}

func TestCompressRefuses(t *testing.T) {
	s, o := sweptStore(t), newDestination()
	load(t, s, newSample(t, "one").docker(t, "app:1"))
	before := resolve(t, s, "app:1")
	refused := func(what string, o Destination, opts PushOptions, want error) {
		t.Helper()
		_, err := s.Push(t.Context(), o, mustRef(t, "app:1"), opts)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		if now := resolve(t, s, "app:1"); now.Target != before.Target {
			t.Errorf("%s: it is %s now", what, now.Target)
		}
		checkLayout(t, s)
	}
	refused("an unknown kind", o, PushOptions{Compress: "xz"}, errdef.ErrInvalid)
	refused("another platform", o, PushOptions{Compress: "gzip", Platform: "linux/s390x"}, errdef.ErrNotFound)
	down := newDestination()
	down.down = errors.New("no route")
	refused("a registry that is away", down, PushOptions{Compress: "gzip", Progress: func(p Progress) { t.Errorf("told %+v", p) }}, down.down)
	// The disk changed a byte.
	path := s.blobPath(ref.Digest(before.Config.RootFS.DiffIDs[1]))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[600] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), o, mustRef(t, "app:1"), PushOptions{Compress: "gzip"}); !errors.Is(err, errdef.ErrCorrupt) || o.uploads > 0 {
		t.Errorf("a damaged blob: %v, %d uploads", err, o.uploads)
	}
	if now := resolve(t, s, "app:1"); now.Target != before.Target {
		t.Errorf("a damaged blob: it is %s now", now.Target)
	}
}

func TestCompressCancelled(t *testing.T) {
	s, o, smp := sweptStore(t), newDestination(), newSample(t, "one")
	load(t, s, smp.docker(t, "app:1"))
	before := resolve(t, s, "app:1").Target
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	_, err := s.Push(ctx, o, mustRef(t, "app:1"), PushOptions{Compress: "gzip", Progress: func(p Progress) {
		if p.Action == "Compressing" {
			cancel(cause)
		}
	}})
	if !errors.Is(err, cause) || o.uploads > 0 {
		t.Errorf("got %v, %d uploads", err, o.uploads)
	}
	img := resolve(t, s, "app:1")
	checkImage(t, s, img, smp)
	if img.Target != before {
		t.Errorf("it is %s now", img.Target)
	}
}

// Several pushes of one image at once, under several names, and a removal between them.
func TestCompressedByMany(t *testing.T) {
	s, smp := sweptStore(t), newSample(t, "one")
	load(t, s, smp.docker(t, "app:1", "app:2", "app:3", "gone:1"))
	digests := make([]ref.Digest, 6)
	var wg sync.WaitGroup
	for i := range digests {
		wg.Go(func() {
			p, err := s.Push(context.Background(), newDestination(), mustRef(t, fmt.Sprintf("app:%d", i%3+1)), PushOptions{Compress: "gzip"})
			if err != nil {
				t.Errorf("push %d: %v", i, err)
			}
			digests[i] = p.Digest
		})
	}
	wg.Go(func() {
		if _, err := s.Remove(context.Background(), "gone:1", RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	for i, d := range digests {
		if d != digests[0] {
			t.Errorf("push %d: want %s, got %s", i, digests[0], d)
		}
	}
	for i := range 3 {
		img := resolve(t, s, fmt.Sprintf("app:%d", i+1))
		if img.Target != string(digests[0]) {
			t.Errorf("app:%d is %s", i+1, img.Target)
		}
		checkImage(t, s, img, smp)
	}
}

// A disk that has no room for the compressed form is said to be full, and what to do; without compression it goes.
func TestCompressOnFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=40m"); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	root := dir + "/root"
	if err := state.Open(root); err != nil {
		t.Fatal(err)
	}
	s, o, smp := Open(root), newDestination(), newSample(t, "x")
	s.Kept = func() (map[string]bool, error) { return nil, nil }
	noise := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	smp.layers[1] = tarOf(t, "etc/", "", "etc/.wh.old", "", "etc/new", "x", "noise", string(noise))
	smp.config.RootFS.DiffIDs[1] = sumOf(smp.layers[1])
	load(t, s, smp.docker(t, "app"))
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	used := int64(st.Blocks-st.Bfree) * st.Bsize
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+1<<20)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Push(t.Context(), o, mustRef(t, "app"), PushOptions{Compress: "gzip"})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "--compress none") || o.uploads > 0 {
		t.Errorf("got %v, %d uploads", err, o.uploads)
	}
	checkLayout(t, s)
	push(t, s, o, "app", "none")
}

// Of zeros zstd makes so little that no reader of ours would take it for a layer: that one is sent as gzip.
func TestCompressZeros(t *testing.T) {
	s, o := sweptStore(t), newDestination()
	const size = 1100 << 20
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	zeros := readerFunc(func(p []byte) (int, error) { clear(p); return len(p), nil })
	if _, err := s.Import(t.Context(), io.MultiReader(&head, io.LimitReader(zeros, size+1024)), ImportOptions{Ref: "app:1"}); err != nil {
		t.Fatal(err)
	}
	p := push(t, s, o, "app:1", "zstd")
	if got, want := o.compressions(t, p.Digest), fmt.Sprintf("+gzip %d", layer.Gzip); got != want {
		t.Errorf("want %q, got %q", want, got)
	}
}
