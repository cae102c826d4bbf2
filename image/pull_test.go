package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
)

// memoryOrigin is a repository in memory that counts what it gives, and may be told to misbehave.
type memoryOrigin struct {
	mu        sync.Mutex // protects the following
	manifests map[string][]byte
	types     map[string]string // media types that are declared, by reference
	blobs     map[ref.Digest][]byte
	asked     []string             // references of manifests
	served    map[ref.Digest]int64 // bytes
	noRanges  bool
	read      func(d ref.Digest, p []byte, at int64) (int, error) // before each read; nil bytes and nil error go on
	rejected  []ref.Digest
}

func newOrigin() *memoryOrigin {
	return &memoryOrigin{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[ref.Digest][]byte{}, served: map[ref.Digest]int64{}}
}

func (o *memoryOrigin) Manifest(_ context.Context, reference string) ([]byte, string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, reference)
	data, ok := o.manifests[reference]
	if !ok {
		return nil, "", errdef.NotFound("manifest for %s not found", reference)
	}
	return data, o.types[reference], nil
}

func (o *memoryOrigin) Blob(ctx context.Context, d ref.Digest, offset int64) (io.ReadCloser, int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.blobs[d]
	if !ok {
		return nil, 0, errdef.NotFound("blob %s not found", d)
	}
	if o.noRanges {
		offset = 0
	}
	return io.NopCloser(&memoryBody{ctx, o, d, data, offset}), offset, nil
}

func (o *memoryOrigin) Reject(d ref.Digest) { o.rejected = append(o.rejected, d) }

type memoryBody struct {
	ctx  context.Context
	o    *memoryOrigin
	d    ref.Digest
	data []byte
	at   int64
}

func (b *memoryBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	if b.o.read != nil {
		if n, err := b.o.read(b.d, p, b.at); n > 0 || err != nil {
			b.at += int64(n)
			return n, err
		}
	}
	if b.at >= int64(len(b.data)) {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 4096)], b.data[b.at:])
	b.at += int64(n)
	b.o.mu.Lock()
	defer b.o.mu.Unlock()
	b.o.served[b.d] += int64(n)
	return n, nil
}

// put gives the repository an image under a tag, and returns its manifest.
func (o *memoryOrigin) put(t testing.TB, tag string, smp sample, pack func([]byte) []byte, suffix string) descriptor {
	t.Helper()
	man, files := smp.blobs(t, pack, suffix)
	for i := 0; i < len(files); i += 2 {
		d := ref.Digest("sha256:" + filepath.Base(files[i]))
		o.blobs[d] = []byte(files[i+1])
	}
	d := ref.Digest(sumOf([]byte(man)))
	delete(o.blobs, d)
	o.putManifest(tag, man, typeManifest)
	return descriptor{MediaType: typeManifest, Digest: d, Size: int64(len(man)), Platform: &platform{OS: smp.config.OS, Architecture: smp.config.Architecture}}
}

func (o *memoryOrigin) putManifest(tag, man, mediaType string) ref.Digest {
	d := sumOf([]byte(man))
	for _, reference := range []string{tag, d} {
		o.manifests[reference], o.types[reference] = []byte(man), mediaType
	}
	return ref.Digest(d)
}

// putIndex gives the repository an index of those manifests.
func (o *memoryOrigin) putIndex(t testing.TB, tag string, manifests ...descriptor) ref.Digest {
	return o.putManifest(tag, toJSON(t, index{SchemaVersion: 2, MediaType: typeIndex, Manifests: manifests}), typeIndex)
}

// forOther is a sample of another platform.
func forOther(t testing.TB, os, arch string) sample {
	smp := newSample(t, os+arch)
	smp.config.OS, smp.config.Architecture = os, arch
	return smp
}

