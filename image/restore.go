package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"hull/errdef"
	"hull/ref"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Removed is what a removal took out of the lists: enough to put it back as long as Store.Saved names its roots. It is
// made to be written down.
type Removed struct {
	// ID of the image; it may still be listed, if only references went.
	ID       string            `json:"id"`
	Manifest ref.Digest        `json:"manifest"`
	Size     int64             `json:"size"` // as a list of images shows it
	Created  time.Time         `json:"created"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Refs are the references that went, in full, with what they named.
	Refs map[string]ref.Digest `json:"refs,omitempty"`
	// Own is how many bytes of layers and blobs nothing else needed; -1 is not known.
	Own int64 `json:"own"`
	Pin *Pin  `json:"pin,omitempty"` // the image's
}

// Roots are the digests from which everything of r is found.
func (r *Removed) Roots() []ref.Digest {
	roots := []ref.Digest{r.Manifest}
	for _, d := range r.Refs {
		if !slices.Contains(roots, d) {
			roots = append(roots, d)
		}
	}
	if r.Pin != nil && r.Pin.Target != "" && !slices.Contains(roots, r.Pin.Target) {
		roots = append(roots, r.Pin.Target)
	}
	return roots
}

// Familiar are the references of r in the short form that people use, sorted.
func (r *Removed) Familiar() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.Refs)) {
		if p, err := ref.Parse(name); err == nil {
			name = p.Familiar()
		}
		out = append(out, name)
	}
	return out
}

// save tells opts.Save of the plan; nil when there is nobody to tell, or nothing that could be restored.
func (rm *removal) save() func(went bool) {
	if rm.opts.Save == nil || rm.damaged != "" {
		return nil
	}
	id := rm.id
	if id == "" {
		id = rm.s.idOf(rm.untag[0].target)
	}
	rec, err := rm.s.readRecord(id)
	if err != nil {
		return nil // damaged: to be restored it would have to be whole
	}
	r := &Removed{ID: id, Manifest: rec.Manifest, Size: rec.Size, Created: rec.Created, Labels: rec.Labels, Refs: map[string]ref.Digest{}}
	for _, n := range rm.untag {
		r.Refs[n.ref.String()] = n.target
	}
	if rm.id != "" {
		if rm.s.isPinned(id) {
			r.Pin = rm.s.readPin(id)
		}
		r.Own = -1
		if g, err := rm.s.own(id, nil, rm.kept(), r.Roots()); err == nil {
			r.Own = g.bytes()
		}
	}
	return rm.opts.Save(r)
}

// roots are the digests from which everything is found that the plan takes.
func (rm *removal) roots() []ref.Digest {
	var out []ref.Digest
	for _, n := range rm.untag {
		out = append(out, n.target)
	}
	if rec, err := rm.s.readRecord(rm.id); err == nil {
		out = append(out, rec.Manifest)
	}
	return out
}

// own is what only the image id with these roots needs, apart from images that are as good as gone and those in the trash:
// a layer that several of them share is counted with the last that went.
func (s *Store) own(id string, gone map[string]bool, kept func() (map[string]bool, error), roots []ref.Digest) (*garbage, error) {
	without := map[string]bool{id: true}
	maps.Copy(without, gone)
	others := marks{s: s, blobs: map[ref.Digest]bool{}, layers: map[string]bool{}, without: without, noTrash: true}
	if err := others.all(kept); err != nil {
		return nil, err
	}
	mine := marks{s: s, blobs: map[ref.Digest]bool{}, layers: map[string]bool{}}
	for _, d := range roots {
		if err := mine.target(d, ""); err != nil {
			return nil, err
		}
	}
	g := new(garbage)
	for chain := range mine.layers {
		if l, err := s.readLayer(chain); err == nil && !others.layers[chain] {
			g.layers = append(g.layers, garbageLayer{chain, l.Size})
		}
	}
	for d := range mine.blobs {
		if fi, err := os.Lstat(s.blobPath(d)); err == nil && !others.blobs[d] {
			g.blobs += fi.Size()
		}
	}
	return g, nil
}

// saved marks what a restore would need. What is damaged there keeps nothing: it cannot be restored.
func (m *marks) saved() error {
	if m.s.Saved == nil || m.noTrash {
		return nil
	}
	roots, err := m.s.Saved()
	if err != nil {
		return err
	}
	for _, d := range roots {
		_ = m.target(d, "")
	}
	return nil
}

// Restored is what a Restore did.
type Restored struct {
	Refs  []string // in familiar form, that name the image again
	Taken []string // that name something else by now, and were left alone
}

// Restore lists the image of r again, and lets its references name it, but for those that somebody has given to another
// image meanwhile. Idempotent: a second one finishes what a killed one began. by is the command, for the log.
func (s *Store) Restore(ctx context.Context, r *Removed, by string) (*Restored, error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Unlock()
	refs, err := s.whole(r)
	if err != nil {
		return nil, err
	}
	out := new(Restored)
	err = s.update(ctx, func() error {
		if err := s.relist(r); err != nil {
			return err
		}
		for _, n := range refs {
			now, err := s.readRef(n.ref)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				err = s.changeRef(by, refChange{n.ref, n.target})
			case err == nil && now != n.target:
				out.Taken = append(out.Taken, n.ref.Familiar())
				continue
			}
			if err != nil {
				return err
			}
			out.Refs = append(out.Refs, n.ref.Familiar())
		}
		return nil
	})
	return out, err
}

// whole checks that everything of r is still there, and returns its references, sorted.
func (s *Store) whole(r *Removed) ([]name, error) {
	broken := func(err error) error {
		return errdef.As(errdef.ErrCorrupt, fmt.Errorf("image %s cannot be restored: %w", short(r.ID), err))
	}
	m, digest, err := s.manifestOf(r.Manifest)
	if err != nil {
		return nil, broken(err)
	}
	img, err := s.image(m, digest)
	if err != nil {
		return nil, broken(err)
	}
	if img.ID != r.ID {
		return nil, broken(errors.New("its manifest is that of " + short(img.ID)))
	}
	var refs []name
	for _, full := range slices.Sorted(maps.Keys(r.Refs)) {
		p, err := ref.Parse(full)
		if err != nil {
			return nil, broken(err)
		}
		if _, _, err := s.manifestOf(r.Refs[full]); err != nil {
			return nil, broken(err)
		}
		refs = append(refs, name{p, r.Refs[full]})
	}
	return refs, nil
}

// relist writes the record of the image, unless it is listed, and its pin. It is called within update.
func (s *Store) relist(r *Removed) error {
	if _, err := s.readRecord(r.ID); !errors.Is(err, errdef.ErrNotFound) {
		return err
	}
	data, err := json.Marshal(record{Manifest: r.Manifest, Size: r.Size, Created: r.Created, Labels: r.Labels})
	if err != nil {
		return err
	}
	if err := state.WriteDurable(s.recordPath(r.ID), data); err != nil || r.Pin == nil {
		return err
	}
	return s.writePin(r.Pin)
}

// Gone reports whether anything of r is missing from the lists: a removal that was killed may not have begun.
func (s *Store) Gone(r *Removed) bool {
	if _, err := s.readRecord(r.ID); errors.Is(err, errdef.ErrNotFound) {
		return true
	}
	for full := range r.Refs {
		p, err := ref.Parse(full)
		if err != nil {
			continue
		}
		if _, err := s.readRef(p); errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Collect removes what no image, reference or container needs since something was forgotten that Store.Saved or
// Store.Kept named. While somebody brings images in it leaves that to the next List.
func (s *Store) Collect(ctx context.Context) error {
	if _, err := s.expectGarbage(); errors.Is(err, fs.ErrNotExist) {
		return nil // there are no images
	} else if err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return s.repair(ctx)
}
