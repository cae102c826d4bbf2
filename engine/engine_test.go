package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/monitor"
	"hull/state"

	"golang.org/x/sys/unix"
)

// fresh is an engine of an empty store.
func fresh(t *testing.T) *Engine {
	t.Helper()
	e := Open(filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "run"), Options{})
	if err := e.ready(); err != nil {
		t.Fatal(err)
	}
	if err := e.makeStore(); err != nil {
		t.Fatal(err)
	}
	return e
}

// definition is one of a container that runs true.
func definition(name string) *record {
	r := &record{ID: newID(), Name: name, Created: time.Now(), ImageID: "sha256:00", Config: Config{Image: "img", Cmd: []string{"true"}}}
	r.Host.AutoRemove = true // not synced: the tests are faster
	r.fill(&image.Run{})
	return r
}

// leftovers lists everything below the store that is not its skeleton.
func leftovers(t *testing.T, e *Engine) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(e.root, func(p string, _ os.DirEntry, err error) error {
		switch rel, _ := filepath.Rel(e.root, p); rel {
		case ".", "version", "containers", "containers/.limbo", "names", "events", "events/journal":
		default:
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPlaceFindRemove(t *testing.T) {
	e := fresh(t)
	r := definition("web")
	if err := e.place(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "/web", r.ID, r.ID[:12], r.ID[:3]} {
		c, err := e.Inspect(t.Context(), name)
		if err != nil || c.ID != r.ID || c.Name != "web" || c.State.Status != StatusCreated {
			t.Errorf("Inspect(%q) = %+v, %v", name, c, err)
		}
	}
	if _, err := e.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := e.Inspect(t.Context(), "web")
	if want := "No such container: web"; !errors.Is(err, errdef.ErrNotFound) || err.Error() != want {
		t.Errorf("want %q, got %v", want, err)
	}
	if got := leftovers(t, e); got != nil {
		t.Errorf("left behind: %v", got)
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	e := fresh(t)
	a, b := definition("a1"), definition("b1")
	a.ID, b.ID = "abc"+a.ID[3:], "abd"+b.ID[3:]
	for _, r := range []*record{a, b} {
		if err := e.place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.find("ab")
	if want := "multiple IDs found with provided prefix: ab"; err == nil || err.Error() != want {
		t.Errorf("want %q, got %v", want, err)
	}
	if id, err := e.find("abc"); id != a.ID || err != nil {
		t.Errorf("find(abc) = %s, %v", id, err)
	}
	// A name wins over the beginning of an id.
	c := definition("abd")
	if err := e.place(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if id, err := e.find("abd"); id != c.ID || err != nil {
		t.Errorf("find(abd) = %s, %v; want the container of that name", id, err)
	}
}

// TestNameRace: of fifty that want one name one gets it, and the others learn whose it is.
func TestNameRace(t *testing.T) {
	e := fresh(t)
	var mu sync.Mutex
	var winners []string
	var losers []error
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			r := definition("web")
			err := e.place(t.Context(), r)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				winners = append(winners, r.ID)
			} else {
				losers = append(losers, err)
			}
		})
	}
	wg.Wait()
	if len(winners) != 1 || len(losers) != 49 {
		t.Fatalf("want 1 winner and 49 losers, got %d and %d", len(winners), len(losers))
	}
	want := fmt.Sprintf(`Conflict. The container name "/web" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.`, winners[0])
	for _, err := range losers {
		if !errors.Is(err, errdef.ErrConflict) || err.Error() != want {
			t.Fatalf("want %s, got %v", want, err)
		}
	}
	list, err := e.List(t.Context(), ListOptions{All: true})
	if err != nil || len(list) != 1 {
		t.Errorf("want one container, got %d, %v", len(list), err)
	}
}

// TestKilledCreate leaves what a create killed after each of its steps leaves, and wants the next command to find
// nothing, or a whole container.
func TestKilledCreate(t *testing.T) {
	steps := []struct {
		name string
		do   func(e *Engine, r *record) error
	}{
		{"limbo made", func(e *Engine, r *record) error { return os.Mkdir(e.limbo(r.ID), 0o700) }},
		{"half a definition", func(e *Engine, r *record) error {
			return os.WriteFile(filepath.Join(e.limbo(r.ID), state.TempName()), []byte(`{"id":`), 0o600)
		}},
		{"place made", func(e *Engine, r *record) error { return os.Mkdir(e.dir(r.ID), 0o700) }},
		{"definition written", func(e *Engine, r *record) error { return r.write(e.limbo(r.ID)) }},
		{"name claimed", func(e *Engine, r *record) error { return e.claimName(r.Name, r.ID) }},
		{"in place", func(e *Engine, r *record) error { return unix.Rename(e.limbo(r.ID), e.dir(r.ID)) }},
	}
	for n := 1; n <= len(steps); n++ {
		t.Run(steps[n-1].name, func(t *testing.T) {
			e := fresh(t)
			r := definition("web")
			for _, s := range steps[:n] {
				if err := s.do(e, r); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
			}
			list, err := e.List(t.Context(), ListOptions{All: true})
			if err != nil {
				t.Fatal(err)
			}
			if n == len(steps) {
				if len(list) != 1 || list[0].ID != r.ID || list[0].Damaged != "" {
					t.Errorf("want the container, got %+v", list)
				}
				return
			}
			if got := leftovers(t, e); len(list) != 0 || got != nil {
				t.Errorf("listed %d, left behind %v", len(list), got)
			}
			if err := e.place(t.Context(), definition("web")); err != nil {
				t.Errorf("the name is not free again: %v", err)
			}
		})
	}
}

// TestKilledRemove is the same for remove.
func TestKilledRemove(t *testing.T) {
	for n, name := range []string{"in limbo", "name released", "definition gone"} {
		t.Run(name, func(t *testing.T) {
			e := fresh(t)
			r := definition("web")
			if err := e.place(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(e.dir(r.ID), e.limbo(r.ID)); err != nil {
				t.Fatal(err)
			}
			if n >= 1 {
				if err := e.releaseName("web", r.ID); err != nil {
					t.Fatal(err)
				}
			}
			if n >= 2 {
				if err := os.Remove(filepath.Join(e.limbo(r.ID), recordFile)); err != nil {
					t.Fatal(err)
				}
			}
			list, err := e.List(t.Context(), ListOptions{All: true})
			if got := leftovers(t, e); err != nil || len(list) != 0 || got != nil {
				t.Errorf("listed %d, %v, left behind %v", len(list), err, got)
			}
		})
	}
}

// TestSweepLeavesTheLiving: who still works in limbo is left alone.
func TestSweepLeavesTheLiving(t *testing.T) {
	e := fresh(t)
	r := definition("web")
	l, err := e.enterLimbo(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	e.sweep()
	if _, err := os.Stat(e.limbo(r.ID)); err != nil {
		t.Errorf("the locked directory was swept: %v", err)
	}
	l.Unlock()
	e.sweep()
	if got := leftovers(t, e); got != nil {
		t.Errorf("left behind: %v", got)
	}
}

// TestDamaged: whatever happens to the files of one container, it is listed, can be removed, and harms no other.
func TestDamaged(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "garbage": "\x00\x01", "half": `{"id":"a`, "another's": `{"id":"x"}`} {
		t.Run(name, func(t *testing.T) {
			e := fresh(t)
			bad, good := definition("bad"), definition("good")
			for _, r := range []*record{bad, good} {
				if err := e.place(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(e.dir(bad.ID), recordFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			list, err := e.List(t.Context(), ListOptions{All: true})
			if err != nil || len(list) != 2 {
				t.Fatalf("want both listed, got %d, %v", len(list), err)
			}
			if _, err := e.Start(t.Context(), bad.ID); !errors.Is(err, errdef.ErrCorrupt) {
				t.Errorf("start of a damaged one: want ErrCorrupt, got %v", err)
			}
			if _, err := e.Remove(t.Context(), bad.ID, RemoveOptions{}); err != nil {
				t.Errorf("remove: %v", err)
			}
			if _, err := os.Readlink(filepath.Join(e.names(), "bad")); !os.IsNotExist(err) {
				t.Errorf("its name is still claimed: %v", err)
			}
		})
	}
}

// TestRecordKeepsAll: a definition with everything set is read back as it was written.
func TestRecordKeepsAll(t *testing.T) {
	e := fresh(t)
	r := definition("all")
	fill(reflect.ValueOf(r).Elem())
	r.ID = newID()
	dir := e.dir(r.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Host.AutoRemove = true
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := e.readRecord(dir)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("want %+v\ngot %+v, %v", r, got, err)
	}
}

// TestRecordKeepsEmpty: no masked paths at all is something else than the default ones.
func TestRecordKeepsEmpty(t *testing.T) {
	e := fresh(t)
	r := definition("web")
	r.Host.MaskedPaths = []string{}
	if err := e.place(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got, err := e.readRecord(e.dir(r.ID))
	if err != nil || got.Host.MaskedPaths == nil || got.Host.ReadonlyPaths != nil {
		t.Errorf("masked %#v, read-only %#v, %v", got.Host.MaskedPaths, got.Host.ReadonlyPaths, err)
	}
}

// fill sets every field below v to something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("text\n\"\x00é")
	case reflect.Int, reflect.Int64:
		v.SetInt(-7)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), reflect.ValueOf("value"))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic(v.Type())
	}
}

func TestNewerStore(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "version"), []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := Open(root, t.TempDir(), Options{})
	if _, err := e.List(t.Context(), ListOptions{}); !errors.Is(err, errdef.ErrUnavailable) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("want a refusal, got %v", err)
	}
	if got, _ := os.ReadDir(root); len(got) != 1 {
		t.Errorf("something was written into a newer store: %v", got)
	}
}

func TestRename(t *testing.T) {
	e := fresh(t)
	a, b := definition("a1"), definition("b1")
	for _, r := range []*record{a, b} {
		if err := e.place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Rename(t.Context(), "a1", "b1"); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("to a taken name: want ErrConflict, got %v", err)
	}
	if err := e.Rename(t.Context(), "a1", "c1"); err != nil {
		t.Fatal(err)
	}
	if c, err := e.Inspect(t.Context(), "c1"); err != nil || c.ID != a.ID || c.Name != "c1" {
		t.Errorf("Inspect(c1) = %+v, %v", c, err)
	}
	if err := e.place(t.Context(), definition("a1")); err != nil {
		t.Errorf("the old name is not free: %v", err)
	}
}

// TestKilledRename: a name that a killed rename left claimed is given to who asks for it next.
func TestKilledRename(t *testing.T) {
	e := fresh(t)
	r := definition("old")
	if err := e.place(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := e.claimName("new", r.ID); err != nil { // killed before the definition was written
		t.Fatal(err)
	}
	if err := e.place(t.Context(), definition("new")); err != nil {
		t.Errorf("the name stays claimed by a container that is not called so: %v", err)
	}
	if c, err := e.Inspect(t.Context(), "old"); err != nil || c.ID != r.ID {
		t.Errorf("Inspect(old) = %+v, %v", c, err)
	}
}

// TestListEachOnce: many are read by two at once, and each comes once.
func TestListEachOnce(t *testing.T) {
	e := fresh(t)
	want := make(map[string]bool)
	for i := range 50 {
		r := definition(fmt.Sprintf("c%d", i))
		if err := e.place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		want[r.ID] = true
	}
	for range 20 {
		list, err := e.List(t.Context(), ListOptions{All: true})
		got := make(map[string]bool)
		for _, c := range list {
			got[c.ID] = true
		}
		if err != nil || len(list) != 50 || !maps.Equal(want, got) {
			t.Fatalf("want 50 different ones, got %d of which %d are different, %v", len(list), len(got), err)
		}
	}
}

func TestListFilters(t *testing.T) {
	e := fresh(t)
	web, db := definition("web"), definition("db1")
	web.Config.Labels = map[string]string{"tier": "front", "x": ""}
	db.Created = web.Created.Add(time.Second)
	for _, r := range []*record{web, db} {
		if err := e.place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		filters map[string][]string
		want    string
	}{
		{nil, "db1 web"},
		{map[string][]string{"name": {"^/web$"}}, "web"},
		{map[string][]string{"name": {"e", "d"}}, "db1 web"},
		{map[string][]string{"label": {"tier=front"}}, "web"},
		{map[string][]string{"label": {"tier=front", "y"}}, ""},
		{map[string][]string{"label": {"x"}}, "web"},
		{map[string][]string{"id": {web.ID[:5]}}, "web"},
		{map[string][]string{"status": {"created"}}, "db1 web"},
		{map[string][]string{"status": {"exited"}}, ""},
		{map[string][]string{"since": {"web"}}, "db1"},
		{map[string][]string{"before": {"db1"}}, "web"},
	} {
		list, err := e.List(t.Context(), ListOptions{All: true, Filters: tt.filters})
		var names []string
		for _, c := range list {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != tt.want {
			t.Errorf("%v: want %q, got %q, %v", tt.filters, tt.want, got, err)
		}
	}
	for key, v := range map[string]string{"nonsense": "x", "status": "asleep", "exited": "x", "name": "("} {
		if _, err := e.List(t.Context(), ListOptions{Filters: map[string][]string{key: {v}}}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("filter %s=%s: want ErrInvalid, got %v", key, v, err)
		}
	}
}

// TestForsaken: a container that removes itself at its end is removed by the next list, or by whoever asks for it, when
// the machine went down under it, and no other is.
func TestForsaken(t *testing.T) {
	t.Run("listed", func(t *testing.T) {
		testForsaken(t, func(*Engine, *record) {})
	})
	t.Run("asked for", func(t *testing.T) {
		testForsaken(t, func(e *Engine, auto *record) {
			c, err := e.get(t.Context(), auto.Name)
			if !errors.Is(err, errdef.ErrNotFound) || e.exists(auto.ID) {
				t.Errorf("want ErrNotFound, got %v, %v", c, err)
			}
		})
	})
}

func testForsaken(t *testing.T, first func(e *Engine, auto *record)) {
	e := fresh(t)
	ended := &monitor.State{Status: monitor.StatusRunning, Pid: 1, StartedAt: time.Now(), Starts: 1}
	auto, kept, young := definition("auto"), definition("kept"), definition("young")
	kept.Host.AutoRemove = false
	for r, s := range map[*record]*monitor.State{auto: ended, kept: ended, young: nil} {
		if err := e.place(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if s != nil {
			if err := monitor.WriteState(e.dir(r.ID), s, state.Write); err != nil {
				t.Fatal(err)
			}
		}
	}
	first(e, auto)
	list, err := e.List(t.Context(), ListOptions{All: true})
	var names []string
	for _, c := range list {
		names = append(names, c.Name+" "+c.State.Status)
	}
	slices.Sort(names)
	if want := []string{"kept exited", "young created"}; err != nil || !slices.Equal(want, names) {
		t.Errorf("want %q, got %q, %v", want, names, err)
	}
	if e.exists(auto.ID) {
		t.Error("it is still there")
	}
}
