package image

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// An image that gets a name while a prune of those without one is under way keeps the name.
func TestPruneAgainstTag(t *testing.T) {
	s := memoryStore(t)
	one, two := newSample(t, "one"), newSample(t, "two")
	dangling := func(i *Summary) bool { return len(i.RepoTags) == 0 }
	for round := range 40 {
		load(t, s, one.docker(t, "app"))
		load(t, s, two.docker(t, "app")) // one has no name any more
		var wg sync.WaitGroup
		start := make(chan struct{})
		var tagged, pruned error
		wg.Go(func() {
			<-start
			tagged = s.Tag(t.Context(), one.id(t), "saved", "")
		})
		wg.Go(func() {
			<-start
			_, pruned = s.Prune(t.Context(), PruneOptions{Wanted: dangling})
		})
		close(start)
		wg.Wait()
		if pruned != nil {
			t.Fatal(pruned)
		}
		img, err := s.Resolve(t.Context(), "saved")
		switch {
		case tagged == nil && (err != nil || img.ID != one.id(t)):
			t.Fatalf("round %d: the tag was made, and then: %+v, %v", round, img, err)
		case tagged != nil && !errors.Is(tagged, errdef.ErrNotFound) && !errors.Is(tagged, errdef.ErrCorrupt):
			t.Fatalf("round %d: %v", round, tagged)
		case tagged == nil:
			if _, err := s.Remove(t.Context(), "saved", RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What Wanted sees is how things are when nobody can change them any more.
func TestPruneChoosesUnderTheLock(t *testing.T) {
	s := memoryStore(t)
	one, two := newSample(t, "one"), newSample(t, "two")
	load(t, s, one.docker(t, "app"))
	load(t, s, two.docker(t, "app"))
	asked := 0
	_, err := s.Prune(t.Context(), PruneOptions{Wanted: func(i *Summary) bool {
		asked++
		if l, ok, err := state.TryLock(s.root + "/refs"); ok || err != nil {
			l.Unlock()
			t.Errorf("references can change while a prune decides: %v", err)
		}
		return false
	}})
	if err != nil || asked != 2 {
		t.Errorf("asked about %d images, %v", asked, err)
	}
}

// Who waits for the store in vain is told for whom.
func TestUpdateSaysWhoHoldsIt(t *testing.T) {
	s := memoryStore(t)
	load(t, s, newSample(t, "one").docker(t, "app"))
	l, err := state.Lock(t.Context(), s.root+"/refs")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("waited long enough"))
	defer cancel()
	err = s.update(ctx, func() error { return s.changeRef("tag", refChange{ref: ref.Ref{}}) })
	if !errors.Is(err, errdef.ErrDeadline) || !strings.Contains(err.Error(), "waited long enough") {
		t.Errorf("got %v", err)
	}
}
