package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// PruneOptions are for Prune.
type PruneOptions struct {
	Wanted func(*Summary) bool    // of the images that no container uses, those to be removed
	InUse  func(id string) []User // the containers made from the image id; nil means none
	Kept   func() (map[string]bool, error)
	Dry    bool // change nothing, only tell
	By     string
}

// Pruned is what a Prune removed, or would remove.
type Pruned struct {
	Deleted []Deleted // references and images in order of age, then layers
	Bytes   int64     // of files and layers that are gone for it, and of what killed processes had left
}

// Prune removes images with all their references, and with them what nothing else needs. An image of a container stays.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (*Pruned, error) {
	if o.InUse == nil {
		o.InUse = func(string) []User { return nil }
	}
	if o.Dry {
		plans, err := s.plans(&o)
		if err != nil {
			return nil, err
		}
		return s.prunePlan(plans, &o)
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	mark, err := s.expectGarbage()
	if err != nil {
		return nil, err
	}
	out := new(Pruned)
	err = s.update(ctx, func() error {
		// Chosen under the lock: what has just been given a name is no longer without one.
		plans, err := s.plans(&o)
		if err != nil {
			return err
		}
		out.Deleted, err = applyAll(plans)
		return err
	})
	if err != nil {
		return out, err
	}
	return out, s.reap(ctx, mark, len(out.Deleted) == 0, o.Kept, out)
}

// reap sweeps, and adds to out what goes with that. mark is what expectGarbage made; clean says that no image went, so
// there may be nothing to sweep.
func (s *Store) reap(ctx context.Context, mark string, clean bool, kept func() (map[string]bool, error), out *Pruned) error {
	g, err := s.garbage(nil, kept)
	if err != nil {
		return err
	}
	if g.empty() && clean {
		if err := os.Remove(mark); !errors.Is(err, fs.ErrNotExist) { // a full disk had no room for it
			return err
		}
		return nil
	}
	swept, err := s.Sweep(ctx, kept)
	for _, l := range g.layers {
		if slices.Contains(swept, l.chain) {
			out.Deleted = append(out.Deleted, Deleted{Deleted: l.chain, Layer: true, Size: l.size})
			out.Bytes += l.size
		}
	}
	if swept != nil || len(g.layers) == 0 {
		out.Bytes += g.blobs
	}
	return err
}

// plans are the removals of the images that a prune is to take, the oldest first.
func (s *Store) plans(o *PruneOptions) ([]*removal, error) {
	var out []*removal
	for _, i := range slices.Backward(s.summaries()) {
		if i.Pinned || !o.Wanted(&i) || len(o.InUse(i.ID)) > 0 {
			continue
		}
		rm := &removal{s: s, opts: RemoveOptions{Force: true, InUse: o.InUse, By: orDefault(o.By, "image prune")}}
		if err := rm.byID(i.ID); err != nil {
			return nil, err
		}
		out = append(out, rm)
	}
	return out, nil
}

// prunePlan tells what carrying out the plans would remove.
func (s *Store) prunePlan(plans []*removal, o *PruneOptions) (*Pruned, error) {
	out := new(Pruned)
	without := make(map[string]bool, len(plans))
	for _, rm := range plans {
		without[rm.id] = true
		out.Deleted = append(out.Deleted, rm.planned()...)
	}
	g, err := s.garbage(without, o.Kept)
	if err != nil {
		return nil, err
	}
	for _, l := range g.layers {
		out.Deleted = append(out.Deleted, Deleted{Deleted: l.chain, Layer: true, Size: l.size})
		out.Bytes += l.size
	}
	out.Bytes += g.blobs
	return out, nil
}

// garbage is what a sweep would remove.
type garbage struct {
	layers []garbageLayer // topmost of each image last
	blobs  int64          // bytes
}

type garbageLayer struct {
	chain string
	size  int64
}

func (g *garbage) empty() bool { return len(g.layers) == 0 && g.blobs == 0 }

// bytes are all there are.
func (g *garbage) bytes() int64 {
	sum := g.blobs
	for _, l := range g.layers {
		sum += l.size
	}
	return sum
}

// garbage finds what is needed by no container and no image but those without.
func (s *Store) garbage(without map[string]bool, kept func() (map[string]bool, error)) (*garbage, error) {
	m := marks{s: s, blobs: map[ref.Digest]bool{}, layers: map[string]bool{}, without: without}
	if err := m.all(kept); err != nil {
		return nil, err
	}
	g := new(garbage)
	layers, err := os.ReadDir(s.layersDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range layers {
		chain := "sha256:" + e.Name()
		if m.layers[chain] || strings.HasPrefix(e.Name(), state.TempPrefix) {
			continue
		}
		l, err := s.readLayer(chain)
		if err != nil && !errors.Is(err, errdef.ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		g.layers = append(g.layers, garbageLayer{chain, l.Size})
	}
	g.blobs, err = s.unmarkedBlobs(&m)
	return g, err
}

// unmarkedBlobs is how many bytes the blobs have that nobody needs.
func (s *Store) unmarkedBlobs(m *marks) (sum int64, err error) {
	err = filepath.WalkDir(s.blobsDir(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		algorithm := filepath.Base(filepath.Dir(path))
		if m.blobs[ref.Digest(algorithm+":"+e.Name())] {
			return nil
		}
		if fi, err := e.Info(); err == nil {
			sum += fi.Size()
		}
		return nil
	})
	return sum, err
}

// Usage is how images share the disk.
type Usage struct {
	Layers int64            // bytes of all unpacked layers, each counted once
	Unused int64            // of those that belong to no layer in kept
	Shared map[string]int64 // by image id: bytes of layers that other images have too
}

// Usage measures the unpacked layers. kept are the chain ids that containers are mounted on; the topmost of each is
// enough.
func (s *Store) Usage(kept map[string]bool) (*Usage, error) {
	used := marks{s: s, layers: map[string]bool{}}
	for chain := range kept {
		used.layer(chain)
	}
	sizes := map[string]int64{}
	owners := map[string]int{}
	chains := map[string][]string{}
	for id := range s.records() {
		img, err := s.open(found{id: id})
		if err != nil {
			continue // damaged: its layers count as nobody's
		}
		for _, l := range img.Layers {
			owners[l.ChainID]++
			chains[id] = append(chains[id], l.ChainID)
		}
	}
	entries, err := os.ReadDir(s.layersDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	u := &Usage{Shared: map[string]int64{}}
	for _, e := range entries {
		chain := "sha256:" + e.Name()
		l, err := s.readLayer(chain)
		if err != nil {
			continue // on its way in or out
		}
		sizes[chain] = l.Size
		u.Layers += l.Size
		if !used.layers[chain] {
			u.Unused += l.Size
		}
	}
	for id, list := range chains {
		for _, c := range list {
			if owners[c] > 1 {
				u.Shared[id] += sizes[c]
			}
		}
	}
	return u, nil
}
