package image

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"hull/ref"
)

// crowd is an archive of n small images called app0, app1, ...
func crowd(t testing.TB, n int) []byte {
	var files []string
	x := index{SchemaVersion: 2}
	for i := range n {
		s := newSample(t, "crowd")
		s.config.Author = fmt.Sprint(i)
		man, blobs := s.blobs(t, plain, "")
		for j := 0; j < len(blobs); j += 2 {
			if !contains(files, blobs[j]) {
				files = append(files, blobs[j], blobs[j+1])
			}
		}
		x.Manifests = append(x.Manifests, descriptor{MediaType: typeManifest, Digest: ref.Digest(sumOf([]byte(man))), Size: int64(len(man)),
			Annotations: map[string]string{annotationContainerd: fmt.Sprintf("docker.io/library/app%d:latest", i)}})
	}
	return tarOf(t, append([]string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", toJSON(t, x)}, files...)...)
}

func contains(pairs []string, name string) bool {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == name {
			return true
		}
	}
	return false
}

// A list of many images is that of the files, whatever happened to them and to the file that makes it quick.
func TestListing(t *testing.T) {
	s := memoryStore(t)
	load(t, s, crowd(t, listingFrom))
	check := func(what string, quick bool) {
		t.Helper()
		for range 2 { // the second comes of what the first has left
			if got, want := must(s.List(t.Context())), s.summaries(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: got\n%+v\nwant\n%+v", what, got, want)
			}
		}
		if _, ok := s.readListing(s.listingHead()); ok != quick {
			t.Errorf("%s: the list was kept: %v", what, ok)
		}
	}
	check("after load", true)
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"pin", func() error { _, err := s.Pin(t.Context(), "app3", ""); return err }},
		{"tag", func() error { return s.Tag(t.Context(), "app1", "other:1", "") }},
		{"untag", func() error { _, err := s.Remove(t.Context(), "other:1", RemoveOptions{}); return err }},
		{"load", func() error { load(t, s, newSample(t, "new").docker(t, "app2")); return nil }},
		{"rmi", func() error { _, err := s.Remove(t.Context(), "app2", RemoveOptions{}); return err }},
	} {
		if err := c.change(); err != nil {
			t.Fatal(c.name, err)
		}
		if _, err := os.Lstat(s.listingPath()); err == nil {
			t.Errorf("%s has left a list that is wrong", c.name)
		}
		check("after "+c.name, true)
	}
	whole, err := os.ReadFile(s.listingPath())
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string]string{
		"cut":        string(whole[:len(whole)/2]),
		"empty":      "",
		"other boot": strings.Replace(string(whole), "hull images 2 ", "hull images 1 ", 1),
		"more":       string(whole) + "x",
	} {
		if err := os.WriteFile(s.listingPath(), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		check(what, true)
	}
	// Who changes the files without us is seen too.
	for _, i := range s.summaries()[:1] {
		time.Sleep(20 * time.Millisecond) // times of files move in steps
		if err := os.Remove(s.recordPath(i.ID)); err != nil {
			t.Fatal(err)
		}
	}
	check("a record is gone", s.count() >= listingFrom)
}

func (s *Store) count() int { return len(s.records()) }

func FuzzListing(f *testing.F) {
	list := []Summary{{ID: "sha256:x", RepoTags: []string{"a:b"}, Created: time.Unix(1, 2), Size: 3, Pinned: true, Labels: map[string]string{"k": "v"}}, {}}
	f.Add(string(encodeListing("", list)))
	f.Add("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Fuzz(func(t *testing.T, in string) {
		got, ok := decodeListing(in)
		if !ok {
			return
		}
		again, ok := decodeListing(string(encodeListing("", got)))
		if !ok || len(again) != len(got) {
			t.Errorf("%q: %+v is then %+v", in, got, again)
		}
	})
}
