package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// newStore returns a fresh store.
func newStore(t testing.TB) *Store {
	t.Helper()
	return newStoreIn(t, "")
}

// memoryStore is for tests that bring in hundreds of images: each waits for the disk.
func memoryStore(t testing.TB) *Store {
	t.Helper()
	if os.Geteuid() != 0 || unix.Access("/dev/shm", unix.W_OK) != nil {
		return newStore(t)
	}
	return newStoreIn(t, "/dev/shm")
}

func newStoreIn(t testing.TB, dir string) *Store {
	t.Helper()
	top, err := os.MkdirTemp(dir, "hull-image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := state.Remove(top); err != nil {
			t.Error(err)
		}
	})
	root := top + "/root"
	if err := state.Open(root); err != nil {
		t.Fatal(err)
	}
	return Open(root)
}

// tarOf makes a tar; "name/" is a directory, "name->to" a symbolic link, other values are contents.
func tarOf(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; i < len(pairs); i += 2 {
		h := &tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1])), Typeflag: tar.TypeReg, ModTime: time.Unix(1_700_000_000, 0)}
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if name, to, ok := strings.Cut(h.Name, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = name, to, tar.TypeSymlink
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, pairs[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gz(data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	w.Close()
	return buf.Bytes()
}

func zst(data []byte) []byte {
	var buf bytes.Buffer
	w, _ := zstd.NewWriter(&buf)
	w.Write(data)
	w.Close()
	return buf.Bytes()
}

func plain(data []byte) []byte { return data }

func toJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sample is an image to be archived.
type sample struct {
	layers [][]byte // uncompressed tars
	config Config
}

func newSample(t testing.TB, mark string) sample {
	s := sample{layers: [][]byte{
		tarOf(t, "./", "", "bin/", "", "bin/sh", "#!shell "+mark, "etc/", "", "etc/old", "x", "link->bin/sh", ""),
		tarOf(t, "etc/", "", "etc/.wh.old", "", "etc/new", mark),
	}}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.config = Config{
		Created: &created, OS: "linux", Architecture: runtime.GOARCH,
		Run:     Run{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}, Labels: map[string]string{"mark": mark}, StopSignal: "SIGTERM"},
		RootFS:  RootFS{Type: "layers"},
		History: []History{{CreatedBy: "ADD"}, {CreatedBy: "CMD", EmptyLayer: true}, {CreatedBy: "RUN"}},
	}
	for _, l := range s.layers {
		s.config.RootFS.DiffIDs = append(s.config.RootFS.DiffIDs, sumOf(l))
	}
	return s
}

func (s sample) id(t testing.TB) string { return sumOf([]byte(toJSON(t, s.config))) }

// docker is what docker save wrote from 1.10 to 24; the second name of a layer is a symbolic link.
func (s sample) docker(t testing.TB, tags ...string) []byte {
	config := toJSON(t, s.config)
	name := strings.TrimPrefix(sumOf([]byte(config)), "sha256:") + ".json"
	var files []string
	var layers []string
	seen := map[string]string{}
	for i, l := range s.layers {
		dir := fmt.Sprintf("layer%d", i)
		path := dir + "/layer.tar"
		layers = append(layers, path)
		files = append(files, dir+"/", "", dir+"/VERSION", "1.0", dir+"/json", "{}")
		if first, ok := seen[sumOf(l)]; ok {
			files = append(files, path+"->../"+first, "")
			continue
		}
		seen[sumOf(l)] = path
		files = append(files, path, string(l))
	}
	files = append(files, name, config, "repositories", "{}",
		"manifest.json", toJSON(t, []any{map[string]any{"Config": name, "RepoTags": tags, "Layers": layers}}))
	return tarOf(t, files...)
}

// blobs returns the manifest's bytes and the files of a layout for it.
func (s sample) blobs(t testing.TB, pack func([]byte) []byte, suffix string) (man string, files []string) {
	config := toJSON(t, s.config)
	m := manifest{SchemaVersion: 2, MediaType: typeManifest, Config: descriptor{MediaType: typeConfig, Digest: ref.Digest(sumOf([]byte(config))), Size: int64(len(config))}}
	add := func(data string) {
		name := "blobs/sha256/" + strings.TrimPrefix(sumOf([]byte(data)), "sha256:")
		if !slices.Contains(files, name) {
			files = append(files, name, data)
		}
	}
	add(config)
	for _, l := range s.layers {
		data := string(pack(l))
		add(data)
		m.Layers = append(m.Layers, descriptor{MediaType: typeLayer + suffix, Digest: ref.Digest(sumOf([]byte(data))), Size: int64(len(data))})
	}
	man = toJSON(t, m)
	add(man)
	return man, files
}

// layout is an OCI archive.
func (s sample) layout(t testing.TB, pack func([]byte) []byte, suffix string, annotations ...map[string]string) []byte {
	man, files := s.blobs(t, pack, suffix)
	x := index{SchemaVersion: 2}
	if len(annotations) == 0 {
		annotations = append(annotations, nil)
	}
	for _, a := range annotations {
		x.Manifests = append(x.Manifests, descriptor{MediaType: typeManifest, Digest: ref.Digest(sumOf([]byte(man))), Size: int64(len(man)), Annotations: a})
	}
	files = append([]string{"blobs/", "", "blobs/sha256/", "", "oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", toJSON(t, x)}, files...)
	return tarOf(t, files...)
}

// stream is a reader that is nothing else: no Seek, no ReadAt, small reads.
type stream struct{ r io.Reader }

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1000)]) }

