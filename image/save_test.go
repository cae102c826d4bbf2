package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"hull/errdef"
	"hull/ref"
)

// save returns an archive of images and the names of the files in it.
func save(t testing.TB, s *Store, o SaveOptions, names ...string) (data []byte, files []string) {
	t.Helper()
	out, err := s.Save(t.Context(), names, o)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var buf bytes.Buffer
	n, err := out.WriteTo(&buf)
	if err != nil || n != out.Size || n != int64(buf.Len()) {
		t.Fatalf("want %d bytes, got %d and %d: %v", out.Size, n, buf.Len(), err)
	}
	tr := tar.NewReader(bytes.NewReader(buf.Bytes()))
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return buf.Bytes(), files
		}
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Uid != 0 || hdr.ModTime.Unix() != 0 || hdr.Typeflag != tar.TypeReg {
			t.Errorf("the entry %+v is not the same everywhere", hdr)
		}
		files = append(files, hdr.Name)
	}
}

// describeAll is what has to survive a journey: names, ids, digests and layers.
func describeAll(t testing.TB, s *Store) string {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return toJSON(t, list)
}

// TestSave takes images of each kind through each format that keeps manifests, and gets the same store.
func TestSave(t *testing.T) {
	for name, archive := range map[string][]byte{
		"docker":      newSample(t, "a").docker(t, "app:1", "other/app:2"),
		"plain":       newSample(t, "a").layout(t, plain, "", map[string]string{annotationContainerd: "docker.io/library/app:1"}),
		"gzip":        newSample(t, "a").layout(t, gz, "+gzip", map[string]string{annotationContainerd: "docker.io/library/app:1"}, map[string]string{annotationContainerd: "example.org:5000/x/y:z"}),
		"zstd":        newSample(t, "a").layout(t, zst, "+zstd"),
		"no platform": newSample(t, "b").layout(t, gz, "+gzip", map[string]string{annotationContainerd: "app:1"}),
	} {
		from := newStore(t)
		loaded := load(t, from, archive)
		id := loaded[0].ID
		names := []string{id}
		if loaded[0].Ref != "" {
			names = nil
			for _, l := range loaded {
				names = append(names, l.Ref)
			}
		}
		for _, format := range []string{FormatDual, FormatOCIArchive, FormatOCIDir} {
			data, files := save(t, from, SaveOptions{Format: format}, names...)
			if again, _ := save(t, from, SaveOptions{Format: format}, names...); !bytes.Equal(data, again) {
				t.Errorf("%s: two archives of the same differ", name)
			}
			if files[0] != nameLayout || files[1] != nameIndex || slices.Contains(files, nameDocker) != (format == FormatDual) {
				t.Errorf("%s: %q has the files %q", name, format, files)
			}
			to := newStore(t)
			load(t, to, data)
			if want, got := describeAll(t, from), describeAll(t, to); want != got {
				t.Errorf("%s by way of %q:\nwant %s\ngot  %s", name, format, want, got)
			}
			if again, _ := save(t, to, SaveOptions{Format: format}, names...); !bytes.Equal(data, again) {
				t.Errorf("%s: what was loaded from %q is saved otherwise", name, format)
			}
			checkLayout(t, to)
		}
		// These know no names, or no manifests: the image stays the same.
		for _, format := range []string{FormatDockerArchive, FormatDockerDir} {
			data, files := save(t, from, SaveOptions{Format: format}, names...)
			to := newStore(t)
			load(t, to, data)
			img := resolve(t, to, id)
			if was := resolve(t, from, id); format == FormatDockerDir && was.Manifest != img.Manifest {
				t.Errorf("%s by way of %s: the manifest %s became %s", name, format, was.Manifest, img.Manifest)
			}
			if tags, _ := to.Names(id); format == FormatDockerArchive && loaded[0].Ref != "" && len(tags) != len(names) {
				t.Errorf("%s by way of %s: names %q became %q; files %q", name, format, names, tags, files)
			}
			checkLayout(t, to)
		}
	}
}

// TestSaveNames: a repository stands for all its tags, one image with several names is one, and what is saved by id,
// digest or place in a log has none.
func TestSaveNames(t *testing.T) {
	s := newStore(t)
	a, b := newSample(t, "a"), newSample(t, "b")
	load(t, s, a.docker(t, "app:1", "app:2"))
	load(t, s, b.docker(t, "app:2", "lone:3"))
	img := resolve(t, s, "lone:3")
	for _, tt := range []struct {
		names []string
		want  string // tags after a load, by image
	}{
		{[]string{"app"}, "app:1; app:2"},
		{[]string{"app:1", "app:1"}, "app:1"},
		{[]string{"lone:3", "app:2"}, "app:2,lone:3"},
		{[]string{img.ID}, ""},
		{[]string{img.ID[7:19]}, ""},
		{[]string{"lone@" + img.Manifest}, ""},
		{[]string{"app:2@{1}"}, ""},
		{[]string{img.ID, "lone:3"}, "lone:3"},
		{[]string{"app", "lone:3"}, "app:1; app:2,lone:3"},
	} {
		data, _ := save(t, s, SaveOptions{}, tt.names...)
		to := newStore(t)
		load(t, to, data)
		list, err := to.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range list {
			got = append(got, strings.Join(i.RepoTags, ","))
		}
		slices.Sort(got)
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("save %q: want %q, got %q", tt.names, tt.want, got)
		}
	}
	for _, names := range [][]string{{"nothing"}, {"app:9"}, {"app", "nothing"}, {"app:1@{9}"}} {
		if _, err := s.Save(t.Context(), names, SaveOptions{}); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("save %q: want not found, got %v", names, err)
		}
	}
	for _, o := range []SaveOptions{{Format: "zip"}, {Platforms: []string{"a/b/c/d"}}} {
		if _, err := s.Save(t.Context(), []string{"app:1"}, o); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%+v: want invalid, got %v", o, err)
		}
	}
	if _, err := s.Save(t.Context(), []string{"app"}, SaveOptions{Format: FormatDockerDir}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("two images in a directory for one: got %v", err)
	}
}

