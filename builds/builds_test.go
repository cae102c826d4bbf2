package builds

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"hull/errdef"
)

// made commits a snapshot with one file over parent, and a result of it with the key.
func made(t *testing.T, b *Build, id, key string, parent *FS) *FS {
	t.Helper()
	d, err := b.NewSnapshot(id)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Mkdir(d.FS(), 0o755), os.WriteFile(d.FS()+"/file", []byte(id), 0o644), os.Mkdir(d.Dir()+"/work", 0o755))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit("RUN " + id); err != nil {
		t.Fatal(err)
	}
	f := parent.Over(id)
	err = errors.Join(b.s.PutResult(&Result{ID: "r-" + id, FS: *f}), b.s.AddResult(key, "r-"+id, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func begin(t *testing.T, s *Store, id string) *Build {
	t.Helper()
	b, err := s.Begin(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func results(t *testing.T, s *Store, key string) (out []string) {
	t.Helper()
	if err := s.ResultsOf(key, func(id string, _ time.Time) error { out = append(out, id); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestResult(t *testing.T) {
	s := Open(t.TempDir())
	b := begin(t, s, "one")
	base := &FS{Layers: []Layer{{Chain: "sha256:aa"}, {Chain: "sha256:bb"}}}
	f := made(t, b, "a", "sha256:key@1", base)
	f = made(t, b, "b", "other key", f)
	if err := errors.Join(s.Link("sha256:key@1", `{"x":"y z"}`, "other key"), s.Link("sha256:key@1", `{"x":"y z"}`, "other key"), b.Close()); err != nil {
		t.Fatal(err)
	}
	s = Open(filepath.Dir(s.dir)) // another process
	r, err := s.Result("r-b")
	if err != nil || !slices.Equal(r.FS.Snapshots, []string{"a", "b"}) || len(r.FS.Layers) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if data, err := os.ReadFile(s.SnapshotFS("b") + "/file"); err != nil || string(data) != "b" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Stat(s.path("snapshots", "a", "work")); err == nil {
		t.Error("what the making needed is still there")
	}
	if got := results(t, s, "sha256:key@1"); !slices.Equal(got, []string{"r-a"}) {
		t.Errorf("results: %v", got)
	}
	if !s.Linked("sha256:key@1", `{"x":"y z"}`, "other key") || s.Linked("sha256:key@1", "{}", "other key") {
		t.Error("links")
	}
	var back []string
	if err := s.Backlinks("other key", func(link, from string) error { back = append(back, link, from); return nil }); err != nil || !slices.Equal(back, []string{`{"x":"y z"}`, "sha256:key@1"}) {
		t.Errorf("backlinks: %q, %v", back, err)
	}
	kept := map[string]bool{}
	if err := s.Keep(kept); err != nil || len(kept) != 1 || !kept["sha256:bb"] {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// TestPowerCut: what was not synced is gone with its boot, and what was is not.
func TestPowerCut(t *testing.T) {
	s := Open(t.TempDir())
	b := begin(t, s, "one")
	f := made(t, b, "safe", "key", &FS{})
	made(t, b, "lost", "key", f)
	if err := errors.Join(s.Settle([]string{"safe"}), b.Close()); err != nil {
		t.Fatal(err)
	}
	s.boot = func() string { return "the next" }
	if _, err := s.Result("r-safe"); err != nil {
		t.Error(err)
	}
	if _, err := s.Result("r-lost"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("of a snapshot that may be damaged: %v", err)
	}
	// What a file system may leave of files that were not synced.
	if err := os.WriteFile(s.path("results", "r-safe"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Result("r-safe"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("of an empty file: %v", err)
	}
}

// TestTornKey: half a line is none, and the next one is whole.
func TestTornKey(t *testing.T) {
	s := Open(t.TempDir())
	b := begin(t, s, "one")
	defer b.Close()
	made(t, b, "a", "key", &FS{})
	f, err := os.OpenFile(s.keyPath("key"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("\nresult r-x 2026-01-01T00:00"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := results(t, s, "key"); !slices.Equal(got, []string{"r-a"}) {
		t.Errorf("results: %v", got)
	}
	made(t, b, "b", "key", &FS{})
	if got := results(t, s, "key"); !slices.Equal(got, []string{"r-a", "r-b"}) {
		t.Errorf("results: %v", got)
	}
}

// TestPrune: what lives is left alone, keys go with what they lead to, and shared parts stay.
func TestPrune(t *testing.T) {
	s := Open(t.TempDir())
	b := begin(t, s, "one")
	f := made(t, b, "a", "key a", &FS{})
	made(t, b, "b", "key b", f)
	if err := s.Link("key a", "{}", "key b"); err != nil {
		t.Fatal(err)
	}
	all := func(*Result, time.Time) bool { return true }
	if gone, _, err := s.Prune(t.Context(), all); err != nil || len(gone) != 0 {
		t.Errorf("while the build lives: %v, %v", gone, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	for _, id := range []string{"r-a", "r-b"} {
		if err := os.Chtimes(s.path("results", id), past, past); err != nil {
			t.Fatal(err)
		}
	}
	other := begin(t, s, "two")
	if _, err := s.Result("r-b"); err != nil { // it builds on that
		t.Fatal(err)
	}
	gone, _, err := s.Prune(t.Context(), all)
	if err != nil || len(gone) != 1 || gone[0].ID != "r-a" {
		t.Fatalf("while another one uses b: %v, %v", gone, err)
	}
	if _, err := s.Result("r-b"); err != nil {
		t.Errorf("b stands on the snapshot of a: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	gone, bytes, err := s.Prune(t.Context(), all)
	if err != nil || len(gone) != 1 || bytes == 0 {
		t.Errorf("%v, %d bytes, %v", gone, bytes, err)
	}
	for _, dir := range []string{"snapshots", "results", "keys", "running"} {
		if left, err := os.ReadDir(s.path(dir)); err != nil || len(left) > 0 {
			t.Errorf("%s has %v, %v", dir, left, err)
		}
	}
}

// TestKilled: what a killed build left goes with the next one, and ids are no paths.
func TestKilled(t *testing.T) {
	s := Open(t.TempDir())
	b := begin(t, s, "one")
	if _, err := b.NewSnapshot("half"); err != nil {
		t.Fatal(err)
	}
	if Dead(b.Dir()) {
		t.Error("a build that lives is called dead")
	}
	b.lock.Unlock() // as the kernel does
	if !Dead(b.Dir()) {
		t.Error("a build that was killed is not called dead")
	}
	next := begin(t, s, "two")
	defer next.Close()
	if _, err := os.Stat(b.Dir()); err == nil {
		t.Error("the directory of the killed build is there")
	}
	for _, id := range []string{"", "..", "a/b", ".", "a b"} {
		if _, err := s.Begin(t.Context(), id); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestMounts(t *testing.T) {
	s := Open(t.TempDir())
	fill := func(dir string) error { return os.Mkdir(dir+"/fs", 0o755) }
	open := func(sharing Sharing) *Mount {
		t.Helper()
		m, err := s.Mount(t.Context(), "/root/.cache", sharing, fill)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := open(Shared), open(Shared)
	if a.Path() != b.Path() {
		t.Error("shared, and not the same")
	}
	p := open(Private)
	if p.Path() == a.Path() {
		t.Error("private, and the same")
	}
	list, err := s.Mounts(t.Context())
	if err != nil || len(list) != 2 || !list[0].InUse {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := s.RemoveMount(list[0].Name); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("of one in use: %v", err)
	}
	for _, m := range []*Mount{a, b, p} {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	again := open(Private)
	if again.Path() != a.Path() {
		t.Error("a private one is not used again")
	}
	again.Close()
	for _, m := range list {
		if err := s.RemoveMount(m.Name); err != nil {
			t.Error(err)
		}
	}
	failed := errors.New("no")
	if _, err := s.Mount(t.Context(), "x", Shared, func(string) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(s.path("mounts")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
