package trash

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hull/errdef"
)

// put puts a thing of one file into the trash.
func put(t *testing.T, s *Store, r Record) int {
	t.Helper()
	if r.Kind == "" {
		r.Kind = Volume
	}
	if r.Removed.IsZero() {
		r.Removed = time.Now()
	}
	e, err := s.Begin(&r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.Path("thing"), []byte(r.Name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Keep(); err != nil {
		t.Fatal(err)
	}
	return e.Number
}

func names(t *testing.T, s *Store) (out string) {
	t.Helper()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Damaged != "" {
			out += "?"
		}
		out += i.Name
	}
	if left, _ := readNames(s.limbo("")); len(left) > 0 {
		t.Errorf("left in limbo: %v", left)
	}
	return out
}

func TestInAndOut(t *testing.T) {
	s := Open(t.TempDir())
	if last, err := s.Last(); err != nil || last != nil {
		t.Errorf("an empty trash has %v, %v", last, err)
	}
	for _, n := range []string{"a", "b", "c"} {
		put(t, s, Record{Name: n})
	}
	if got := names(t, s); got != "abc" {
		t.Errorf("got %s", got)
	}
	e, err := s.Take(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(e.Path("thing")); string(got) != "b" {
		t.Errorf("got %s, %v", got, err)
	}
	if err := e.Back(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s); got != "abc" {
		t.Errorf("got %s", got)
	}
	if e, err = s.Take(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	e.Done()
	if err := s.Remove(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), 1); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if got := names(t, s); got != "b" {
		t.Errorf("got %s", got)
	}
}

// Of fifty who want one thing one gets it.
func TestOneWins(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, Record{Name: "a"})
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			e, err := s.Take(t.Context(), 1)
			if err == nil {
				won.Add(1)
				e.Done()
			} else if !errors.Is(err, errdef.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d got it", won.Load())
	}
}

// Fifty at once come in under fifty numbers.
func TestTogether(t *testing.T) {
	s := Open(t.TempDir())
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { put(t, s, Record{Name: "x"}) })
	}
	wg.Wait()
	if got := names(t, s); len(got) != 50 {
		t.Errorf("%d are there", len(got))
	}
}