func load(t testing.TB, s *Store, data []byte) []Loaded {
	t.Helper()
	loaded, err := s.Load(t.Context(), &stream{bytes.NewReader(data)}, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func resolve(t testing.TB, s *Store, name string) *Image {
	t.Helper()
	img, err := s.Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// checkImage makes sure that an image is all there.
func checkImage(t testing.TB, s *Store, img *Image, want sample) {
	t.Helper()
	if img.ID != want.id(t) || toJSON(t, img.Config) != toJSON(t, want.config) || len(img.Layers) != 2 {
		t.Fatalf("want %s, got %s %s with %d layers", want.id(t), img.ID, toJSON(t, img.Config), len(img.Layers))
	}
	mark := want.config.Run.Labels["mark"]
	for path, content := range map[string]string{img.Layers[0].Dir + "/bin/sh": "#!shell " + mark, img.Layers[1].Dir + "/etc/new": mark} {
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("%s: got %q, %v", path, data, err)
		}
	}
	st, err := os.Lstat(img.Layers[1].Dir + "/etc/old")
	if err != nil || st.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("want a whiteout, got %v, %v", st, err)
	}
	if want := int64(len("#!shell "+mark) + 1 + len(mark)); img.Size != want {
		t.Errorf("want a size of %d, got %d", want, img.Size)
	}
	checkLayout(t, s)
}

// checkLayout verifies that the store is an OCI image layout all of whose blobs are right, and that nothing but
// objects is in it.
func checkLayout(t testing.TB, s *Store) {
	t.Helper()
	if data, err := os.ReadFile(s.root + "/oci-layout"); err != nil || string(data) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s, %v", data, err)
	}
	data, err := os.ReadFile(s.root + "/index.json")
	if err != nil {
		t.Fatal(err)
	}
	var x index
	if err := json.Unmarshal(data, &x); err != nil || x.SchemaVersion != 2 {
		t.Errorf("index.json: %v", err)
	}
	for _, d := range x.Manifests {
		data, err := os.ReadFile(s.blobPath(d.Digest))
		if err != nil || int64(len(data)) != d.Size || sumOf(data) != string(d.Digest) {
			t.Errorf("%s: %v", d.Digest, err)
			continue
		}
		if m, x, err := parseTarget(data, d.MediaType); err != nil {
			t.Errorf("%s: %v", d.Digest, err)
		} else if x == nil {
			for _, b := range append(m.Layers, m.Config) {
				if data, err := os.ReadFile(s.blobPath(b.Digest)); err != nil || int64(len(data)) != b.Size || sumOf(data) != string(b.Digest) {
					t.Errorf("%s: %v", b.Digest, err)
				}
			}
		}
	}
	filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), state.TempPrefix) {
			t.Errorf("left behind: %s", path)
		}
		if d.Name() == "fs" {
			return fs.SkipDir
		}
		return err
	})
}

func TestLoad(t *testing.T) {
	smp := newSample(t, "one")
	name := func(key, value string) map[string]string { return map[string]string{key: value} }
	both := append(smp.layout(t, plain, "", name(annotationContainerd, "docker.io/library/app:1"))[:0:0], smp.docker25(t, "app:1")...)
	for _, c := range []struct {
		name string
		data []byte
		ref  string
	}{
		{"docker", smp.docker(t, "app:1"), "app:1"},
		{"docker gzip", gz(smp.docker(t, "app:1")), "app:1"},
		{"docker zstd", zst(smp.docker(t, "app:1")), "app:1"},
		{"docker without a name", smp.docker(t), ""},
		{"docker 25", both, "app:1"},
		{"layout", smp.layout(t, plain, "", name(annotationContainerd, "docker.io/library/app:1")), "app:1"},
		{"layout of gzip", smp.layout(t, gz, "+gzip", name(annotationRef, "reg.example:5000/app:2")), "reg.example:5000/app:2"},
		{"layout of zstd in gzip", gz(smp.layout(t, zst, "+zstd", name(annotationRef, "me/app"))), ""},
		{"layout with a tag only", smp.layout(t, gz, "+gzip", name(annotationRef, "latest")), ""},
		{"layout without a name", smp.layout(t, gz, "+gzip"), ""},
		{"layout with a wrong suffix", smp.layout(t, gz, ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			loaded := load(t, s, c.data)
			if c.name == "layout of zstd in gzip" {
				c.ref = "me/app:latest"
			}
			if len(loaded) != 1 || loaded[0].ID != smp.id(t) || loaded[0].Ref != c.ref {
				t.Fatalf("got %+v", loaded)
			}
			checkImage(t, s, resolve(t, s, smp.id(t)), smp)
			if c.ref != "" {
				checkImage(t, s, resolve(t, s, c.ref), smp)
			}
			// Again, which finds everything there.
			load(t, s, c.data)
			checkImage(t, s, resolve(t, s, smp.id(t)), smp)
			if list, err := s.List(t.Context()); err != nil || len(list) != 1 {
				t.Errorf("got %+v, %v", list, err)
			}
		})
	}
}

