package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/test/rig/disk"
	"hull/test/rig/nobody"

	"golang.org/x/sys/unix"
)

func unused(*Volume) error { return nil }

func create(t *testing.T, s *Store, o Spec) *Volume {
	t.Helper()
	v, err := s.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCreateAndRemove(t *testing.T) {
	s := Open(t.TempDir())
	if _, err := s.Get("data"); !errors.Is(err, errdef.ErrNotFound) || err.Error() != "get data: no such volume" {
		t.Errorf("Get of nothing: %v", err)
	}
	v := create(t, s, Spec{Name: "data", Labels: map[string]string{"a": "b"}})
	again := create(t, s, Spec{Name: "data", Labels: map[string]string{"other": "x"}})
	if again.Labels["a"] != "b" || !again.Created.Equal(v.Created) {
		t.Errorf("want the same volume, got %+v", again)
	}
	if st, err := os.Stat(v.Path()); err != nil || st.Mode() != fs.ModeDir|0o755 {
		t.Errorf("the data: %v, %v", st, err)
	}
	why := errors.New("in use")
	if err := s.Remove(t.Context(), "data", func(*Volume) error { return why }); !errors.Is(err, why) {
		t.Errorf("Remove of one in use: %v", err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Name != "data" {
		t.Errorf("List: %v, %v", list, err)
	}
	if err := s.Remove(t.Context(), "data", unused); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "data", unused); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("second Remove: %v", err)
	}
	if names, _ := readNames(s.dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// TestRace: of many creators of one name all get the same volume, and removers and creators at once leave a whole one or
// none.
func TestRace(t *testing.T) {
	s := Open(t.TempDir())
	var wg sync.WaitGroup
	made := make([]*Volume, 50)
	for i := range made {
		wg.Go(func() {
			v, err := s.Create(t.Context(), Spec{Name: "data"})
			if err != nil {
				t.Error(err)
				return
			}
			made[i] = v
		})
	}
	wg.Wait()
	for _, v := range made {
		if v == nil || !v.Created.Equal(made[0].Created) {
			t.Fatalf("want one volume for all, got %+v and %+v", made[0], v)
		}
	}
	for range 20 {
		wg.Go(func() {
			if _, err := s.Create(t.Context(), Spec{Name: "data"}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := s.Remove(t.Context(), "data", unused); err != nil && !errors.Is(err, errdef.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := s.List()
	if err != nil || len(list) > 1 || len(list) == 1 && list[0].Damaged != "" {
		t.Errorf("List: %+v, %v", list, err)
	}
}

// While one holds a volume nobody removes it.
func TestHoldKeeps(t *testing.T) {
	s := Open(t.TempDir())
	h, err := s.Hold(t.Context(), Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Remove(ctx, "data", unused); !errors.Is(err, errdef.ErrDeadline) {
		t.Errorf("Remove of a held volume: %v", err)
	}
	h.Release()
	if err := s.Remove(t.Context(), "data", unused); err != nil {
		t.Error(err)
	}
}

// TestFillKilled: whatever a killed Fill left, the next one who holds the volume finds it empty or whole.
func TestFillKilled(t *testing.T) {
	for _, tt := range []struct {
		name string
		kill func(dir string) error // leaves what the killed one left
		want string
	}{
		{"while copying", func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/.tmp-x", 0o755), os.WriteFile(dir+"/.tmp-x/half", nil, 0o600))
		}, ""},
		{"when all was copied", func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/copy", 0o750), os.WriteFile(dir+"/copy/a", nil, 0o600), os.WriteFile(dir+"/copy/b", nil, 0o600))
		}, "a b"},
		{"while moving", func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/copy", 0o750), os.WriteFile(dir+"/_data/a", nil, 0o600), os.WriteFile(dir+"/copy/b", nil, 0o600))
		}, "a b"},
	} {
		s := Open(t.TempDir())
		v := create(t, s, Spec{Name: "data"})
		if err := tt.kill(v.dir); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ready("data"); err != nil {
			t.Fatal(err)
		}
		h, err := s.HoldExisting(t.Context(), "data")
		if err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(v.Path())
		var got []string
		for _, n := range names {
			got = append(got, n.Name())
		}
		if strings.Join(got, " ") != tt.want || err != nil {
			t.Errorf("%s: want %q, got %q, %v", tt.name, tt.want, got, err)
		}
		if left, _ := filepath.Glob(v.dir + "/.tmp-*"); len(left) > 0 {
			t.Errorf("%s: left %v", tt.name, left)
		}
		h.Release()
	}
}

func TestFill(t *testing.T) {
	s := Open(t.TempDir())
	src := t.TempDir()
	if err := errors.Join(unix.Chmod(src, 0o1777), os.WriteFile(src+"/f", []byte("x"), 0o604)); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	h, err := s.Hold(t.Context(), Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if empty, err := h.Empty(); !empty || err != nil {
		t.Errorf("a new one: empty %v, %v", empty, err)
	}
	if err := h.Fill(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if empty, err := h.Empty(); empty || err != nil {
		t.Errorf("a filled one: empty %v, %v", empty, err)
	}
	if st, err := os.Stat(h.Path()); err != nil || st.Mode() != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("the directory itself: %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(h.Path() + "/f"); err != nil || st.Mode() != 0o604 {
		t.Errorf("the file: %v, %v", st, err)
	}
	names, _ := readNames(h.dir)
	if len(names) != 2 { // volume.json and _data
		t.Errorf("left: %v", names)
	}
}

// A volume that is not yet, or no longer, one is swept up once nobody works on it.
func TestSweep(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, Spec{Name: "data"})
	stale, busy := s.path(".tmp-stale"), s.path(".tmp-busy")
	if err := errors.Join(os.MkdirAll(stale+"/_data/x", 0o700), os.MkdirAll(busy, 0o700)); err != nil {
		t.Fatal(err)
	}
	l, err := state.Lock(t.Context(), busy)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("List: %v, %v", list, err)
	}
	if _, err := os.Lstat(stale); !isMissing(err) {
		t.Errorf("stale: %v", err)
	}
	if _, err := os.Lstat(busy); err != nil {
		t.Errorf("busy: %v", err)
	}
}

func TestDamaged(t *testing.T) {
	s := Open(t.TempDir())
	for name, content := range map[string]string{"garbage": "{", "other": `{"name":"garbage"}`, "empty": ""} {
		v := create(t, s, Spec{Name: name})
		if err := os.WriteFile(v.dir+"/volume.json", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Get(name); err != nil || v.Damaged == "" {
			t.Errorf("%s: want it damaged, got %+v, %v", name, v, err)
		}
		if _, err := s.Hold(t.Context(), Spec{Name: name}); !errors.Is(err, errdef.ErrCorrupt) {
			t.Errorf("%s: Hold: %v", name, err)
		}
		if err := s.Remove(t.Context(), name, unused); err != nil {
			t.Errorf("%s: Remove: %v", name, err)
		}
	}
}

// TestUnreadAsNobody is what root can read whatever its mode.
func TestUnreadAsNobody(t *testing.T) { nobody.Runs(t, "^TestUnread$", "TestUnread") }

// TestUnread: a definition that cannot be read is no damaged one.
func TestUnread(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("left out: root can read everything")
	}
	s := Open(t.TempDir())
	v := create(t, s, Spec{Name: "shut"})
	if err := os.Chmod(v.dir+"/volume.json", 0); err != nil {
		t.Fatal(err)
	}
	_, got := s.Get("shut")
	_, held := s.Hold(t.Context(), Spec{Name: "shut"})
	removed := s.Remove(t.Context(), "shut", unused)
	for what, err := range map[string]error{"Get": got, "Hold": held, "Remove": removed} {
		if !errors.Is(err, os.ErrPermission) || errors.Is(err, errdef.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Unread == nil || list[0].Damaged != "" {
		t.Errorf("List: %+v, %v", list, err)
	}
}

// What somebody mounted in a volume is not ours to remove.
func TestRemoveRefusesMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	s := Open(t.TempDir())
	v := create(t, s, Spec{Name: "data"})
	if err := unix.Mount("tmpfs", v.Path(), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			unix.Unmount(v.Path(), unix.MNT_DETACH)
		}
	})
	err := s.Remove(t.Context(), "data", unused)
	if !errors.Is(err, errdef.ErrConflict) || !strings.Contains(err.Error(), v.Path()) {
		t.Errorf("want a refusal that names the mount, got %v", err)
	}
	if err := unix.Unmount(v.Path(), 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if err := s.Remove(t.Context(), "data", unused); err != nil {
		t.Error(err)
	}
}

func TestSpecRefused(t *testing.T) {
	long := strings.Repeat("x", 256)
	for says, o := range map[string]Spec{
		"volume name is too short":                  {Name: "a"},
		`"a/b" includes invalid characters`:         {Name: "a/b"},
		`"../x" includes invalid characters`:        {Name: "../x"},
		`".tmp-x" includes invalid characters`:      {Name: ".tmp-x"},
		`"" includes invalid characters`:            {},
		`x" includes invalid characters`:            {Name: long},
		`plugin "nope" not found`:                   {Name: "data", Driver: "nope"},
		`invalid option: "nope"`:                    {Name: "data", Options: map[string]string{"nope": "x"}},
		`missing required option: "device"`:         {Name: "data", Options: map[string]string{"type": "nfs"}},
		`missing required option: "type"`:           {Name: "data", Options: map[string]string{"device": "/x"}},
		"quota size requested but no quota support": {Name: "data", Options: map[string]string{"size": "1g"}},
		"must be an absolute path":                  {Name: "data", Options: map[string]string{"type": "none", "o": "bind", "device": "x"}},
		"option o: control characters":              {Name: "data", Options: map[string]string{"type": "nfs", "device": ":/x", "o": "a\nb"}},
		"invalid label":                             {Name: "data", Labels: map[string]string{"": "x"}},
		"more than the 1048576":                     {Name: "data", Labels: map[string]string{"x": strings.Repeat("y", 2<<20)}},
	} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error that says %s, got %v", says, err)
		}
	}
}

// Law 7: what Create, Fill and Remove returned for survives a power cut the moment after, and is whole.
func TestPowerCut(t *testing.T) {
	if !disk.OwnMounts(t) {
		return
	}
	d := disk.New(t)
	s := Open(d.Dir + "/root")
	if err := state.Open(d.Dir + "/root"); err != nil {
		t.Fatal(err)
	}
	create(t, s, Spec{Name: "data", Labels: map[string]string{"a": "b"}})
	d.Cut()
	if v, err := s.Get("data"); err != nil || v.Damaged != "" || v.Labels["a"] != "b" {
		t.Fatalf("created, and then %+v, %v", v, err)
	}
	src := t.TempDir()
	want := strings.Repeat("content\n", 1000)
	for _, n := range []string{"a", "b", "sub/c"} {
		if err := errors.Join(os.MkdirAll(src+"/sub", 0o750), os.WriteFile(filepath.Join(src, n), []byte(want), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	h, err := s.Hold(t.Context(), Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	err = h.Fill(t.Context(), dir)
	h.Release()
	if err != nil {
		t.Fatal(err)
	}
	d.Cut()
	v, err := s.Ready("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b", "sub/c"} {
		if got, err := os.ReadFile(filepath.Join(v.Path(), n)); err != nil || string(got) != want {
			t.Errorf("%s has %d bytes, %v", n, len(got), err)
		}
	}
	if err := s.Remove(t.Context(), "data", unused); err != nil {
		t.Fatal(err)
	}
	d.Cut()
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("removed, and then %v, %v", list, err)
	}
}
