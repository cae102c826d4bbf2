package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// Pin keeps an image, whatever its names: neither Prune nor a Remove without force takes it away. It is the file
// pins/<hex of id>.
type Pin struct {
	ID     string     `json:"id"`
	Target ref.Digest `json:"target"` // what the name it was pinned by named: a manifest or an index
	Name   string     `json:"name"`   // as the person gave it
	Reason string     `json:"reason,omitempty"`
	Time   time.Time  `json:"time"`
	Size   int64      `json:"-"`
}

// maxReason bounds what a person has to say about a pin, in bytes.
const maxReason = 1000

func (s *Store) pinsDir() string { return filepath.Join(s.root, "pins") }
func (s *Store) pinPath(id string) string {
	return filepath.Join(s.pinsDir(), ref.Digest(id).Hex())
}

// Pin pins the image name, which may be a place in a log. A second pin of an image takes the place of the first.
func (s *Store) Pin(ctx context.Context, name, reason string) (*Pin, error) {
	if len(reason) > maxReason {
		return nil, errdef.Invalid("the reason has %d bytes, more than %d", len(reason), maxReason)
	}
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Unlock()
	img, err := s.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	p := &Pin{ID: img.ID, Target: ref.Digest(img.Target), Name: oneLine(name), Reason: oneLine(reason), Time: time.Now().UTC(), Size: img.Size}
	err = s.update(ctx, func() error {
		if _, err := s.readRecord(p.ID); err != nil { // removed meanwhile
			return err
		}
		return s.writePin(p)
	})
	return p, err
}

// writePin is called within update.
func (s *Store) writePin(p *Pin) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.pinsDir(), 0o700); err != nil {
		return err
	}
	if err := state.SyncDir(s.root); err != nil {
		return err
	}
	return state.WriteDurable(s.pinPath(p.ID), data)
}

// Unpin ends the pin of the image name.
func (s *Store) Unpin(ctx context.Context, name string) (*Pin, error) {
	f, err := s.find(name)
	if err != nil {
		return nil, err
	}
	id := f.id
	if id == "" {
		id = s.idOf(f.target)
	}
	var p *Pin
	err = s.update(ctx, func() error {
		if !s.isPinned(id) {
			return errdef.NotFound("%s is not pinned", name)
		}
		p = s.readPin(id)
		return s.unpin(id)
	})
	return p, err
}

// unpin is called within update.
func (s *Store) unpin(id string) error {
	err := os.Remove(s.pinPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cmp.Or(err, state.SyncDir(s.pinsDir()))
}

// Pins returns all pins, the newest first.
func (s *Store) Pins() []Pin {
	pins := make([]Pin, 0)
	for id := range s.pinned() {
		p := s.readPin(id)
		if rec, err := s.readRecord(id); err == nil {
			p.Size = rec.Size
		}
		pins = append(pins, *p)
	}
	slices.SortFunc(pins, func(a, b Pin) int { return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.ID, b.ID)) })
	return pins
}

// pinned are the ids of all pinned images.
func (s *Store) pinned() map[string]bool {
	entries, _ := os.ReadDir(s.pinsDir())
	ids := make(map[string]bool, len(entries))
	for _, e := range entries {
		if id, err := ref.ParseDigest("sha256:" + e.Name()); err == nil {
			ids[string(id)] = true
		}
	}
	return ids
}

func (s *Store) isPinned(id string) bool {
	if id == "" {
		return false
	}
	_, err := os.Lstat(s.pinPath(id))
	return err == nil
}

// readPin never fails: a pin holds although what it says is damaged.
func (s *Store) readPin(id string) *Pin {
	p := new(Pin)
	if data, err := state.Read(s.pinPath(id), 64<<10); err != nil || json.Unmarshal(data, p) != nil {
		p = new(Pin)
	}
	p.ID = id
	return p
}

// refusePinned is the error of a removal without force.
func (s *Store) refusePinned(id string) error {
	if !s.isPinned(id) {
		return nil
	}
	why := ""
	if p := s.readPin(id); p.Reason != "" {
		why = fmt.Sprintf(" (%s)", p.Reason)
	}
	return errdef.Conflict("conflict: unable to delete %s (must be forced) - image is pinned%s: hull image unpin %s first", short(id), why, short(id))
}

// pins marks what pinned images need beyond what their records say: the index that a pinned name named.
func (m *marks) pins() error {
	for id := range m.s.pinned() {
		if _, err := m.s.readRecord(id); errors.Is(err, errdef.ErrNotFound) || m.without[id] {
			continue // nothing is left to keep
		}
		if p := m.s.readPin(id); p.Target != "" {
			if err := m.target(p.Target, ""); err != nil {
				return err
			}
		}
	}
	return nil
}
