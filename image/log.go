package image

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
)

// Version is one entry of a reference's log: what the reference named from then on.
type Version struct {
	Ref      string // the reference, in familiar form
	N        int    // Ref@{N} names this version, as long as nothing changes the reference
	Time     time.Time
	By       string // the command
	Target   string // digest the reference got; "" when it was removed
	ID       string // of the image; "" when nothing of it is left in the store
	Revision string // the label org.opencontainers.image.revision: which source it was made of, also when it is gone
	Size     int64  // of the image, while it is Present
	Change   int64  // of the size since the version before; HasChange says whether both sizes are known
	// HasChange is false for the first version, and where one of the two images is no longer in the store.
	HasChange bool
	Present   bool // the image is in the store: it can be run and returned to
	Pinned    bool
}

// LabelRevision is the label that says which revision of its source an image was made of.
const LabelRevision = "org.opencontainers.image.revision"

// revision returns the label of what target leads to; "" if it has none.
func (s *Store) revision(target ref.Digest) string {
	id := s.idOf(target)
	if id == "" {
		return ""
	}
	rec, err := s.readRecord(id)
	if err != nil {
		return ""
	}
	return rec.Labels[LabelRevision]
}

// Versions returns the log of the reference name, newest first; the empty name means the logs of all references. A log
// outlives its reference. At most limit entries are returned, unless limit is 0.
func (s *Store) Versions(name string, limit int) ([]Version, error) {
	if name == "" {
		return s.allVersions(limit), nil
	}
	r, err := taggable(name)
	if err != nil {
		return nil, err
	}
	log, _, err := s.effectiveLog(r)
	if err != nil {
		return nil, err
	}
	l := versionLister{s: s, known: map[string]Version{}, pins: s.pinned()}
	return l.list(r, log, limit), nil
}

// taggable reads the name of a reference that has a history: one with a tag.
func taggable(name string) (ref.Ref, error) {
	if _, _, ok, _ := ref.Cut(name); ok {
		return ref.Ref{}, errdef.Invalid("%s is one version: give the name alone, without @{...}", name)
	}
	r, err := ref.Parse(name)
	if err != nil {
		return ref.Ref{}, err
	}
	if r.Digest != "" {
		return ref.Ref{}, errdef.Invalid("%s always names the same image: only tags have versions", name)
	}
	return r.Tagged(), nil
}

// effectiveLog returns the changes of r that took effect, oldest first, and what r names now; "" is nothing.
func (s *Store) effectiveLog(r ref.Ref) ([]LogEntry, ref.Digest, error) {
	log, err := s.readLog(r)
	if err != nil {
		return nil, "", err
	}
	now, err := s.readRef(r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	return effective(log, string(now)), now, nil
}

func (s *Store) allVersions(limit int) []Version {
	l := versionLister{s: s, known: map[string]Version{}, pins: s.pinned()}
	var all []Version
	top := filepath.Join(s.root, "refs.log")
	filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		r, ok := refOfFile(strings.TrimPrefix(path, top+"/"))
		if !ok || r.Digest != "" {
			return nil
		}
		if log, _, err := s.effectiveLog(r); err == nil {
			all = append(all, l.list(r, log, limit)...)
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b Version) int {
		return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.Ref, b.Ref))
	})
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// versionLister looks up each image once.
type versionLister struct {
	s     *Store
	known map[string]Version // by target
	pins  map[string]bool
}

func (l *versionLister) list(r ref.Ref, log []LogEntry, limit int) []Version {
	n := len(log)
	if limit > 0 {
		n = min(n, limit)
	}
	out := make([]Version, 0, n)
	for i := range n {
		at := len(log) - 1 - i
		v := l.image(log[at].New)
		v.Ref, v.N, v.Time, v.By = r.Familiar(), i, log[at].Time, log[at].By
		v.Revision = cmp.Or(v.Revision, log[at].Revision)
		if at > 0 {
			before := l.image(log[at-1].New)
			if v.HasChange = v.Present && before.Present; v.HasChange {
				v.Change = v.Size - before.Size
			}
		}
		out = append(out, v)
	}
	return out
}

// image is what is known of a target whatever its place in a log.
func (l *versionLister) image(target string) Version {
	v, ok := l.known[target]
	if ok || target == "" {
		return v
	}
	v = Version{Target: target, ID: l.s.idOf(ref.Digest(target))}
	if v.ID != "" {
		if rec, err := l.s.readRecord(v.ID); err == nil {
			v.Present, v.Size, v.Revision = true, rec.Size, rec.Labels[LabelRevision]
		}
		v.Pinned = l.pins[v.ID]
	}
	l.known[target] = v
	return v
}
