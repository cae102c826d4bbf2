package image

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
)

// usedAgo lets the image look as if it had last been used that long ago.
func usedAgo(t testing.TB, s *Store, id string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	if err := os.Chtimes(s.recordPath(id), time.Time{}, at); err != nil {
		t.Fatal(err)
	}
}

func TestLastUse(t *testing.T) {
	s := memoryStore(t)
	one := newSample(t, "one")
	id := one.id(t)
	if !s.LastUse(id).IsZero() {
		t.Error("an image that is not there was used")
	}
	load(t, s, one.docker(t, "app"))
	if ago := time.Since(s.LastUse(id)); ago < 0 || ago > time.Minute {
		t.Errorf("brought in %v ago", ago)
	}
	usedAgo(t, s, id, 48*time.Hour)
	if ago := time.Since(s.LastUse(id)); ago < 47*time.Hour || ago > 49*time.Hour {
		t.Errorf("used %v ago", ago)
	}
	s.Used(id)
	if ago := time.Since(s.LastUse(id)); ago > time.Minute {
		t.Errorf("used %v ago", ago)
	}
	usedAgo(t, s, id, -48*time.Hour) // the clock was put back since
	if ago := time.Since(s.LastUse(id)); ago < 0 || ago > time.Minute {
		t.Errorf("used %v ago", ago)
	}
	usedAgo(t, s, id, 48*time.Hour)
	load(t, s, one.docker(t, "app")) // brought in again
	if ago := time.Since(s.LastUse(id)); ago > time.Minute {
		t.Errorf("loaded %v ago", ago)
	}
	s.Used("no digest/../..")
}

// collectStore has the images a to e, used 50 to 10 days ago in this order, each with layers of its own.
func collectStore(t *testing.T) (*Store, map[string]string) {
	s := memoryStore(t)
	ids := map[string]string{}
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		smp := newSample(t, name)
		load(t, s, smp.docker(t, name))
		ids[name] = smp.id(t)
		usedAgo(t, s, ids[name], time.Duration(5-i)*10*24*time.Hour)
	}
	return s, ids
}

func names(c *Collected) string {
	var out []string
	for _, i := range c.Images {
		out = append(out, strings.TrimSuffix(strings.Join(i.Names, "+"), ":latest"))
	}
	return strings.Join(out, " ")
}

const day = 24 * time.Hour

func TestCollect(t *testing.T) {
	s, ids := collectStore(t)
	total := must(s.shares(nil)).total
	for _, tt := range []struct {
		name string
		o    GCOptions
		want string
	}{
		{"nothing asked", GCOptions{}, ""},
		{"unused for 25 days", GCOptions{Unused: new(25 * day)}, "a b c"},
		{"a budget that is kept", GCOptions{Keep: new(total)}, ""},
		{"a byte too many", GCOptions{Keep: new(total - 1)}, "a"},
		{"no room at all", GCOptions{Keep: new(int64(0))}, "a b c d e"},
		{"both", GCOptions{Keep: new(int64(0)), Unused: new(35 * day)}, "a b"},
		{"both, and the budget is kept", GCOptions{Keep: new(total), Unused: new(35 * day)}, ""},
		{"one in use", GCOptions{Unused: new(25 * day), InUse: func(id string) []User {
			if id == ids["b"] {
				return []User{{ID: strings.Repeat("f", 64)}}
			}
			return nil
		}}, "a c"},
	} {
		o := tt.o
		o.Dry = true
		c, err := s.GC(t.Context(), o)
		if err != nil || names(c) != tt.want {
			t.Errorf("%s: want %q, got %q, %v", tt.name, tt.want, names(c), err)
			continue
		}
		if c.Before != total || c.After != total-c.Bytes {
			t.Errorf("%s: %+v", tt.name, c)
		}
		var sum int64
		for _, i := range c.Images {
			sum += i.Bytes
		}
		if sum != c.Bytes {
			t.Errorf("%s: the images make %d bytes, together %d", tt.name, sum, c.Bytes)
		}
	}
	if n := len(s.summaries()); n != 5 {
		t.Fatalf("a dry run has left %d images", n)
	}
	plan := must(s.GC(t.Context(), GCOptions{Unused: new(25 * day), Dry: true}))
	got := must(s.GC(t.Context(), GCOptions{Unused: new(25 * day)}))
	slices.SortFunc(plan.Deleted, byWords)
	slices.SortFunc(got.Deleted, byWords)
	if !slices.Equal(plan.Deleted, got.Deleted) || plan.Bytes != got.Bytes {
		t.Errorf("planned\n%+v\ndone\n%+v", plan, got)
	}
	if after := must(s.shares(nil)).total; after != got.After || len(s.summaries()) != 2 {
		t.Errorf("%d images with %d bytes are left, want %d", len(s.summaries()), after, got.After)
	}
	checkLayout(t, s)
}