func pull(t testing.TB, s *Store, o Origin, name string, opts ...PullOptions) Pulled {
	t.Helper()
	p, err := tryPull(t.Context(), s, o, name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryPull(ctx context.Context, s *Store, o Origin, name string, opts ...PullOptions) (Pulled, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return Pulled{}, err
	}
	return s.Pull(ctx, o, r, append(opts, PullOptions{})[0])
}

// noIngests verifies that nothing waits to be gone on with.
func noIngests(t testing.TB, s *Store) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(s.root, "ingest", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestPull(t *testing.T) {
	for name, c := range map[string]struct {
		pack   func([]byte) []byte
		suffix string
	}{"gzip": {gz, "+gzip"}, "zstd": {zst, "+zstd"}, "plain": {plain, ""}, "zstd:chunked": {chunked, "+zstd"}, "named gzip, is zstd": {zst, "+gzip"}} {
		t.Run(name, func(t *testing.T) {
			s, o, smp := newStore(t), newOrigin(), newSample(t, "one")
			d := o.put(t, "latest", smp, c.pack, c.suffix)
			var lines []string
			got := pull(t, s, o, "example.org/app", PullOptions{Progress: func(p Progress) { lines = append(lines, p.ID+" "+p.Action) }})
			if want := (Pulled{ID: smp.id(t), Digest: string(d.Digest), New: true}); got != want {
				t.Errorf("want %+v, got %+v", want, got)
			}
			img := resolve(t, s, "example.org/app")
			checkImage(t, s, img, smp)
			checkLayout(t, s)
			noIngests(t, s)
			if !slices.Contains(lines, o.layers(t, d)[0].Short()+" Pull complete") {
				t.Errorf("want each layer reported, got %q", lines)
			}
			if log, err := s.Log("example.org/app"); err != nil || len(log) != 1 || log[0].By != "pull" || log[0].New != string(d.Digest) {
				t.Errorf("got the log %+v, %v", log, err)
			}
			for _, blob := range append(o.layers(t, d), d.Digest, ref.Digest(smp.id(t))) {
				if from := s.Origins(blob); !slices.Equal(from, []string{"example.org/app"}) {
					t.Errorf("origins of %s: %q", blob, from)
				}
			}
			list, err := s.List(t.Context())
			if err != nil || len(list) != 1 || !slices.Equal(list[0].RepoDigests, []string{"example.org/app@" + string(d.Digest)}) {
				t.Errorf("got %+v, %v", list, err)
			}
		})
	}
}

// chunked is zstd with a frame to skip at the end, which holds a table of contents for those who know of it.
func chunked(data []byte) []byte {
	return append(zst(data), 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 't', 'o', 'c', '!')
}

// layers returns the digests of the layers of a manifest.
func (o *memoryOrigin) layers(t testing.TB, d descriptor) []ref.Digest {
	t.Helper()
	m, _, err := parseTarget(o.manifests[string(d.Digest)], "")
	if err != nil {
		t.Fatal(err)
	}
	var all []ref.Digest
	for _, l := range m.Layers {
		all = append(all, l.Digest)
	}
	return all
}

// What is here is not asked for again: of an image that is whole only the manifest, of another one only what it has new.
func TestPullAgain(t *testing.T) {
	s, o, one := memoryStore(t), newOrigin(), newSample(t, "one")
	d := o.put(t, "latest", one, gz, "+gzip")
	pull(t, s, o, "app")
	o.asked = nil
	before := maps.Clone(o.served)
	if got := pull(t, s, o, "app"); got.New || got.Digest != string(d.Digest) {
		t.Errorf("got %+v", got)
	}
	if !slices.Equal(o.asked, []string{"latest"}) || !maps.Equal(before, o.served) {
		t.Errorf("want one question, got %q and %v", o.asked, o.served)
	}

	two := newSample(t, "two")
	two.layers[0], two.config.RootFS.DiffIDs[0] = one.layers[0], one.config.RootFS.DiffIDs[0]
	o.put(t, "latest", two, gz, "+gzip")
	var lines []string
	if got := pull(t, s, o, "app", PullOptions{Progress: func(p Progress) { lines = append(lines, p.ID+" "+p.Action) }}); !got.New || got.ID != two.id(t) {
		t.Errorf("got %+v", got)
	}
	shared := o.layers(t, d)[0]
	if o.served[shared] != before[shared] || !slices.Contains(lines, shared.Short()+" Already exists") {
		t.Errorf("want the layer both have left alone, got %d bytes after %d, %q", o.served[shared], before[shared], lines)
	}
	checkImage(t, s, resolve(t, s, "app@{1}"), one)
	checkLayout(t, s)
}

func TestPullByDigest(t *testing.T) {
	s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
	d := o.put(t, "latest", smp, gz, "+gzip")
	name := "example.org/app@" + string(d.Digest)
	pull(t, s, o, "example.org/app:ignored@"+string(d.Digest))
	checkImage(t, s, resolve(t, s, name), smp)
	list, _ := s.List(t.Context())
	if len(list) != 1 || len(list[0].RepoTags) != 0 || !slices.Equal(list[0].RepoDigests, []string{name}) {
		t.Errorf("got %+v", list)
	}
	o.manifests[string(d.Digest)] = append(o.manifests[string(d.Digest)], ' ')
	if _, err := tryPull(t.Context(), memoryStore(t), o, name); !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), "verification failed for digest") {
		t.Errorf("want other bytes under the digest refused, got %v", err)
	}
}