// TestSavePlatforms keeps the digest of an index through an archive, and leaves it out where one platform is asked for.
func TestSavePlatforms(t *testing.T) {
	var files []string
	var x index
	for _, arch := range []string{"amd64", "arm64", "riscv64"} {
		s := newSample(t, arch)
		s.config.Architecture = arch
		man, blobs := s.blobs(t, gz, "+gzip")
		for i := 0; i < len(blobs); i += 2 {
			if !slices.Contains(files, blobs[i]) {
				files = append(files, blobs[i], blobs[i+1])
			}
		}
		x.Manifests = append(x.Manifests, descriptor{MediaType: typeManifest, Digest: ref.Digest(sumOf([]byte(man))), Size: int64(len(man)), Platform: &platform{OS: "linux", Architecture: arch}})
	}
	x.SchemaVersion, x.MediaType = 2, typeIndex
	data := toJSON(t, x)
	top := index{SchemaVersion: 2, Manifests: []descriptor{{MediaType: typeIndex, Digest: ref.Digest(sumOf([]byte(data))), Size: int64(len(data)), Annotations: map[string]string{annotationContainerd: "docker.io/library/multi:1"}}}}
	files = append(files, blobFile(top.Manifests[0].Digest), data, nameLayout, `{"imageLayoutVersion":"1.0.0"}`, nameIndex, toJSON(t, top))
	archive := tarOf(t, files...)

	from := newStore(t)
	if _, err := from.Load(t.Context(), bytes.NewReader(archive), LoadOptions{Platforms: []string{"linux/amd64", "arm64"}}); err != nil {
		t.Fatal(err)
	}
	all, names := save(t, from, SaveOptions{}, "multi:1")
	if !slices.Contains(names, blobFile(x.Manifests[1].Digest)) || slices.Contains(names, blobFile(x.Manifests[2].Digest)) {
		t.Errorf("the archive has not what is here: %q", names)
	}
	to := newStore(t)
	if _, err := to.Load(t.Context(), bytes.NewReader(all), LoadOptions{Platforms: []string{"linux/amd64", "linux/arm64"}}); err != nil {
		t.Fatal(err)
	}
	if want, got := describeAll(t, from), describeAll(t, to); want != got {
		t.Errorf("want %s\ngot  %s", want, got)
	}
	one, names := save(t, from, SaveOptions{Platforms: []string{"linux/arm64"}}, "multi:1")
	if slices.Contains(names, blobFile(top.Manifests[0].Digest)) || slices.Contains(names, blobFile(x.Manifests[0].Digest)) {
		t.Errorf("one platform was asked for, got %q", names)
	}
	to = newStore(t)
	load(t, to, one) // for no platform in particular: the only one there is
	if img := resolve(t, to, "multi:1"); img.Config.Architecture != "arm64" || img.Target != string(x.Manifests[1].Digest) {
		t.Errorf("got the image %+v", img)
	}
	if _, err := from.Save(t.Context(), []string{"multi:1"}, SaveOptions{Platforms: []string{"linux/riscv64"}}); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("a platform that is not here: got %v", err)
	}
	if _, err := newStore(t).Load(t.Context(), bytes.NewReader(all), LoadOptions{Platforms: []string{"linux/s390x", "linux/ppc64le"}}); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("platforms that the archive lacks: got %v", err)
	}
}

// TestSaveDamaged never passes on what the disk has changed.
func TestSaveDamaged(t *testing.T) {
	for _, format := range []string{FormatDual, FormatOCIArchive, FormatDockerArchive, FormatDockerDir} {
		for layers, hurt := range map[int]func(path string) error{
			0: func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{'x'}, 100), 0o600) },
			1: func(path string) error {
				data, err := os.ReadFile(path)
				data[len(data)/2] ^= 1
				return errors.Join(err, os.WriteFile(path, data, 0o600))
			},
			2: os.Remove,
		} {
			s := newStore(t)
			load(t, s, newSample(t, "a").layout(t, gz, "+gzip", map[string]string{annotationContainerd: "app:1"}))
			m, _, err := s.manifestOf(ref.Digest(resolve(t, s, "app:1").Manifest))
			if err != nil {
				t.Fatal(err)
			}
			if err := hurt(s.blobPath(m.Layers[1].Digest)); err != nil {
				t.Fatal(err)
			}
			out, err := s.Save(t.Context(), []string{"app:1"}, SaveOptions{Format: format})
			if err == nil {
				_, err = out.WriteTo(io.Discard)
				out.Close()
			}
			if err == nil {
				t.Errorf("%q, damage %d: the archive was written", format, layers)
			}
		}
	}
}
