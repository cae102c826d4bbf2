package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
)

// newVersions loads an image under the tag app for each mark, and returns their ids by mark.
func newVersions(t *testing.T, s *Store, marks ...string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, mark := range marks {
		smp := newSample(t, mark)
		smp.config.Run.Labels[LabelRevision] = "r" + mark
		if _, err := s.Load(t.Context(), bytes.NewReader(smp.docker(t, "app")), LoadOptions{By: "load " + mark}); err != nil {
			t.Fatal(err)
		}
		ids[mark] = smp.id(t)
	}
	return ids
}

func TestRollback(t *testing.T) {
	s := newStore(t)
	ids := newVersions(t, s, "1", "2", "3")
	step := func(to, want string) *Rollback {
		t.Helper()
		was := resolve(t, s, "app").ID
		plan, err := s.Rollback(t.Context(), "app", to, true)
		if err != nil {
			t.Fatalf("rollback %s: %v", to, err)
		}
		if resolve(t, s, "app").ID != was {
			t.Fatal("a dry run changed the reference")
		}
		r, err := s.Rollback(t.Context(), "app", to, false)
		if err != nil {
			t.Fatalf("rollback %s: %v", to, err)
		}
		if *r != *plan {
			t.Errorf("the dry run said %+v, it was %+v", plan, r)
		}
		if got := resolve(t, s, "app").ID; got != ids[want] || r.To != got || r.From != was {
			t.Fatalf("rollback %s: want version %s (%s), got %s, said %+v", to, want, ids[want], got, r)
		}
		return r
	}
	refuse := func(to string, kind error, words string) {
		t.Helper()
		was := resolve(t, s, "app").ID
		_, err := s.Rollback(t.Context(), "app", to, false)
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), words) {
			t.Errorf("rollback %s: want %v with %q, got %v", to, kind, words, err)
		}
		if resolve(t, s, "app").ID != was {
			t.Errorf("rollback %s failed and changed the reference", to)
		}
	}
	if r := step("", "2"); r.Place != "@{1}" || r.Ref != "app:latest" {
		t.Errorf("got %+v", r)
	}
	step("", "1") // twice is two versions back
	refuse("", errdef.ErrNotFound, "no earlier version")
	step("@{1}", "2") // the rollback taken back
	step("@{2}", "2")
	if r, err := s.Rollback(t.Context(), "app", "@{0}", false); err != nil || !r.AlreadyThere {
		t.Errorf("got %+v, %v", r, err)
	}
	step(ids["3"], "3")
	step("", "2")
	step(strings.TrimPrefix(ids["1"], "sha256:")[:12], "1")
	step(strings.TrimPrefix(ids["3"], "sha256:")[:12], "3")
	if _, err := s.Rollback(t.Context(), "app@{1}", "", false); err != nil || resolve(t, s, "app").ID != ids["1"] {
		t.Errorf("name@{1}: %v", err)
	}
	newVersions(t, s, "4")
	step("", "1") // 4 came on top of 1
	log := mustLog(t, s, "app")
	if by := log[len(log)-1].By; by != "rollback to @{1}" {
		t.Errorf("got by %q", by)
	}
	refuse("@{99}", errdef.ErrNotFound, "does not go back")
	refuse("@{yesterday}", errdef.ErrNotFound, "does not go back")
	refuse("other@{1}", errdef.ErrInvalid, "another reference")
	refuse("@{x}", errdef.ErrInvalid, "invalid selector")
	refuse("nonsense", errdef.ErrInvalid, "is no version")
	refuse("0123456789ab", errdef.ErrNotFound, "was never")
	for _, name := range []string{"app@" + ids["1"], "app@{1}@{2}"} {
		if _, err := s.Rollback(t.Context(), name, "", false); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.Rollback(t.Context(), "nosuch", "", false); !errors.Is(err, errdef.ErrNotFound) || err.Error() != "No such image: nosuch:latest" {
		t.Errorf("got %v", err)
	}
	checkLayout(t, s)
}

