package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
)

// Rollback is a reference's return to an earlier version.
type Rollback struct {
	Ref          string // in familiar form
	From, To     string // ids of the images; From is "" when the reference was gone
	FromTarget   string // digests that the reference named and names
	ToTarget     string
	Place        string // where To was found: "@{1}"
	Since        time.Time
	AlreadyThere bool // nothing had to change
}

// byRollback begins the command of a log entry that returned to an earlier version.
const byRollback = "rollback"

// Rollback lets the reference name, which may be gone, name what it did at the place to: "@{1}", "@{2h}", "@{yesterday}",
// or an image id or digest that is in its log. An empty to is the version before the last change that was not itself
// rolled back: a second rollback goes one version further back. The change is atomic and is an entry of the log. With dry
// nothing is changed.
func (s *Store) Rollback(ctx context.Context, name, to string, dry bool) (*Rollback, error) {
	r, to, err := rollbackName(name, to)
	if err != nil {
		return nil, err
	}
	lease, err := s.Lease(ctx) // what is found stays until the reference keeps it
	if err != nil {
		return nil, err
	}
	defer lease.Unlock()
	if dry {
		return s.planRollback(r, to)
	}
	var out *Rollback
	err = s.update(ctx, func() error {
		if out, err = s.planRollback(r, to); err != nil || out.AlreadyThere {
			return err
		}
		by := fmt.Sprintf("%s to %s", byRollback, out.Place)
		return s.changeRef(by, refChange{r, ref.Digest(out.ToTarget)})
	})
	return out, err
}

// rollbackName takes name@{1} apart if the place was given that way.
func rollbackName(name, to string) (ref.Ref, string, error) {
	if base, _, ok, err := ref.Cut(name); ok {
		if err != nil {
			return ref.Ref{}, "", err
		}
		if to != "" {
			return ref.Ref{}, "", errdef.Invalid("%s and %s are two versions: to which?", name, to)
		}
		name, to = base, name[len(base):]
	}
	r, err := taggable(name)
	return r, to, err
}

func (s *Store) planRollback(r ref.Ref, to string) (*Rollback, error) {
	log, now, err := s.effectiveLog(r)
	if errors.Is(err, errdef.ErrNotFound) {
		if _, err := s.readRef(r); err == nil {
			return nil, errdef.NotFound("%s has no log, so nothing says what it was before: hull system check --repair begins one", r.Familiar())
		}
		return nil, noSuchImage(r.Familiar())
	}
	if err != nil {
		return nil, err
	}
	at, err := s.version(r, log, to)
	if err != nil {
		return nil, err
	}
	e := log[at]
	out := &Rollback{
		Ref: r.Familiar(), FromTarget: string(now), ToTarget: e.New, To: s.idOf(ref.Digest(e.New)),
		Place: fmt.Sprintf("@{%d}", len(log)-1-at), Since: e.Time, AlreadyThere: e.New == string(now),
	}
	if now != "" {
		out.From = s.idOf(now)
	}
	if out.To == "" {
		return nil, errdef.NotFound("%s%s was %s, which has been removed from the store: hull image log %s shows what is there", out.Ref, out.Place, ref.Digest(e.New).Short(), out.Ref)
	}
	if _, err := s.readRecord(out.To); err != nil {
		if errors.Is(err, errdef.ErrNotFound) {
			err = errdef.NotFound("%s%s was the image %s, which has been removed from the store: hull image log %s shows what is there", out.Ref, out.Place, short(out.To), out.Ref)
		}
		return nil, err
	}
	return out, nil
}

// version finds the entry of log that to means.
func (s *Store) version(r ref.Ref, log []LogEntry, to string) (int, error) {
	if to == "" {
		return before(r, log)
	}
	base, sel, ok, err := ref.Cut(to)
	if err != nil {
		return 0, err
	}
	if ok && base != "" {
		return 0, errdef.Invalid("%s is another reference: to give its image the name %s, use hull tag", to, r.Familiar())
	}
	if ok {
		i, err := pickEntry(log, sel, time.Now())
		if err != nil {
			return 0, fmt.Errorf("%s%s: %w", r.Familiar(), to, err)
		}
		return i, nil
	}
	return s.versionOfID(r, log, to)
}

// versionOfID finds the newest entry whose image or target begins with the digits of id.
func (s *Store) versionOfID(r ref.Ref, log []LogEntry, id string) (int, error) {
	hex, ok := ref.ShortID(id)
	if !ok {
		return 0, errdef.Invalid("%q is no version of %s: want @{1}, @{2h}, @{yesterday} or an image id of its log", id, r.Familiar())
	}
	found, ids := -1, map[string]string{}
	for i := len(log) - 1; i >= 0; i-- {
		target := log[i].New
		if target == "" {
			continue
		}
		if _, ok := ids[target]; !ok {
			ids[target] = s.idOf(ref.Digest(target))
		}
		if !strings.HasPrefix(ref.Digest(target).Hex(), hex) && !strings.HasPrefix(strings.TrimPrefix(ids[target], "sha256:"), hex) {
			continue
		}
		if found >= 0 && log[found].New != target {
			return 0, errdef.Invalid("ambiguous image id %s: more than one version of %s begins with it", id, r.Familiar())
		}
		if found < 0 {
			found = i
		}
	}
	if found < 0 {
		return 0, errdef.NotFound("%s was never the image %s; to give it that name: hull tag %s %s", r.Familiar(), id, id, r.Familiar())
	}
	return found, nil
}

// before returns the entry to which a rollback without a destination goes.
//
// A person who rolls back twice wants to be two versions back, not where they began. So the log is read as a stack of
// versions: a change puts one on top, a rollback takes off what it left behind. In v1 v2 v3 rollback(v2) the versions
// are v1 v2, and the next rollback goes to v1. The way forward again is an explicit @{1}, which puts v3 back on top.
func before(r ref.Ref, log []LogEntry) (int, error) {
	var stack []int
	for i, e := range log {
		if strings.HasPrefix(e.By, byRollback) {
			if n := topmost(log, stack, e.New); n > 0 {
				stack = stack[:n]
				continue
			}
		}
		stack = append(stack, i)
	}
	for n := len(stack) - 2; n >= 0; n-- {
		// A time without an image is nothing to return to, and removed and brought back is where we are.
		if target := log[stack[n]].New; target != "" && target != log[len(log)-1].New {
			return latest(log, target), nil
		}
	}
	return 0, errdef.NotFound("%s has no earlier version to return to: hull image log %s shows all there were", r.Familiar(), r.Familiar())
}

// latest is the youngest entry with that target: a person counts from now.
func latest(log []LogEntry, target string) int {
	i := len(log) - 1
	for log[i].New != target {
		i--
	}
	return i
}

// topmost returns how much of the stack there is up to the last version with that target; 0 if there is none.
func topmost(log []LogEntry, stack []int, target string) int {
	for n := len(stack); n > 0; n-- {
		if log[stack[n-1]].New == target {
			return n
		}
	}
	return 0
}