func TestLast(t *testing.T) {
	s := Open(t.TempDir())
	for _, r := range []Record{{Name: "a", Batch: "1"}, {Name: "b"}, {Name: "c", Batch: "2"}, {Name: "d", Batch: "2"}} {
		put(t, s, r)
	}
	for _, want := range []string{"dc", "b", "a", ""} {
		last, err := s.Last()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, i := range last {
			got += i.Name
			if err := s.Remove(t.Context(), i.Number); err != nil {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}

// What a killed process left is finished with the thing in it, and forgotten without.
func TestSweep(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, Record{Name: "a"})
	put(t, s, Record{Name: "b"})
	put(t, s, Record{Name: "c"})
	leave := func(e *Entry, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		e.lock.Unlock()
	}
	whole, err := s.Begin(&Record{Kind: Volume, Name: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(whole.Path("thing"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	leave(whole, nil)
	e, err := s.Begin(&Record{Kind: Volume, Name: "e"})
	leave(e, err)
	e, err = s.Take(t.Context(), 1)
	leave(e, err)
	e, err = s.Take(t.Context(), 2)
	if err := os.Remove(e.Path("thing")); err != nil {
		t.Fatal(err)
	}
	leave(e, err)
	e, err = s.take(t.Context(), 3, goneName+"x")
	leave(e, err)
	busy, err := s.Begin(&Record{Kind: Volume, Name: "busy"})
	if err != nil {
		t.Fatal(err)
	}
	s.Sweep(func(e *Entry, _ bool) bool {
		_, err := os.Lstat(e.Path("thing"))
		return err == nil
	})
	if _, err := os.Lstat(busy.Path(recordFile)); err != nil {
		t.Errorf("somebody at work was disturbed: %v", err)
	}
	busy.Drop()
	if got := names(t, s); got != "ad" {
		t.Errorf("got %s", got)
	}
}

// TestLeft: what leaves the list while somebody reads it is neither damaged nor as old as can be.
func TestLeft(t *testing.T) {
	s := Open(t.TempDir())
	n := put(t, s, Record{Name: "a"})
	if i := s.listed(n); i == nil || i.Name != "a" {
		t.Fatalf("got %+v", i)
	}
	e, err := s.Take(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if i := s.listed(n); i != nil {
		t.Errorf("want nothing, got %+v", i)
	}
	if err := e.Back(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.path(n), recordFile)); err != nil {
		t.Fatal(err)
	}
	if i := s.listed(n); i == nil || i.Damaged == "" || i.Removed.IsZero() {
		t.Errorf("want it damaged, got %+v", i)
	}
}

// TestNumberOfKilled: what comes in does not get the number of what a killed process took out, which comes back under it.
func TestNumberOfKilled(t *testing.T) {
	s := Open(t.TempDir())
	n := put(t, s, Record{Name: "a"})
	killed, err := s.Take(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	killed.lock.Unlock()
	e, err := s.Begin(&Record{Kind: Volume, Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Keep(); err != nil {
		t.Fatal(err)
	}
	s.Sweep(func(*Entry, bool) bool { return true })
	if got := names(t, s); got != "ab" {
		t.Errorf("want a and b, got %q", got)
	}
	// Should somebody have the number all the same, it comes back under another one.
	if killed, err = s.Take(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.path(e.Number), s.path(n)); err != nil {
		t.Fatal(err)
	}
	if err := killed.Back(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s); got != "ba" {
		t.Errorf("want b and a, got %q", got)
	}
}

func TestLimits(t *testing.T) {
	now := time.Now()
	all := Limits{Keep: time.Hour, Size: 100, Count: 5}
	for _, c := range []struct {
		what    string
		limits  Limits
		measure int64
		want    string
	}{
		{"nothing is over", all, 10, "abc"},
		{"time", Limits{Keep: 90 * time.Second, Size: 100, Count: 5}, 10, "bc"},
		{"count", Limits{Keep: time.Hour, Size: 100, Count: 2}, 10, "bc"},
		{"size", Limits{Keep: time.Hour, Size: 65, Count: 5}, 10, "bc"},
		{"one that is too large goes alone", Limits{Keep: time.Hour, Size: 65, Count: 5}, 66, "ab"},
		{"space", Limits{Keep: time.Hour, Size: 100, Count: 5, Free: 1 << 61}, 10, ""},
	} {
		s := Open(t.TempDir())
		put(t, s, Record{Name: "a", Size: 30, Removed: now.Add(-2 * time.Minute)})
		put(t, s, Record{Name: "b", Size: 30, Removed: now.Add(-time.Minute)})
		put(t, s, Record{Name: "c", Size: -1, Removed: now})
		if _, err := s.Tidy(t.Context(), c.limits, func(*Item) int64 { return c.measure }); err != nil {
			t.Fatal(err)
		}
		if got := names(t, s); got != c.want {
			t.Errorf("%s: want %s, got %s", c.what, c.want, got)
		}
	}
}

// A clock that was set back does not keep things for years, and a later removal is later all the same.
func TestClock(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, Record{Name: "a", Removed: time.Now().AddDate(1, 0, 0)})
	put(t, s, Record{Name: "b"})
	if last, _ := s.Last(); len(last) != 1 || last[0].Name != "b" {
		t.Errorf("the last is %+v", last)
	}
	for _, keep := range []time.Duration{time.Hour, 0} {
		if _, err := s.Tidy(t.Context(), Limits{Keep: keep, Size: 100, Count: 5}, nil); err != nil {
			t.Fatal(err)
		}
		if list, _ := s.List(); keep > 0 && (len(list) != 2 || time.Until(list[0].Removed) > time.Minute) {
			t.Errorf("got %+v", list[0])
		}
	}
	if got := names(t, s); got != "" {
		t.Errorf("left: %s", got)
	}
}

// A damaged record is listed, and can be removed.
func TestDamaged(t *testing.T) {
	for _, text := range []string{"", "{", `{"kind":"spaceship"}`, `[]`} {
		s := Open(t.TempDir())
		n := put(t, s, Record{Name: "a"})
		put(t, s, Record{Name: "b"})
		if err := os.WriteFile(filepath.Join(s.path(n), recordFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Tidy(t.Context(), Limits{Keep: time.Hour, Size: 100, Count: 5}, func(*Item) int64 { return 1 }); err != nil {
			t.Fatal(err)
		}
		if got := names(t, s); got != "?b" {
			t.Errorf("%q: got %s", text, got)
		}
		if err := s.Remove(t.Context(), n); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if got := names(t, s); got != "b" {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

// at lets the store have another time.
func (s *Store) at(m moment) *Store {
	s.now = func() moment { return m }
	return s
}

// A clock that is wrong takes nothing away: not one that was set ahead while the machine runs, nor one that the machine has
// just come up with. What was removed long ago goes, whatever became of the clock since.
func TestClockAhead(t *testing.T) {
	day := 24 * time.Hour
	begin := moment{time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), "first", 5 * time.Hour}
	for _, c := range []struct {
		what string
		now  moment
		want string
	}{
		{"a minute later", moment{begin.wall.Add(time.Minute), "first", begin.up + time.Minute}, "a"},
		{"a day later", moment{begin.wall.Add(day), "first", begin.up + day}, ""},
		{"set ahead by two days", moment{begin.wall.Add(2 * day), "first", begin.up + time.Minute}, "a"},
		{"set back by two days, after one", moment{begin.wall.Add(-day), "first", begin.up + day}, ""},
		{"come up with a clock ahead", moment{begin.wall.Add(2 * day), "second", time.Minute}, "a"},
		{"come up two days later", moment{begin.wall.Add(2 * day), "second", 2 * time.Hour}, ""},
		{"come up an hour later", moment{begin.wall.Add(time.Hour), "second", 2 * time.Hour}, "a"},
		{"nobody knows the boot", moment{wall: begin.wall.Add(2 * day)}, ""},
	} {
		s := Open(t.TempDir()).at(begin)
		put(t, s, Record{Name: "a", Removed: begin.wall})
		if _, err := s.at(c.now).Tidy(t.Context(), Limits{Keep: day, Size: 100, Count: 5}, nil); err != nil {
			t.Fatal(err)
		}
		if got := names(t, s); got != c.want {
			t.Errorf("%s: want %q, got %q", c.what, c.want, got)
		}
	}
}