func TestPullIndex(t *testing.T) {
	s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
	mine := o.put(t, "x", smp, gz, "+gzip")
	riscv := o.put(t, "y", forOther(t, "linux", "riscv64"), gz, "+gzip")
	windows := o.put(t, "z", forOther(t, "windows", "amd64"), gz, "+gzip")
	about := descriptor{MediaType: typeManifest, Digest: "sha256:" + ref.Digest(strings.Repeat("0", 64)), Size: 1,
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"}, Platform: &platform{OS: "unknown", Architecture: "unknown"}}
	x := o.putIndex(t, "latest", windows, riscv, mine, about)
	if got := pull(t, s, o, "app"); got.ID != smp.id(t) || got.Digest != string(x) {
		t.Errorf("got %+v", got)
	}
	checkImage(t, s, resolve(t, s, "app"), smp)
	checkLayout(t, s)
	if got := pull(t, s, o, "app"); got.New {
		t.Errorf("got %+v", got)
	}

	// Another platform's image comes beside it and is found by its own digest; the name leads to this machine's.
	pull(t, s, o, "app", PullOptions{Platform: "linux/riscv64"})
	checkImage(t, s, resolve(t, s, "app"), smp)
	if img := resolve(t, s, "app@"+string(x)); img.ID != smp.id(t) {
		t.Errorf("got %+v", img)
	}
	if !s.hasBlob(riscv.Digest) {
		t.Error("want the other platform's manifest here")
	}
	if list, _ := s.List(t.Context()); len(list) != 1 {
		t.Errorf("want one image listed, got %+v", list)
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil || !s.hasBlob(riscv.Digest) {
		t.Errorf("want what the index leads to kept, got %v", err)
	}
	checkLayout(t, s)

	// Alone, it is what the name leads to.
	s = memoryStore(t)
	if got := pull(t, s, o, "app", PullOptions{Platform: "linux/riscv64"}); got.ID != forOther(t, "linux", "riscv64").id(t) {
		t.Errorf("got %+v", got)
	}
	resolve(t, s, "app")
	if got := pull(t, s, o, "app"); !got.New { // and then this machine's is still to come
		t.Errorf("got %+v", got)
	}
	checkImage(t, s, resolve(t, s, "app"), smp)
	checkLayout(t, s)
}

func TestPullAllPlatforms(t *testing.T) {
	s, o, smp := memoryStore(t), newOrigin(), newSample(t, "one")
	mine, riscv, windows := o.put(t, "x", smp, gz, "+gzip"), o.put(t, "y", forOther(t, "linux", "riscv64"), gz, "+gzip"), o.put(t, "z", forOther(t, "windows", "amd64"), gz, "+gzip")
	o.putIndex(t, "latest", riscv, windows, mine)
	pull(t, s, o, "app", PullOptions{AllPlatforms: true})
	checkImage(t, s, resolve(t, s, "app"), smp)
	if !s.hasBlob(riscv.Digest) || s.hasBlob(windows.Digest) {
		t.Error("want all of Linux, and only that")
	}
	checkLayout(t, s)
}

func TestPullRefuses(t *testing.T) {
	s, o := memoryStore(t), newOrigin()
	smp := newSample(t, "one")
	windows := o.put(t, "windows", forOther(t, "windows", "amd64"), gz, "+gzip")
	o.putIndex(t, "windows-only", windows)
	mine := o.put(t, "fine", smp, gz, "+gzip")
	man := string(o.manifests["fine"])
	o.putManifest("both", strings.Replace(man, `"config"`, `"manifests":[],"config"`, 1), typeManifest)
	o.putManifest("wrong-type", man, typeIndex)
	o.putManifest("helm", strings.Replace(man, typeConfig, "application/vnd.cncf.helm.config.v1+json", 1), typeManifest)
	o.putManifest("v1", `{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws")
	o.putManifest("empty", "", typeManifest)
	o.putManifest("html", "<html>", "text/html")
	o.putManifest("negative", strings.Replace(man, `"size":`, `"size":-`, 1), typeManifest)
	o.putManifest("traversal", strings.Replace(man, string(o.layers(t, mine)[0]), "sha256:../../x", 1), typeManifest)
	o.putManifest("null", `{"schemaVersion":2,"config":null,"layers":[null]}`, typeManifest)
	x := o.putIndex(t, "nested-inner", mine)
	o.putIndex(t, "nested", descriptor{MediaType: typeIndex, Digest: x, Size: int64(len(o.manifests["nested-inner"])), Platform: &platform{OS: "linux", Architecture: runtime.GOARCH}})
	fewer := smp
	fewer.layers = smp.layers[:1]
	o.put(t, "fewer", fewer, gz, "+gzip")
	for tag, want := range map[string]string{
		"windows":      `image operating system "windows" cannot be used on this platform`,
		"windows-only": "no matching manifest for linux/" + runtime.GOARCH + " in the manifest list entries",
		"both":         "more than one kind", "wrong-type": "contradicts its media type", "helm": "artifact", "v1": "more than one kind",
		"empty": "not a JSON object", "html": "not a JSON object", "negative": "has the size -", "traversal": "invalid digest", "null": "no digest",
		"nested": "index within an index", "fewer": "1 layers but 2 diff ids", "none": "not found",
	} {
		_, err := tryPull(t.Context(), s, o, "app:"+tag)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", tag, want, err)
		}
	}
	if _, err := tryPull(t.Context(), s, o, "app:fine", PullOptions{Platform: "linux/riscv64"}); !errors.Is(err, errdef.ErrNotFound) || !strings.Contains(err.Error(), "does not match the specified platform") {
		t.Errorf("got %v", err)
	}
	if list, _ := s.List(t.Context()); len(list) != 0 {
		t.Errorf("want nothing, got %+v", list)
	}
	noIngests(t, s)
}

// A42: what the registry sends wrong is asked for once more and then refused; nothing of it stays.
func TestPullWrongContent(t *testing.T) {
	smp := newSample(t, "one")
	for name, spoil := range map[string]func([]byte) []byte{
		"flipped":  func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
		"longer":   func(b []byte) []byte { return append(bytes.Clone(b), 0) },
		"shorter":  func(b []byte) []byte { return b[:len(b)-1] },
		"other":    func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) },
		"no bytes": func([]byte) []byte { return nil },
	} {
		for _, what := range []string{"layer", "configuration"} {
			s, o := memoryStore(t), newOrigin()
			mine := o.put(t, "latest", smp, gz, "+gzip")
			d := o.layers(t, mine)[1]
			if what == "configuration" {
				d = ref.Digest(smp.id(t))
			}
			good := o.blobs[d]
			o.blobs[d] = spoil(good)
			if _, err := tryPull(t.Context(), s, o, "app"); err == nil {
				t.Errorf("%s, %s: want an error", what, name)
			} else if name == "flipped" && (!strings.Contains(err.Error(), "verification failed for digest "+string(d)) || len(o.rejected) == 0) {
				t.Errorf("%s: got %v, %v", what, err, o.rejected)
			}
			if list, _ := s.List(t.Context()); len(list) != 0 {
				t.Errorf("want nothing, got %+v", list)
			}
			o.blobs[d] = good
			pull(t, s, o, "app")
			checkImage(t, s, resolve(t, s, "app"), smp)
			checkLayout(t, s)
			noIngests(t, s)
		}
	}
}

// A manifest that pairs a blob that is here with the diff id of another that is here: what would run is not what the
// blob has (as CVE-2026-111361).
func TestPullMixedUp(t *testing.T) {
	s, o, one := memoryStore(t), newOrigin(), newSample(t, "one")
	first := o.put(t, "one", one, gz, "+gzip")
	two := newSample(t, "two")
	second := o.put(t, "two", two, gz, "+gzip")
	pull(t, s, o, "app:one")
	pull(t, s, o, "app:two")
	mixed := one
	mixed.config.Run.Labels = map[string]string{"mark": "mixed"}
	o.put(t, "mixed", mixed, gz, "+gzip")
	man := string(o.manifests["mixed"])
	o.putManifest("mixed", strings.Replace(man, string(o.layers(t, first)[0]), string(o.layers(t, second)[0]), 1), typeManifest)
	if _, err := tryPull(t.Context(), s, o, "app:mixed"); !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), "the configuration says") {
		t.Errorf("want it refused, got %v", err)
	}
}

// A pull that was cut off goes on at the byte where it ended, also when the registry knows no ranges, or when what was
// kept has been damaged since.
func TestPullResumed(t *testing.T) {
	broken := errors.New("connection lost")
	for _, c := range []string{"ranges", "no ranges", "damaged", "too long"} {
		t.Run(c, func(t *testing.T) {
			s, o, smp := memoryStore(t), newOrigin(), bigSample(t, "one")
			mine := o.put(t, "latest", smp, plain, "")
			big := o.layers(t, mine)[2]
			half := int64(len(o.blobs[big]) / 2)
			o.read = func(d ref.Digest, _ []byte, at int64) (int, error) {
				if d == big && at >= half {
					return 0, broken
				}
				return 0, nil
			}
			if _, err := tryPull(t.Context(), s, o, "app", PullOptions{Downloads: 1}); !errors.Is(err, broken) {
				t.Fatalf("got %v", err)
			}
			if list, _ := s.List(t.Context()); len(list) != 0 {
				t.Fatalf("got %+v", list)
			}
			if _, err := s.Sweep(t.Context(), nil); err != nil { // keeps what may be gone on with
				t.Fatal(err)
			}
			o.read, o.noRanges = nil, c == "no ranges"
			kept := filepath.Join(s.root, "ingest", big.Hex(), "data")
			switch c {
			case "damaged": // by a power cut
				if err := os.WriteFile(kept, make([]byte, half), 0o600); err != nil {
					t.Fatal(err)
				}
			case "too long":
				if err := os.WriteFile(kept, make([]byte, len(o.blobs[big])+1), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := maps.Clone(o.served)
			pull(t, s, o, "app")
			checkBig(t, s, resolve(t, s, "app"), "one")
			for _, d := range o.layers(t, mine) {
				again, size := o.served[d]-got[d], int64(len(o.blobs[d]))
				want := size - got[d]
				if d == big && c == "no ranges" {
					want = size
				}
				if d == big && c == "damaged" {
					want = size - half + size // the rest, and then all of it
				}
				if d == big && c == "too long" {
					want = size
				}
				if again != want {
					t.Errorf("%s: want %d bytes of %d asked for again, got %d", d, want, size, again)
				}
			}
			if len(o.rejected) > 0 {
				t.Errorf("the registry is blamed for %v", o.rejected)
			}
			checkLayout(t, s)
			noIngests(t, s)
		})
	}
}

// Twenty at once, of one image and of images that share layers, fetch each blob once.
func TestPullTogether(t *testing.T) {
	s, o := memoryStore(t), newOrigin()
	var tags []string
	base := bigSample(t, "base")
	for i := range 4 {
		smp := base
		smp.config.Run.Labels = map[string]string{"mark": fmt.Sprint(i)}
		smp.layers = append(slices.Clone(base.layers), tarOf(t, fmt.Sprintf("only%d", i), "x"))
		smp.config.RootFS.DiffIDs = append(slices.Clone(base.config.RootFS.DiffIDs), sumOf(smp.layers[len(smp.layers)-1]))
		tags = append(tags, fmt.Sprint("app:", i))
		o.put(t, fmt.Sprint(i), smp, gz, "+gzip")
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := tryPull(t.Context(), Open(s.root), o, tags[i%len(tags)]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for d, n := range o.served {
		// Configurations are small and fetched by each, unless another one was quicker.
		if size := int64(len(o.blobs[d])); n != size && bytes.HasPrefix(o.blobs[d], []byte{0x1f, 0x8b}) {
			t.Errorf("%s: %d of %d bytes were served", d, n, size)
		}
	}
	for _, tag := range tags {
		if img := resolve(t, s, tag); len(img.Layers) != 4 {
			t.Errorf("%s: %+v", tag, img)
		}
	}
	checkLayout(t, s)
	noIngests(t, s)
}

// TestPullWrongSize: a manifest that lies about the size of a blob which another pull has just brought does not touch it.
func TestPullWrongSize(t *testing.T) {
	for _, wrong := range []int64{-1, 1000} {
		t.Run(fmt.Sprint(wrong), func(t *testing.T) {
			s, o := memoryStore(t), newOrigin()
			mine := o.put(t, "latest", bigSample(t, "one"), gz, "+gzip")
			m, _, err := parseTarget(o.manifests["latest"], typeManifest)
			if err != nil {
				t.Fatal(err)
			}
			m.Layers[0].Size += wrong
			o.putManifest("liar", toJSON(t, m), typeManifest)
			lied := false
			o.read = func(d ref.Digest, _ []byte, _ int64) (int, error) {
				if d == m.Layers[2].Digest && !lied {
					lied = true
					if _, err := tryPull(t.Context(), Open(s.root), o, "app:liar", PullOptions{Downloads: 1}); !errors.Is(err, errdef.ErrInvalid) {
						t.Errorf("want it refused, got %v", err)
					}
				}
				return 0, nil
			}
			pull(t, s, o, "app", PullOptions{Downloads: 1})
			if !lied {
				t.Error("there was no second pull")
			}
			for _, d := range o.layers(t, mine) {
				if data, err := os.ReadFile(s.blobPath(d)); err != nil || sumOf(data) != string(d) {
					t.Errorf("blob %s is damaged: %d bytes, %v", d, len(data), err)
				}
			}
			noIngests(t, s)
		})
	}
}

// TestPullManifestAsLayer: an image of an index that names another one's manifest as a layer is refused and not waited for.
func TestPullManifestAsLayer(t *testing.T) {
	s, o := memoryStore(t), newOrigin()
	one := o.put(t, "one", newSample(t, "one"), gz, "+gzip")
	other := o.put(t, "other", forOther(t, "linux", "s390x"), gz, "+gzip")
	m, _, err := parseTarget(o.manifests["other"], typeManifest)
	if err != nil {
		t.Fatal(err)
	}
	m.Layers[0].Digest, m.Layers[0].Size = one.Digest, one.Size
	man := toJSON(t, m)
	other.Digest, other.Size = o.putManifest("other", man, typeManifest), int64(len(man))
	o.putIndex(t, "latest", one, other)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := tryPull(ctx, s, o, "app", PullOptions{AllPlatforms: true}); err == nil || ctx.Err() != nil {
		t.Errorf("want it refused at once, got %v", err)
	}
}

// Cancelled, a pull ends at once, wherever it is.
func TestPullCancelled(t *testing.T) {
	s, o := memoryStore(t), newOrigin()
	mine := o.put(t, "latest", bigSample(t, "one"), gz, "+gzip")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the person went away")
	o.read = func(d ref.Digest, _ []byte, at int64) (int, error) {
		if d == o.layers(t, mine)[2] && at > 0 {
			cancel(why)
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}
		return 0, nil
	}
	if _, err := tryPull(ctx, s, o, "app"); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// An ingest that nobody comes back for goes with a sweep.
func TestSweepIngests(t *testing.T) {
	s, o := memoryStore(t), newOrigin()
	mine := o.put(t, "latest", newSample(t, "one"), gz, "+gzip")
	d := o.layers(t, mine)[1]
	o.read = func(got ref.Digest, _ []byte, at int64) (int, error) {
		if got == d && at > 0 {
			return 0, errors.New("lost")
		}
		return 0, nil
	}
	if _, err := tryPull(t.Context(), s, o, "app"); err == nil {
		t.Fatal("want it cut off")
	}
	data := filepath.Join(s.root, "ingest", d.Hex(), "data")
	old := time.Now().Add(-ingestGrace - time.Minute)
	if err := os.Chtimes(data, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// The first variant of an architecture is the same written or left out, in what is wanted and in what is there.
func TestVariants(t *testing.T) {
	for _, c := range []struct {
		want, have string
		ok         bool
	}{
		{"linux/arm64", "linux/arm64/v8", true}, {"linux/arm64/v8", "linux/arm64", true}, {"aarch64", "linux/arm64/v8", true},
		{"linux/arm64/v9", "linux/arm64/v8", false}, {"linux/arm64/v9", "linux/arm64", false},
		{"linux/amd64/v1", "linux/amd64", true}, {"linux/amd64/v2", "linux/amd64", false},
		{"linux/arm/v7", "linux/arm/v7", true}, {"linux/arm/v8", "linux/arm", false}, {"linux/arm", "linux/arm/v6", true},
		{"linux", "linux/" + runtime.GOARCH, true}, {"windows/amd64", "linux/amd64", false},
	} {
		want, have := must(parsePlatform(c.want)), must(parsePlatform(c.have))
		x := index{Manifests: []descriptor{{Digest: "other", Platform: &platform{"linux", "s390x", ""}}, {Digest: "this", Platform: &have}}}
		if got := have.suits(want); got != c.ok {
			t.Errorf("%s for %s: %v", c.have, c.want, got)
		}
		if got := x.choose(want) != nil; got != c.ok {
			t.Errorf("of an index, %s for %s: %v", c.have, c.want, got)
		}
	}
}