// A removed tag comes back, and a removed image does not.
func TestRollbackOfRemoved(t *testing.T) {
	s := newStore(t)
	ids := newVersions(t, s, "1", "2")
	if err := s.Tag(t.Context(), "app", "keep", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "app", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Rollback(t.Context(), "app", "", false)
	if err != nil || r.From != "" || r.To != ids["2"] || resolve(t, s, "app").ID != ids["2"] {
		t.Fatalf("got %+v, %v", r, err)
	}
	if _, err := s.Remove(t.Context(), ids["1"], RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Rollback(t.Context(), "app", "", false)
	if !errors.Is(err, errdef.ErrNotFound) || !strings.Contains(err.Error(), "has been removed from the store") {
		t.Errorf("got %v", err)
	}
}

func TestVersions(t *testing.T) {
	s := newStore(t)
	ids := newVersions(t, s, "1", "22", "333")
	if _, err := s.Remove(t.Context(), ids["1"], RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pin(t.Context(), "app@{1}", "tests"); err != nil {
		t.Fatal(err)
	}
	list, err := s.Versions("app", 0)
	if err != nil || len(list) != 3 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for i, want := range []Version{
		{Ref: "app:latest", N: 0, By: "load 333", ID: ids["333"], Revision: "r333", Present: true, HasChange: true, Change: 2},
		{Ref: "app:latest", N: 1, By: "load 22", ID: ids["22"], Revision: "r22", Present: true, Pinned: true},
		{Ref: "app:latest", N: 2, By: "load 1", Revision: "r1"}, // the log knows it
	} {
		got := list[i]
		if got.Time.IsZero() || got.Target == "" {
			t.Errorf("got %+v", got)
		}
		got.Time, got.Target, got.Size = time.Time{}, "", 0
		if got != want {
			t.Errorf("want %+v\n got %+v", want, got)
		}
	}
	if list, err := s.Versions("app", 1); err != nil || len(list) != 1 || list[0].N != 0 || !list[0].HasChange {
		t.Errorf("limit: got %+v, %v", list, err)
	}
	if err := s.Tag(t.Context(), "app@{1}", "a/b:c", "tag app@{1}"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "a/b:c", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	list, err = s.Versions("a/b:c", 0) // the log of a removed tag
	if err != nil || len(list) != 2 || list[0].Target != "" || list[0].By != "rmi" || list[1].By != "tag app@{1}" {
		t.Errorf("got %+v, %v", list, err)
	}
	list, err = s.Versions("", 3)
	if err != nil || len(list) != 3 || list[0].Ref != "a/b:c" || list[2].Ref != "app:latest" {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, err := s.Versions("nosuch", 0); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Versions("app@{1}", 0); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestLogLine(t *testing.T) {
	old, young := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	at := time.Date(2026, 11, 23, 10, 30, 0, 123456789, time.UTC)
	for _, e := range []LogEntry{
		{Time: at, New: young, By: "load"},
		{Time: at, Old: old, New: young, Revision: "v1.2-3-gabcdef", By: "tag app@{1}"},
		{Time: at, Old: old, New: young, Revision: "100% a b\n\x1b[31m\xff = ü", By: ""},
		{Time: at, Old: old, By: "rmi"},
	} {
		line := e.line()
		if got, ok := parseLogLine(strings.TrimSuffix(line, "\n")); !ok || got != e || strings.Count(line, "\n") != 1 {
			t.Errorf("want %+v\n got %+v of %q", e, got, line)
		}
	}
	long := LogEntry{Time: at, New: young, Revision: strings.Repeat("x", maxRevision+1), By: "load"}
	if got, ok := parseLogLine(strings.TrimSuffix(long.line(), "\n")); !ok || got.Revision != "" || got.By != "load" {
		t.Errorf("got %+v", got)
	}
	for rest, want := range map[string]LogEntry{
		"import a=b":           {By: "import a=b"}, // as older versions wrote
		"revision=%zz load":    {By: "load"},
		"revision=%4 load":     {By: "load"},
		"revision=r1":          {Revision: "r1"},
		"revision= load":       {By: "load"},
		"revision=a%20b  load": {Revision: "a b", By: " load"},
	} {
		got, ok := parseLogLine(at.Format(time.RFC3339Nano) + " - " + young + " " + rest)
		want.Time, want.New = at, young
		if !ok || got != want {
			t.Errorf("%q: want %+v, got %+v", rest, want, got)
		}
	}
}

func TestPins(t *testing.T) {
	s := newStore(t)
	ids := newVersions(t, s, "1", "2")
	p, err := s.Pin(t.Context(), "app@{1}", "shipped\nto all")
	if err != nil || p.ID != ids["1"] || p.Reason != "shipped to all" {
		t.Fatalf("got %+v, %v", p, err)
	}
	prune := func() string {
		t.Helper()
		o := PruneOptions{Wanted: func(*Summary) bool { return true }, Dry: true}
		plan, err := s.Prune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		o.Dry = false
		done, err := s.Prune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(plan.Deleted, done.Deleted) {
			t.Errorf("the plan was %v, done was %v", plan.Deleted, done.Deleted)
		}
		return fmt.Sprint(done.Deleted)
	}
	if got := prune(); strings.Contains(got, ids["1"]) || !strings.Contains(got, ids["2"]) {
		t.Errorf("prune with a pin: %s", got)
	}
	checkImage(t, s, resolve(t, s, ids["1"]), newSampleWithRevision(t, "1"))
	if _, err := s.Remove(t.Context(), ids["1"], RemoveOptions{}); !errors.Is(err, errdef.ErrConflict) || !strings.Contains(err.Error(), "pinned (shipped to all)") {
		t.Errorf("rmi of a pinned image: %v", err)
	}
	if err := s.Tag(t.Context(), ids["1"], "one", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), ids["1"], "two", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "one", RemoveOptions{}); err != nil { // another name is left
		t.Error(err)
	}
	if _, err := s.Remove(t.Context(), "two", RemoveOptions{}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("rmi of the last name: %v", err)
	}
	if resolve(t, s, "two").ID != ids["1"] {
		t.Error("the refused rmi took the name away")
	}
	if pins := s.Pins(); len(pins) != 1 || pins[0].ID != ids["1"] || pins[0].Name != "app@{1}" || pins[0].Size == 0 {
		t.Errorf("got %+v", pins)
	}
	if _, err := s.Unpin(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unpin(t.Context(), "two"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Pin(t.Context(), "two", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "two", RemoveOptions{Force: true}); err != nil {
		t.Errorf("rmi -f of a pinned image: %v", err)
	}
	if pins := s.Pins(); len(pins) != 0 {
		t.Errorf("left: %+v", pins)
	}
	wantEmpty(t, s)
}

func newSampleWithRevision(t *testing.T, mark string) sample {
	smp := newSample(t, mark)
	smp.config.Run.Labels[LabelRevision] = "r" + mark
	return smp
}

// A pin whose text is damaged still pins, and one whose image is gone keeps nothing.
func TestDamagedPin(t *testing.T) {
	s := newStore(t)
	ids := newVersions(t, s, "1")
	if _, err := s.Pin(t.Context(), "app", ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.pinPath(ids["1"]), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "app", RemoveOptions{}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("got %v", err)
	}
	stray := "sha256:" + fmt.Sprintf("%064d", 7)
	if err := os.WriteFile(s.pinPath(stray), []byte(`{"target":"`+resolve(t, s, "app").Target+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "app", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	os.Remove(s.pinPath(stray))
	wantEmpty(t, s)
}

// What before answers is only ever a version with an image, and never the present one.
func FuzzBefore(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add([]byte{1, 2, 0, 0x82, 0x81, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 1000 {
			return
		}
		var log []LogEntry
		old := ""
		for _, b := range script {
			e := LogEntry{Old: old, By: "load"}
			if n := b & 0x7f; n != 0 {
				e.New = fmt.Sprintf("sha256:%064x", n)
			}
			if b&0x80 != 0 {
				e.By = byRollback + " to @{1}"
			}
			if e.New == old {
				continue
			}
			log, old = append(log, e), e.New
		}
		at, err := before(ref.Ref{Registry: "docker.io", Repo: "library/app", Tag: "latest"}, log)
		if err == nil && (log[at].New == "" || log[at].New == old) {
			t.Errorf("%d of %+v", at, log)
		}
	})
}

func TestUntag(t *testing.T) {
	s := newStore(t)
	ids := newVersions(t, s, "1")
	for _, name := range []string{"a:1", "b:2"} {
		if err := s.Tag(t.Context(), "app", name, ""); err != nil {
			t.Fatal(err)
		}
	}
	before := s.LastTagged(ids["1"])
	if time.Since(before) > time.Hour || before.IsZero() {
		t.Errorf("tagged at %v", before)
	}
	if _, _, err := s.Untag(t.Context(), "app", []string{"a:1", "nosuch"}); !errors.Is(err, errdef.ErrNotFound) || resolve(t, s, "a:1").ID != ids["1"] {
		t.Errorf("a name that is not the image's: %v", err)
	}
	id, gone, err := s.Untag(t.Context(), "app", []string{"a:1", "a:1"})
	if err != nil || id != ids["1"] || !slices.Equal(gone, []string{"a:1"}) {
		t.Errorf("got %s %v, %v", id, gone, err)
	}
	_, gone, err = s.Untag(t.Context(), ids["1"], nil)
	slices.Sort(gone)
	if err != nil || !slices.Equal(gone, []string{"app:latest", "b:2"}) {
		t.Errorf("got %v, %v", gone, err)
	}
	if resolve(t, s, ids["1"]); !s.LastTagged(ids["1"]).IsZero() {
		t.Error("it has a tag")
	}
	if log := mustLog(t, s, "app"); log[len(log)-1].By != "untag" {
		t.Errorf("got %+v", log)
	}
}

func TestResolveFor(t *testing.T) {
	s := newStore(t)
	smp := newSample(t, "arm")
	smp.config.Architecture, smp.config.Variant = "arm", "v7"
	load(t, s, smp.docker(t, "arm"))
	for platform, ok := range map[string]bool{"": true, "linux/arm": true, "linux/arm/v7": true, "arm": true, "linux/arm/v6": false, "linux/amd64": false} {
		for _, name := range []string{"arm", smp.id(t)} {
			img, err := s.ResolveFor(t.Context(), name, platform)
			if ok && (err != nil || img.ID != smp.id(t)) || !ok && !errors.Is(err, errdef.ErrNotFound) {
				t.Errorf("%s %q: got %v", name, platform, err)
			}
		}
	}
	if _, err := s.ResolveFor(t.Context(), "arm", "a/b/c/d"); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