// docker25 is what docker save writes since 25: both forms in one.
func (s sample) docker25(t testing.TB, tag string) []byte {
	man, files := s.blobs(t, plain, "")
	blob := func(data string) string {
		return "blobs/sha256/" + strings.TrimPrefix(sumOf([]byte(data)), "sha256:")
	}
	var layers []string
	for _, l := range s.layers {
		layers = append(layers, blob(string(l)))
	}
	r, _ := ref.Parse(tag)
	x := index{SchemaVersion: 2, Manifests: []descriptor{{MediaType: typeManifest, Digest: ref.Digest(sumOf([]byte(man))), Size: int64(len(man)),
		Annotations: map[string]string{annotationContainerd: r.String(), annotationRef: r.Tag}}}}
	files = append(files, "index.json", toJSON(t, x), "manifest.json",
		toJSON(t, []any{map[string]any{"Config": blob(toJSON(t, s.config)), "RepoTags": []string{tag}, "Layers": layers}}),
		"oci-layout", `{"imageLayoutVersion": "1.0.0"}`, "repositories", "{}")
	return tarOf(t, files...)
}

// Layers that are equal, in one image and in two of one archive.
func TestLoadSharedLayers(t *testing.T) {
	s := newStore(t)
	smp := newSample(t, "x")
	smp.layers = append(smp.layers, smp.layers[1], smp.layers[1])
	smp.config.RootFS.DiffIDs = append(smp.config.RootFS.DiffIDs, sumOf(smp.layers[1]), sumOf(smp.layers[1]))
	load(t, s, smp.docker(t, "app"))
	if img := resolve(t, s, "app"); len(img.Layers) != 4 || img.Layers[1].Dir == img.Layers[2].Dir {
		t.Errorf("got %+v", img.Layers)
	}
	checkLayout(t, s)
}

// An index with several platforms and an attestation: ours is taken, the index is what the name means.
func TestLoadIndex(t *testing.T) {
	mine, other := newSample(t, "mine"), newSample(t, "other")
	other.config.Architecture = "s390x"
	m1, f1 := mine.blobs(t, gz, "+gzip")
	m2, f2 := other.blobs(t, gz, "+gzip")
	desc := func(data, mt string, p *platform, a map[string]string) descriptor {
		return descriptor{MediaType: mt, Digest: ref.Digest(sumOf([]byte(data))), Size: int64(len(data)), Platform: p, Annotations: a}
	}
	inner := toJSON(t, index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{
		desc(m2, typeManifest, &platform{OS: "linux", Architecture: "s390x"}, nil),
		desc("gone", typeManifest, &platform{OS: "linux", Architecture: "ppc64le"}, nil),
		desc("attestation", typeManifest, &platform{OS: "unknown", Architecture: "unknown"}, map[string]string{"vnd.docker.reference.type": "attestation-manifest"}),
		desc(m1, typeManifest, &platform{OS: "linux", Architecture: runtime.GOARCH}, nil),
	}})
	outer := toJSON(t, index{SchemaVersion: 2, Manifests: []descriptor{desc(inner, typeIndex, nil, map[string]string{annotationContainerd: "docker.io/me/app:1"})}})
	innerName := "blobs/sha256/" + strings.TrimPrefix(sumOf([]byte(inner)), "sha256:")
	all := append(append(f1, dropKnown(f1, f2)...), innerName, inner, "index.json", outer, "oci-layout", "{}")
	s := newStore(t)
	load(t, s, tarOf(t, all...))
	img := resolve(t, s, "me/app:1")
	checkImage(t, s, img, mine)
	if img.Target != sumOf([]byte(inner)) || img.Manifest != sumOf([]byte(m1)) {
		t.Errorf("got target %s, manifest %s", img.Target, img.Manifest)
	}
	for _, name := range []string{"me/app@" + img.Target, "me/app@" + img.Manifest, "me/app:1@" + img.Manifest} {
		if got := resolve(t, s, name); got.ID != img.ID {
			t.Errorf("%s: got %s", name, got.ID)
		}
	}
	if _, err := s.Resolve(t.Context(), "other/app@"+img.Manifest); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("want a digest of another repository not found, got %v", err)
	}
	// Only another platform is in the archive: it was saved on purpose, unless a platform is asked for.
	only := append(slices.Clone(f2), innerName, inner, "index.json", outer, "oci-layout", "{}")
	s = newStore(t)
	load(t, s, tarOf(t, only...))
	checkImage(t, s, resolve(t, s, "me/app:1"), other)
	if _, err := newStore(t).Load(t.Context(), bytes.NewReader(tarOf(t, only...)), LoadOptions{Platforms: []string{"linux/riscv64"}}); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	s = newStore(t)
	if _, err := s.Load(t.Context(), bytes.NewReader(tarOf(t, all...)), LoadOptions{Platforms: []string{"linux/s390x"}}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, s, resolve(t, s, "me/app:1"), other)
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	checkImage(t, s, resolve(t, s, "me/app:1"), other)
}