func byWords(a, b Deleted) int { return strings.Compare(a.Untagged+a.Deleted, b.Untagged+b.Deleted) }

// What a name was stays for a while, also as an index; what a person took away does not.
func TestCollectKeepsThePast(t *testing.T) {
	s := memoryStore(t)
	one, two, three := newSample(t, "one"), newSample(t, "two"), newSample(t, "three")
	load(t, s, one.docker(t, "app"))
	man, blobs := two.blobs(t, plain, "")
	x := toJSON(t, index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{{MediaType: typeManifest,
		Digest: ref.Digest(sumOf([]byte(man))), Size: int64(len(man)), Platform: &platform{OS: "linux", Architecture: "amd64"}}}})
	blobs = append(blobs, "blobs/sha256/"+ref.Digest(sumOf([]byte(x))).Hex(), x)
	top := toJSON(t, index{SchemaVersion: 2, Manifests: []descriptor{{MediaType: typeIndex, Digest: ref.Digest(sumOf([]byte(x))), Size: int64(len(x)),
		Annotations: map[string]string{annotationContainerd: "docker.io/library/app:latest"}}}})
	load(t, s, tarOf(t, append([]string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", top}, blobs...)...))
	load(t, s, three.docker(t, "app"))
	for _, smp := range []sample{one, two, three} {
		usedAgo(t, s, smp.id(t), 40*day)
	}
	c := must(s.GC(t.Context(), GCOptions{Unused: new(time.Hour), Window: DefaultWindow, Dry: true}))
	if names(c) != "app" || len(c.Stay) != 2 || !strings.HasPrefix(c.Stay[0].Why, "app:latest@{") {
		t.Errorf("got %+v", c)
	}
	c = must(s.GC(t.Context(), GCOptions{Window: DefaultWindow}))
	if len(c.Images) != 0 {
		t.Errorf("got %+v", c)
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for at, smp := range map[string]sample{"app@{1}": two, "app@{2}": one} {
		img, err := s.Resolve(t.Context(), at)
		if err != nil || img.ID != smp.id(t) {
			t.Errorf("%s: got %+v, %v", at, img, err)
		}
	}
	// After the window, and not before, nothing holds them.
	later := GCOptions{Window: DefaultWindow, now: time.Now().Add(DefaultWindow - time.Minute)}
	if c := must(s.GC(t.Context(), later)); len(c.Images) != 0 {
		t.Errorf("within the window: %+v", c)
	}
	later.now = time.Now().Add(DefaultWindow + time.Minute)
	if c := must(s.GC(t.Context(), later)); len(c.Images) != 2 {
		t.Errorf("after the window: %+v", c)
	}
	if _, err := s.Resolve(t.Context(), "app@{1}"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	checkImage(t, s, resolve(t, s, "app"), three)
	// A name that was taken away, not given to another image, holds nothing.
	load(t, s, one.docker(t, "app2"))
	s.Kept = func() (map[string]bool, error) { return nil, nil }
	if _, err := s.Remove(t.Context(), "app", RemoveOptions{InUse: func(string) []User { return []User{{ID: "x"}} }, Force: true}); err != nil {
		t.Fatal(err)
	}
	if held := s.recent(DefaultWindow, time.Now()); held[three.id(t)] != "" || held[one.id(t)] != "app:latest@{3}" {
		t.Errorf("held: %v", held)
	}
}

// Neither a pin nor what could be restored is touched, however small the budget.
func TestCollectHolds(t *testing.T) {
	s, ids := collectStore(t)
	if _, err := s.Pin(t.Context(), "a", "production"); err != nil {
		t.Fatal(err)
	}
	saved := resolve(t, s, "b")
	var removed *Removed
	s.Saved = func() ([]ref.Digest, error) { return []ref.Digest{ref.Digest(saved.Manifest)}, nil }
	if _, err := s.Remove(t.Context(), "b", RemoveOptions{Save: func(r *Removed) func(bool) { removed = r; return func(bool) {} }}); err != nil {
		t.Fatal(err)
	}
	c, err := s.GC(t.Context(), GCOptions{Keep: new(int64(0)), Unused: new(time.Duration(0)),
		Kept: func() (map[string]bool, error) {
			return map[string]bool{resolve(t, s, "a").Layers[1].ChainID: true}, nil
		}})
	if err != nil || names(c) != "c d e" || len(c.Stay) != 1 || c.Stay[0].ID != ids["a"] {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := s.Restore(t.Context(), removed, "undo"); err != nil {
		t.Error(err)
	}
	checkImage(t, s, resolve(t, s, "b"), newSample(t, "b"))
	checkImage(t, s, resolve(t, s, "a"), newSample(t, "a"))
}
