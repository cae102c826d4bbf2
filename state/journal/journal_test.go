package journal

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func event(writer, n int) *Event {
	return &Event{Type: "container", Action: strconv.Itoa(n), ID: strconv.Itoa(writer), Attributes: map[string]string{"name": "web"}}
}

// all reads a range to its end.
func all(t *testing.T, j *Journal, rg Range) (actions []string) {
	t.Helper()
	r, err := j.Read(rg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return actions
		}
		if err != nil {
			t.Fatal(err)
		}
		actions = append(actions, e.Action)
	}
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestRange(t *testing.T) {
	j := Open(filepath.Join(t.TempDir(), "events"))
	want(t, all(t, j, Range{}))
	for i := range 5 {
		e := event(0, i)
		e.Nano = int64(1000 + i)
		if err := j.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	at := func(n int64) time.Time { return time.Unix(0, n) }
	want(t, all(t, j, Range{}), "0", "1", "2", "3", "4")
	want(t, all(t, j, Range{Since: at(1003)}), "3", "4")
	want(t, all(t, j, Range{Until: at(1001)}), "0", "1")
	want(t, all(t, j, Range{Since: at(1001), Until: at(1001)}), "1")
	want(t, all(t, j, Range{Tail: true}))
	want(t, all(t, j, Range{With: `"3"`}), "3")
	want(t, all(t, j, Range{Until: time.Now().Add(50 * time.Millisecond), Follow: true}), "0", "1", "2", "3", "4")
}

// TestCrowd has many writers, each with a descriptor of its own as processes have, and followers that begin before,
// over rotations.
func TestCrowd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	const writers, each, followers = 8, 200, 3
	var reading, writing sync.WaitGroup
	for range followers {
		j := Open(dir)
		r, err := j.Read(Range{Tail: true, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			defer r.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var next [writers]int
			for n := range writers * each {
				e, err := r.Next(ctx)
				if err != nil {
					t.Errorf("after %d events: %v", n, err)
					return
				}
				w, _ := strconv.Atoi(e.ID)
				if e.Action != strconv.Itoa(next[w]) {
					t.Errorf("writer %d: event %s, want %d", w, e.Action, next[w])
					return
				}
				next[w]++
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			j := Open(dir)
			j.maxFile, j.maxFiles = 2000, 1000
			for i := range each {
				if err := j.Append(event(w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	reading.Wait()
	j := Open(dir)
	numbers, err := j.numbers()
	if err != nil || len(numbers) < 3 {
		t.Errorf("%d sealed files, want 3 or more (%v)", len(numbers), err)
	}
	if got := len(all(t, j, Range{})); got != writers*each {
		t.Errorf("%d events on disk, want %d", got, writers*each)
	}
}

func TestBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	j := Open(dir)
	j.maxFile, j.maxFiles = 1000, 2
	r, err := j.Read(Range{Tail: true, Follow: true}) // sleeps while its file goes
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 500 {
		if err := j.Append(event(0, i)); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if len(entries) != 3 || size > 4000 {
		t.Errorf("%d files of %d bytes, want 3 of less than 4000", len(entries), size)
	}
	left := all(t, j, Range{})
	if left[len(left)-1] != "499" {
		t.Errorf("the last event is %s, want 499", left[len(left)-1])
	}
	e, err := r.Next(t.Context())
	if err != nil || e.Action != left[0] {
		t.Errorf("a reader that slept goes on with %v (%v), want %s", e, err, left[0])
	}
}

// TestTorn leaves what power cuts, full disks and killed processes do.
func TestTorn(t *testing.T) {
	for name, tail := range map[string]string{
		"half a line": `{"time":12,"type":"conta`,
		"zeros":       "\x00\x00\x00\x00\x00",
		"no newline":  `{"time":12,"type":"container","action":"x","id":"1"}`,
		"garbage":     "null\n[]\n{}\n\n\xff\n",
		"long line":   strings.Repeat("x", 5*MaxEvent),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := Open(dir)
			if err := j.Append(event(0, 1)); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(filepath.Join(dir, currentName), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString(tail)
			f.Close()
			if err := j.Append(event(0, 2)); err != nil {
				t.Fatal(err)
			}
			got := all(t, j, Range{Since: time.Unix(1, 0)})
			want(t, got, "1", "2")
		})
	}
}

// TestHalfRotated goes on where a process was killed between sealing a file and putting the next one in place.
func TestHalfRotated(t *testing.T) {
	for _, linked := range []bool{false, true} {
		dir := t.TempDir()
		j := Open(dir)
		if err := j.Append(event(0, 1)); err != nil {
			t.Fatal(err)
		}
		r, err := j.Read(Range{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		path := filepath.Join(dir, currentName)
		if err := os.Chmod(path, sealedMode); err != nil {
			t.Fatal(err)
		}
		if linked {
			if err := os.Link(path, j.sealed(1)); err != nil {
				t.Fatal(err)
			}
		}
		for i := 2; i < 4; i++ {
			if err := j.Append(event(0, i)); err != nil {
				t.Fatal(err)
			}
		}
		want(t, all(t, j, Range{}), "1", "2", "3")
		for i := 1; i < 4; i++ {
			if e, err := r.Next(t.Context()); err != nil || e.Action != strconv.Itoa(i) {
				t.Errorf("followed %v (%v), want %d", e, err, i)
			}
		}
	}
}

// TestStoppedRotation: a process that was stopped while it rotates holds up nobody for long.
func TestStoppedRotation(t *testing.T) {
	dir := t.TempDir()
	j := Open(dir)
	if err := j.Append(event(0, 1)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := j.Append(event(0, 2)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < sealWait || d > 5*sealWait {
		t.Errorf("append took %v, want about %v", d, sealWait)
	}
	want(t, all(t, j, Range{}), "1", "2")
}

func TestLongEvent(t *testing.T) {
	j := Open(t.TempDir())
	e := &Event{Type: "container", Action: "start", ID: "1", Attributes: map[string]string{"name": "web", "label": strings.Repeat("x", 1<<20)}}
	if err := j.Append(e); err != nil {
		t.Fatal(err)
	}
	r, err := j.Read(Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := r.Next(t.Context())
	if err != nil || got.Attributes["name"] != "web" || len(got.Attributes) != 1 {
		t.Errorf("read %v (%v), want only the name", got, err)
	}
	if len(e.Attributes) != 2 {
		t.Error("the caller's event was changed")
	}
}

// TestWithoutInotify follows by looking from time to time.
func TestWithoutInotify(t *testing.T) {
	j := Open(t.TempDir())
	j.watch.waiters, j.watch.changed, j.watch.done = 1, make(chan struct{}), make(chan struct{})
	go j.watch.poll(j.watch.done)
	defer (&waiter{&j.watch}).leave()
	r, err := j.Read(Range{Tail: true, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := j.Append(event(0, 1)); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Next(t.Context()); err != nil || e.Action != "1" {
		t.Errorf("followed %v (%v)", e, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := r.Next(ctx); err == nil || err.Error() != "enough" {
		t.Errorf("after its end: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"time":1,"type":"container","action":"die","id":"a","attributes":{"exitCode":"0"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := decode(line)
		if err == nil && (e.Nano == 0 || e.Type == "") {
			t.Errorf("%q is no event", line)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	j := Open(b.TempDir())
	for b.Loop() {
		if err := j.Append(event(0, 1)); err != nil {
			b.Fatal(err)
		}
	}
}