func dropKnown(known, files []string) (out []string) {
	for i := 0; i < len(files); i += 2 {
		if !slices.Contains(known, files[i]) {
			out = append(out, files[i], files[i+1])
		}
	}
	return out
}

// A42-A44, A49: archives that lie. Nothing of them stays.
func TestLoadRefuses(t *testing.T) {
	smp := newSample(t, "bad")
	replace := func(data []byte, old, new string) []byte {
		if !bytes.Contains(data, []byte(old)) || len(old) != len(new) {
			t.Fatalf("%q is not in the archive", old)
		}
		return bytes.ReplaceAll(data, []byte(old), []byte(new))
	}
	files := func(manifest string, more ...string) []byte {
		return tarOf(t, append([]string{"manifest.json", manifest}, more...)...)
	}
	config := toJSON(t, smp.config)
	wrongDiff := newSample(t, "bad")
	wrongDiff.config.RootFS.DiffIDs[1] = sumOf(nil)
	fewer := newSample(t, "bad")
	fewer.layers = fewer.layers[:1]
	evil := newSample(t, "bad")
	evil.layers[1] = tarOf(t, "../../x", "escaped")
	evil.config.RootFS.DiffIDs[1] = sumOf(evil.layers[1])
	many := newSample(t, "bad")
	for len(many.layers) <= maxLayers {
		many.layers = append(many.layers, many.layers[1])
		many.config.RootFS.DiffIDs = append(many.config.RootFS.DiffIDs, many.config.RootFS.DiffIDs[1])
	}
	oci := func(index string, more ...string) []byte {
		return tarOf(t, append([]string{"oci-layout", "{}", "index.json", index}, more...)...)
	}
	for name, data := range map[string][]byte{
		"empty":                       nil,
		"no tar":                      []byte(strings.Repeat("no tar ", 200)),
		"root file system":            tarOf(t, "bin/", "", "bin/sh", "x"),
		"xz":                          []byte("\xfd7zXZ\x00\x00\x00\x00\x00\x00"),
		"cut":                         smp.docker(t, "app")[:2000],
		"flipped bit in a layer":      replace(smp.layout(t, plain, ""), "#!shell bad", "#!shell bat"),
		"flipped bit in docker layer": replace(smp.docker(t, "app"), "#!shell bad", "#!shell bat"),
		"flipped bit in the config":   replace(smp.docker(t, "app"), "PATH=/bin", "PATH=/bix"),
		"wrong diff id":               wrongDiff.docker(t, "app"),
		"wrong diff id, gzip":         wrongDiff.layout(t, gz, "+gzip"),
		"layers and diff ids differ":  fewer.docker(t, "app"),
		"evil layer":                  evil.docker(t, "app"),
		"501 layers":                  many.docker(t, "app"),
		"bad name":                    smp.docker(t, "../../x"),
		"bad tag":                     smp.docker(t, "app:../x"),
		"linked manifest":             tarOf(t, "manifest.json->/etc/passwd", "", "x", "y"),
		"config outside":              files(`[{"Config":"../../etc/passwd","Layers":[]}]`),
		"config is a link":            files(`[{"Config":"c.json","Layers":[]}]`, "c.json->/etc/passwd", ""),
		"layer is a link outside":     files(`[{"Config":"c.json","Layers":["a/layer.tar","a/layer.tar"]}]`, "c.json", config, "a/layer.tar->/etc/passwd", ""),
		"layer is a link to itself":   files(`[{"Config":"c.json","Layers":["a","a"]}]`, "c.json", config, "a->a", ""),
		"manifest twice":              files("[]", "./manifest.json", "[]"),
		"manifest of null":            files("null"),
		"manifest of nulls":           files("[null]"),
		"manifest no list":            files(`{"Config":1}`),
		"config of null":              files(`[{"Config":"c.json"}]`, "c.json", "null"),
		"config no JSON":              files(`[{"Config":"c.json"}]`, "c.json", "\x1f\x8b"),
		"diff id is a path":           files(`[{"Config":"c.json"}]`, "c.json", `{"rootfs":{"type":"layers","diff_ids":["sha256:../../x"]}}`),
		"index of null":               oci("null"),
		"index entry of null":         oci(`{"manifests":[null]}`),
		"index with a path":           oci(`{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}`),
		"index of nothing there":      oci(`{"manifests":[{"digest":"` + sumOf(nil) + `","size":1}]}`),
		"negative size":               oci(`{"manifests":[{"digest":"` + sumOf(nil) + `","size":-1}]}`),
		"blob under a wrong name":     oci(`{"manifests":[]}`, "blobs/sha256/"+strings.TrimPrefix(sumOf([]byte("a")), "sha256:"), "b"),
		"manifest and index in one": oci(`{"manifests":[{"digest":"`+sumOf([]byte(`{"schemaVersion":2,"layers":[],"manifests":[]}`))+`","size":1}]}`,
			"blobs/sha256/"+strings.TrimPrefix(sumOf([]byte(`{"schemaVersion":2,"layers":[],"manifests":[]}`)), "sha256:"), `{"schemaVersion":2,"layers":[],"manifests":[]}`),
	} {
		t.Run(name, func(t *testing.T) {
			s := memoryStore(t)
			_, err := s.Load(t.Context(), bytes.NewReader(data), LoadOptions{})
			if err == nil || !errors.Is(err, errdef.ErrInvalid) && !errors.Is(err, errdef.ErrUnavailable) && !errors.Is(err, errdef.ErrCorrupt) && !errors.Is(err, errdef.ErrNotFound) {
				t.Errorf("want it refused, got %v", err)
			}
			wantEmpty(t, s)
		})
	}
}

