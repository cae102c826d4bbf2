package image

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
)

// DefaultWindow is for how long a GC keeps what a reference named before it was given to another image.
const DefaultWindow = 30 * 24 * time.Hour

// logs yields the log of each reference, as far as it took effect.
func (s *Store) logs() iter.Seq2[ref.Ref, []LogEntry] {
	return func(yield func(ref.Ref, []LogEntry) bool) {
		top := filepath.Join(s.root, "refs.log")
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			r, ok := refOfFile(strings.TrimPrefix(path, top+"/"))
			if !ok {
				return nil
			}
			log, err := s.readLog(r)
			if err != nil {
				return nil
			}
			now, err := s.readRef(r)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if !yield(r, effective(log, string(now))) {
				return fs.SkipAll
			}
			return nil
		})
	}
}

// recent are the images that a reference named before it was given to another one, less than window ago, each with the
// name by which that is said: "app:latest@{1}". What a person took a name from without giving it to another image, by
// rmi or untag, is not among them.
func (s *Store) recent(window time.Duration, now time.Time) map[string]string {
	names := map[string]string{}
	ids := map[string]string{}
	for r, log := range s.logs() {
		for i := range max(0, len(log)-1) {
			was, next := log[i], log[i+1]
			if was.New == "" || next.New == "" || was.New == next.New || now.Sub(next.Time) > window {
				continue
			}
			id, ok := ids[was.New]
			if !ok {
				id = s.idOf(ref.Digest(was.New))
				ids[was.New] = id
			}
			names[id] = fmt.Sprintf("%s@{%d}", r.Familiar(), len(log)-1-i)
		}
	}
	delete(names, "") // of what is no longer here
	return names
}

// past marks what references named before, of images that are still listed: the record of one leads to its manifest, but
// not to the index by which it came.
func (m *marks) past() error {
	for _, log := range m.s.logs() {
		for _, e := range log {
			d := ref.Digest(e.New)
			if d == "" || m.blobs[d] || !m.s.hasBlob(d) {
				continue
			}
			id := m.s.idOf(d)
			if id == "" || m.without[id] {
				continue
			}
			if _, err := m.s.readRecord(id); errors.Is(err, errdef.ErrNotFound) {
				continue
			}
			if err := m.target(d, ""); err != nil {
				return err
			}
		}
	}
	return nil
}