// wantEmpty makes sure that a store has neither images nor garbage.
func wantEmpty(t *testing.T, s *Store) {
	t.Helper()
	filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(s.root, path); err == nil && !d.IsDir() && rel != "version" && rel != "oci-layout" && rel != "index.json" && !strings.HasPrefix(rel, "refs.log/") {
			t.Errorf("left: %s", rel)
		}
		return nil
	})
	if layers, _ := os.ReadDir(s.layersDir()); len(layers) > 0 {
		t.Errorf("left layers: %v", layers)
	}
}

// TestLoadOtherBlobs: what is compressed and no layer, as artifacts beside an image are, is read whole and let be.
func TestLoadOtherBlobs(t *testing.T) {
	s, smp := newStore(t), newSample(t, "one")
	noise := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	other := string(gz(noise))
	man, files := smp.blobs(t, gz, "+gzip")
	top := index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{{
		MediaType: typeManifest, Digest: ref.Digest(sumOf([]byte(man))), Size: int64(len(man)), Annotations: map[string]string{annotationContainerd: "app:latest"},
	}}}
	files = append([]string{"blobs/sha256/" + strings.TrimPrefix(sumOf([]byte(other)), "sha256:"), other}, files...)
	load(t, s, tarOf(t, append(files, nameLayout, `{"imageLayoutVersion":"1.0.0"}`, nameIndex, toJSON(t, top))...))
	checkImage(t, s, resolve(t, s, "app"), smp)
}

func TestLoadProgress(t *testing.T) {
	s := newStore(t)
	smp := newSample(t, "x")
	var last Progress
	_, err := s.Load(t.Context(), bytes.NewReader(smp.docker(t, "app")), LoadOptions{Progress: func(p Progress) { last = p }})
	if err != nil || len(last.ID) != 12 || last.Current != last.Total || last.Total == 0 {
		t.Errorf("got %+v, %v", last, err)
	}
}

func TestLoadCancelled(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	data := newSample(t, "x").docker(t, "app")
	r := io.MultiReader(bytes.NewReader(data[:1500]), readerFunc(func(p []byte) (int, error) {
		cancel(cause)
		return copy(p, data[1500:]), nil
	}))
	if _, err := s.Load(ctx, r, LoadOptions{}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, s)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestResolve(t *testing.T) {
	s := newStore(t)
	if _, err := s.Resolve(t.Context(), "busybox"); !errors.Is(err, errdef.ErrNotFound) || err.Error() != "No such image: busybox:latest" {
		t.Errorf("got %v", err)
	}
	one, two := newSample(t, "one"), newSample(t, "two")
	load(t, s, one.docker(t, "app:1", "b:latest"))
	load(t, s, two.docker(t, "reg:5000/app:1"))
	id := one.id(t)
	for _, name := range []string{"app:1", "docker.io/library/app:1", "b", id, id[7:], id[7:19], id[:19]} {
		if got := resolve(t, s, name); got.ID != id {
			t.Errorf("%s: got %s", name, got.ID)
		}
	}
	if img := resolve(t, s, "app:1"); img.Ref != "docker.io/library/app:1" {
		t.Errorf("got %s", img.Ref)
	}
	for name, want := range map[string]error{
		"app": errdef.ErrNotFound, "app:2": errdef.ErrNotFound, "reg:5000/b": errdef.ErrNotFound, sumOf(nil): errdef.ErrNotFound, "0000000": errdef.ErrNotFound,
		"sha256:0": errdef.ErrNotFound, "App": errdef.ErrInvalid, "": errdef.ErrInvalid, "../x": errdef.ErrInvalid, "app:1@{x}": errdef.ErrInvalid,
		"app@" + sumOf(nil): errdef.ErrNotFound, "app:1@{5}": errdef.ErrNotFound, "nosuch@{0}": errdef.ErrNotFound, "app:1/x": errdef.ErrNotFound,
	} {
		if _, err := s.Resolve(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%q: want %v, got %v", name, want, err)
		}
	}
	// An id that begins as one's does makes the short form ambiguous.
	twin := []byte(id[7:])
	twin[63] ^= 1
	os.WriteFile(filepath.Join(s.imagesDir(), string(twin)), nil, 0o600)
	if _, err := s.Resolve(t.Context(), id[7:19]); !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("got %v", err)
	}
}

// Repository and tag names cannot be taken for each other on disk.
func TestTagsAndRepositoriesApart(t *testing.T) {
	s := newStore(t)
	load(t, s, newSample(t, "one").docker(t, "a:b", "a/b:latest", "a/b/c:b"))
	for _, n := range []string{"a:b", "a/b", "a/b/c:b"} {
		resolve(t, s, n)
	}
	if _, err := s.Resolve(t.Context(), "a/b:c"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestReflog(t *testing.T) {
	s := newStore(t)
	var ids []string
	for _, mark := range []string{"one", "two", "three"} {
		smp := newSample(t, mark)
		if _, err := s.Load(t.Context(), bytes.NewReader(smp.docker(t, "app")), LoadOptions{By: "load\n" + mark}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, smp.id(t))
	}
	for name, want := range map[string]string{"app@{0}": ids[2], "app@{1}": ids[1], "app:latest@{2}": ids[0]} {
		if got := resolve(t, s, name); got.ID != want {
			t.Errorf("%s: want %s, got %s", name, want, got.ID)
		}
	}
	if _, err := s.Resolve(t.Context(), "app@{yesterday}"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	log, err := s.Log("app")
	if err != nil || len(log) != 3 || log[0].Old != "" || log[1].Old != log[0].New || log[2].By != "load three" {
		t.Errorf("got %+v, %v", log, err)
	}
	// The images that lost their name are listed as dangling, and go back to it.
	list, _ := s.List(t.Context())
	dangling := 0
	for _, sum := range list {
		if len(sum.RepoTags) == 0 {
			dangling++
		}
	}
	if len(list) != 3 || dangling != 2 {
		t.Errorf("got %+v", list)
	}
	if err := s.Tag(t.Context(), "app@{2}", "app", "rollback"); err != nil {
		t.Fatal(err)
	}
	if got := resolve(t, s, "app"); got.ID != ids[0] {
		t.Errorf("got %s", got.ID)
	}
	if got := resolve(t, s, "app@{1}"); got.ID != ids[2] {
		t.Errorf("got %s", got.ID)
	}
	r, _ := ref.Parse("app:latest")
	entries, _ := s.readLog(r)
	if d, err := pick(entries, ref.Selector{Time: entries[1].Time}, time.Now()); err != nil || string(d) != entries[1].New {
		t.Errorf("got %s, %v", d, err)
	}
	// A writer killed within its line, and one killed before it changed the reference.
	f, _ := os.OpenFile(s.logPath(r), os.O_APPEND|os.O_WRONLY, 0)
	fmt.Fprintf(f, "%s %s %s aborted\n2026-11-", time.Now().UTC().Format(time.RFC3339Nano), entries[3].New, sumOf(nil))
	f.Close()
	if got := resolve(t, s, "app@{1}"); got.ID != ids[2] {
		t.Errorf("after a crash: got %s", got.ID)
	}
	if err := s.Tag(t.Context(), ids[1], "app", ""); err != nil {
		t.Fatal(err)
	}
	if got := resolve(t, s, "app@{1}"); got.ID != ids[0] {
		t.Errorf("after a crash: got %s", got.ID)
	}
	for _, e := range mustLog(t, s, "app") {
		if e.By == "aborted" {
			t.Error("what never took effect is in the log")
		}
	}
}

func mustLog(t *testing.T, s *Store, name string) []LogEntry {
	t.Helper()
	log, err := s.Log(name)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestHistory(t *testing.T) {
	s := newStore(t)
	load(t, s, newSample(t, "x").docker(t, "app:1", "app:2"))
	lines, err := s.History(t.Context(), "app:1", "")
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	if lines[0].CreatedBy != "RUN" || lines[0].Size != 1 || lines[1].Size != 0 || lines[2].Size != 10 || lines[1].ID != "<missing>" || strings.Join(lines[0].Tags, " ") != "app:1 app:2" {
		t.Errorf("got %+v", lines)
	}
}

func TestImport(t *testing.T) {
	root := tarOf(t, "./", "", "bin/", "", "bin/sh", "x")
	for name, pack := range map[string]func([]byte) []byte{"plain": plain, "gzip": gz, "zstd": zst} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			id, err := s.Import(t.Context(), &stream{bytes.NewReader(pack(root))}, ImportOptions{
				Ref: "mine", Message: "hello", Changes: []string{`CMD ["/bin/sh"]`, `env A="b c" D=e`, "EXPOSE 80", "WORKDIR /srv", "USER 1:1"},
			})
			if err != nil {
				t.Fatal(err)
			}
			img := resolve(t, s, "mine:latest")
			if img.ID != id || img.Layers[0].DiffID != sumOf(root) || img.Size != 1 {
				t.Errorf("got %+v", img)
			}
			c := img.Config
			if toJSON(t, c.Run) != `{"User":"1:1","ExposedPorts":{"80/tcp":{}},"Env":["A=b c","D=e"],"Cmd":["/bin/sh"],"WorkingDir":"/srv"}` || c.History[0].Comment != "hello" || c.Architecture != runtime.GOARCH {
				t.Errorf("got %s", toJSON(t, c))
			}
			if data, err := os.ReadFile(img.Layers[0].Dir + "/bin/sh"); err != nil || string(data) != "x" {
				t.Errorf("got %q, %v", data, err)
			}
			checkLayout(t, s)
			if _, err := s.Import(t.Context(), bytes.NewReader(pack(root)), ImportOptions{}); err != nil {
				t.Error(err)
			}
			if list, _ := s.List(t.Context()); len(list) != 2 || list[0].Size != 1 {
				t.Errorf("got %+v", list)
			}
		})
	}
	s := newStore(t)
	for name, c := range map[string]struct {
		data []byte
		opts ImportOptions
	}{
		"empty":     {nil, ImportOptions{}},
		"no tar":    {bytes.Repeat([]byte("x"), 2000), ImportOptions{}},
		"escape":    {tarOf(t, "../x", "y"), ImportOptions{}},
		"cut":       {root[:700], ImportOptions{}},
		"cut gzip":  {gz(root)[:50], ImportOptions{}},
		"name":      {root, ImportOptions{Ref: "A"}},
		"digest":    {root, ImportOptions{Ref: "a@" + sumOf(nil)}},
		"change":    {root, ImportOptions{Changes: []string{"RUN ls"}}},
		"directory": {root, ImportOptions{Changes: []string{"VOLUME /a/../../etc"}}},
		"platform":  {root, ImportOptions{Platform: "a/b/c/d"}},
	} {
		if _, err := s.Import(t.Context(), bytes.NewReader(c.data), c.opts); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	wantEmpty(t, s)
}

// deleted prints what Remove did as the person sees it, with images and layers by what they are.
func deleted(list []Deleted) string {
	var out []string
	for _, d := range list {
		if d.Untagged != "" {
			out = append(out, "-"+d.Untagged)
		} else {
			out = append(out, "x")
		}
	}
	return strings.Join(out, " ")
}

func TestRemove(t *testing.T) {
	const container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	smp := newSample(t, "x")
	id := smp.id(t)
	stopped, run := []User{{container, false}}, []User{{container, true}}
	for _, c := range []struct {
		name  string
		tags  []string
		arg   string
		force bool
		users []User
		want  string // of deleted, or of the error
		left  bool   // the image is still there
	}{
		{"the only tag", []string{"app"}, "app", false, nil, "-app:latest x x x", false},
		{"one tag of two", []string{"app", "app:2"}, "app", false, nil, "-app:latest", true},
		{"by id", []string{"app"}, id, false, nil, "-app:latest x x x", false},
		{"by short id", []string{"app"}, id[7:17], false, nil, "-app:latest x x x", false},
		{"dangling by id", nil, id, false, nil, "x x x", false},
		{"by id, two tags", []string{"app", "app:2"}, id, false, nil, "conflict: unable to delete " + id[7:19] + " (must be forced) - image is referenced in multiple repositories", true},
		{"by id, two tags, force", []string{"app", "b"}, id, true, nil, "-app:latest -b:latest x x x", false},
		{"used", []string{"app"}, "app", false, stopped, `conflict: unable to remove repository reference "app" (must force) - container 0123456789ab is using its referenced image ` + id[7:19], true},
		{"used by id", []string{"app"}, id, false, stopped, "conflict: unable to delete " + id[7:19] + " (must be forced) - image is being used by stopped container 0123456789ab", true},
		{"running by id", []string{"app"}, id, true, run, "conflict: unable to delete " + id[7:19] + " (cannot be forced) - image is being used by running container 0123456789ab", true},
		{"running, force", []string{"app"}, "app", true, run, "-app:latest", true},
		{"used, two tags", []string{"app", "app:2"}, "app", false, stopped, "-app:latest", true},
		{"used, force", []string{"app"}, "app", true, stopped, "-app:latest x x x", false},
		{"unknown", []string{"app"}, "nosuch", false, nil, "No such image: nosuch:latest", true},
		{"a place in the log", []string{"app"}, "app@{0}", false, nil, "app@{0} is a place in a log and cannot be removed; remove the image by its id", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := memoryStore(t)
			load(t, s, smp.docker(t, c.tags...))
			opts := RemoveOptions{Force: c.force, InUse: func(got string) []User {
				if got != id {
					t.Errorf("asked for the users of %s", got)
				}
				return c.users
			}}
			planned, planErr := s.Removal(t.Context(), c.arg, opts)
			list, err := s.Remove(t.Context(), c.arg, opts)
			if fmt.Sprint(planErr) != fmt.Sprint(err) || err == nil && deleted(planned.Deleted) != deleted(list) {
				t.Errorf("the plan was %+v, %v", planned, planErr)
			}
			got := deleted(list)
			if err != nil {
				got = err.Error()
			}
			if strings.HasPrefix(c.want, "-b") {
				slices.Reverse(list)
			}
			if got != c.want {
				t.Errorf("want %s\n got %s", c.want, got)
			}
			_, err = s.Resolve(t.Context(), id)
			if c.left != (err == nil) {
				t.Errorf("left: %v", err)
			}
			if !c.left {
				wantEmpty(t, s)
			}
			checkLayout(t, s)
		})
	}
}

// Layers stay while another image or a container needs them.
func TestRemoveKeepsSharedLayers(t *testing.T) {
	s := newStore(t)
	one, two := newSample(t, "one"), newSample(t, "two")
	two.layers[0], two.config.RootFS.DiffIDs[0] = one.layers[0], one.config.RootFS.DiffIDs[0]
	load(t, s, one.docker(t, "one"))
	load(t, s, two.docker(t, "two"))
	img1, img2 := resolve(t, s, "one"), resolve(t, s, "two")
	if img1.Layers[0].Dir != img2.Layers[0].Dir || img1.Layers[1].Dir == img2.Layers[1].Dir {
		t.Fatal("want the lower layer shared")
	}
	list, err := s.Remove(t.Context(), "one", RemoveOptions{})
	if err != nil || len(list) != 3 || list[2].Deleted != img1.Layers[1].ChainID {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, err := os.Stat(img2.Layers[0].Dir + "/bin/sh"); err != nil {
		t.Error(err)
	}
	kept := func() (map[string]bool, error) { return map[string]bool{img2.Layers[1].ChainID: true}, nil }
	list, err = s.Remove(t.Context(), "two", RemoveOptions{Kept: kept})
	if err != nil || len(list) != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
	for _, l := range img2.Layers {
		if _, err := os.Stat(l.Dir); err != nil {
			t.Error(err)
		}
	}
	swept, err := s.Sweep(t.Context(), nil)
	if err != nil || len(swept) != 2 {
		t.Errorf("got %v, %v", swept, err)
	}
	wantEmpty(t, s)
}

// While somebody holds a lease nothing is swept.
func TestLease(t *testing.T) {
	s := newStore(t)
	load(t, s, newSample(t, "x").docker(t, "app"))
	img := resolve(t, s, "app")
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.Remove(t.Context(), "app", RemoveOptions{}); err != nil || len(list) != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, err := os.Stat(img.Layers[0].Dir); err != nil {
		t.Error(err)
	}
	l.Unlock()
	if swept, err := s.Sweep(t.Context(), nil); err != nil || len(swept) != 2 {
		t.Errorf("got %v, %v", swept, err)
	}
	wantEmpty(t, s)
}

// F17: what the disk did to a blob is noticed when it is used, and the image can be removed and loaded again.
func TestDamaged(t *testing.T) {
	smp := newSample(t, "x")
	for _, what := range []string{"manifest", "config", "config gone", "layer gone", "record"} {
		t.Run(what, func(t *testing.T) {
			s := memoryStore(t)
			load(t, s, smp.docker(t, "app"))
			img := resolve(t, s, "app")
			path := s.blobPath(ref.Digest(img.Manifest))
			switch what {
			case "config", "config gone":
				path = s.blobPath(ref.Digest(img.ID))
			case "record":
				path = s.recordPath(img.ID)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			switch what {
			case "config gone":
				os.Remove(path)
			case "layer gone":
				state.Remove(filepath.Dir(img.Layers[1].Dir))
			case "record":
				os.WriteFile(path, nil, 0o600)
			default:
				os.WriteFile(path, data, 0o600)
			}
			if _, err := s.Resolve(t.Context(), "app"); !errors.Is(err, errdef.ErrCorrupt) {
				t.Errorf("want damaged, got %v", err)
			}
			if _, err := s.List(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := s.Remove(t.Context(), "app", RemoveOptions{}); err != nil && what != "manifest" {
				t.Error(err)
			}
			s.Remove(t.Context(), img.ID, RemoveOptions{})
			if list, _ := s.List(t.Context()); len(list) != 0 {
				t.Errorf("want it gone, got %+v", list)
			}
			load(t, s, smp.docker(t, "app"))
			checkImage(t, s, resolve(t, s, "app"), smp)
		})
	}
}

// A48: nobody but root gets in.
func TestModes(t *testing.T) {
	s := newStore(t)
	load(t, s, newSample(t, "x").docker(t, "app"))
	filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if d.Name() == "fs" {
			return fs.SkipDir
		}
		if st, _ := d.Info(); st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, st.Mode())
		}
		return err
	})
}

func BenchmarkResolve(b *testing.B) {
	s := newStore(b)
	load(b, s, newSample(b, "x").docker(b, "app"))
	for b.Loop() {
		if _, err := s.Resolve(b.Context(), "app"); err != nil {
			b.Fatal(err)
		}
	}
}

// bzip2 is read, though no layer is kept in it.
func TestBzip2(t *testing.T) {
	root := tarOf(t, "./", "", "f", "x")
	pack := func(data []byte) []byte {
		cmd := exec.Command("bzip2", "-c")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("no bzip2: %v", err)
		}
		return out
	}
	s := newStore(t)
	if _, err := s.Import(t.Context(), bytes.NewReader(pack(root)), ImportOptions{Ref: "a"}); err != nil {
		t.Fatal(err)
	}
	if img := resolve(t, s, "a"); img.Layers[0].DiffID != sumOf(root) {
		t.Errorf("got %+v", img)
	}
	checkLayout(t, s)
	smp := newSample(t, "x")
	load(t, s, pack(smp.docker(t, "b")))
	checkImage(t, s, resolve(t, s, "b"), smp)
}
