package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hull/ref"
)

// GCOptions are for GC.
type GCOptions struct {
	// Keep is the budget in bytes: images go until layers and blobs take no more. Nil is no budget.
	Keep *int64
	// Unused lets an image go only if it has not been used for that long. Nil is an hour where there is a budget, so that
	// what has just been brought in stays; without a budget only images without a name go.
	Unused *time.Duration
	Window time.Duration          // as DefaultWindow; 0 keeps nothing of the past
	InUse  func(id string) []User // the containers made from the image id; nil means none
	Kept   func() (map[string]bool, error)
	Drop   bool // blobs of layers that a registry is known to hold go too: see DroppedBlob
	Dry    bool // change nothing, only tell
	// Progress is told, a few times a second, how much has been compared of what is to be dropped; it may be nil.
	Progress func(Progress)
	By       string
	now      time.Time // for tests
}

// GraceOfBudget is for how long what was brought in or used is safe from a budget that is too small for it, unless a person
// says otherwise.
const GraceOfBudget = time.Hour

// Collected is what a GC did, or would do.
type Collected struct {
	Images  []CollectedImage // the least recently used first
	Stay    []StayingImage   // that the rules would take, if nothing held them
	Deleted []Deleted        // references, images and layers
	Dropped []DroppedBlob    // the smallest first
	Bytes   int64            // that are free for it, with what killed processes had left
	Before  int64            // bytes of all layers and blobs
	After   int64
}

// CollectedImage is an image that goes.
type CollectedImage struct {
	ID    string
	Names []string // in familiar form
	Used  time.Time
	Bytes int64 // that nothing else needs, once those before it are gone
}

// StayingImage is an image, or the blob of a layer, that stays, and why.
type StayingImage struct {
	ID, Why string
}

// GC removes images by when they were last used, and what nobody needs. It never touches what containers, pins, what
// Saved names or the past of references within the window need.
func (s *Store) GC(ctx context.Context, o GCOptions) (*Collected, error) {
	if o.InUse == nil {
		o.InUse = func(string) []User { return nil }
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.now.IsZero() {
		o.now = time.Now()
	}
	if o.Dry {
		c, plans, err := s.collection(&o)
		if err != nil {
			return nil, err
		}
		p, err := s.prunePlan(plans, &PruneOptions{Kept: o.Kept})
		if err != nil {
			return nil, err
		}
		c.Deleted, c.Bytes = p.Deleted, p.Bytes
		if o.Drop {
			if err := s.planDrop(c, o.Kept); err != nil {
				return nil, err
			}
		}
		c.After = c.Before - c.Bytes
		return c, nil
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	mark, err := s.expectGarbage()
	if err != nil {
		return nil, err
	}
	c := new(Collected)
	err = s.update(ctx, func() error {
		// Chosen under the lock, as Prune does.
		chosen, plans, err := s.collection(&o)
		if err != nil {
			return err
		}
		c = chosen
		c.Deleted, err = applyAll(plans)
		return err
	})
	if err != nil {
		return c, err
	}
	p := &Pruned{}
	if err := s.reap(ctx, mark, len(c.Deleted) == 0, o.Kept, p); err != nil {
		return c, err
	}
	c.Deleted = append(c.Deleted, p.Deleted...)
	c.Bytes = p.Bytes
	if o.Drop {
		list, err := s.droppable(o.Kept)
		if err != nil {
			return c, err
		}
		gone, stay, err := s.drop(ctx, list, o.Kept, o.Progress)
		c.dropped(gone)
		c.Stay = append(c.Stay, stay...)
		if err != nil {
			return c, err
		}
	}
	c.After = c.Before - c.Bytes
	return c, nil
}

// planDrop adds what can be dropped when the images that are to go are gone.
func (s *Store) planDrop(c *Collected, kept func() (map[string]bool, error)) error {
	m := s.marks()
	m.without = map[string]bool{}
	for _, i := range c.Images {
		m.without[i.ID] = true
	}
	if err := m.all(kept); err != nil {
		return err
	}
	var list []DroppedBlob
	for _, b := range s.droppableOf(m) {
		list = append(list, b.DroppedBlob)
	}
	c.dropped(list)
	return nil
}

// dropped adds what was dropped.
func (c *Collected) dropped(list []DroppedBlob) {
	c.Dropped = append(c.Dropped, list...)
	for _, b := range list {
		c.Bytes += b.Size
	}
}

// collection decides what goes.
func (s *Store) collection(o *GCOptions) (*Collected, []*removal, error) {
	c := new(Collected)
	shares, err := s.shares(o.Kept)
	if err != nil {
		return nil, nil, err
	}
	c.Before = shares.total
	left := shares.total
	if o.Drop { // no image needs to go for what will be free anyway
		blobs, err := s.droppable(o.Kept)
		if err != nil {
			return nil, nil, err
		}
		for _, b := range blobs {
			left -= b.Size
			shares.forget(string(b.Digest))
		}
	}
	held := s.recent(o.Window, o.now)
	unused := o.Unused
	if unused == nil && o.Keep != nil {
		unused = new(GraceOfBudget)
	}
	var list []CollectedImage
	for _, i := range s.summaries() {
		used := s.LastUse(i.ID)
		if unused != nil && o.now.Sub(used) < *unused || unused == nil && len(i.RepoDigests) > 0 { // which all that have a name have
			continue
		}
		list = append(list, CollectedImage{ID: i.ID, Names: i.RepoTags, Used: used})
	}
	slices.SortStableFunc(list, func(a, b CollectedImage) int { return a.Used.Compare(b.Used) })
	var plans []*removal
	for _, i := range list {
		if o.Keep != nil && left <= *o.Keep {
			break
		}
		if why := s.whyStays(i.ID, o, held); why != "" {
			c.Stay = append(c.Stay, StayingImage{i.ID, why})
			continue
		}
		rm := &removal{s: s, opts: RemoveOptions{Force: true, InUse: o.InUse, By: orDefault(o.By, "gc")}}
		if err := rm.byID(i.ID); err != nil {
			return nil, nil, err
		}
		i.Bytes = shares.without(i.ID)
		left -= i.Bytes
		plans = append(plans, rm)
		c.Images = append(c.Images, i)
	}
	return c, plans, nil
}

// whyStays says what holds the image id; "" is nothing.
func (s *Store) whyStays(id string, o *GCOptions, held map[string]string) string {
	if users := o.InUse(id); len(users) > 0 {
		return "container " + short(users[0].ID)
	}
	if s.isPinned(id) {
		return "pinned"
	}
	return held[id]
}

// shares knows what each image needs, so that it can be told what becomes free when one after the other goes.
type shares struct {
	total int64 // bytes of all layers and blobs, needed or not
	need  map[string][]share
	users map[string]int // of each share, by its key: images, and one for all that is no image
}

type share struct {
	key   string
	bytes int64
}

func (s *Store) shares(kept func() (map[string]bool, error)) (*shares, error) {
	out := &shares{need: map[string][]share{}, users: map[string]int{}}
	sizes, err := s.sizes()
	if err != nil {
		return nil, err
	}
	for _, n := range sizes {
		out.total += n
	}
	records := s.records()
	without := make(map[string]bool, len(records))
	names := s.namedOf(records)
	for id, rec := range records {
		if rec.Manifest == "" {
			continue // damaged: marks.all says so below
		}
		without[id] = true
		m := s.marks()
		roots := []ref.Digest{rec.Manifest}
		for _, n := range names[id] {
			roots = append(roots, n.target)
		}
		for _, d := range roots {
			if err := m.target(d, ""); err != nil {
				return nil, err
			}
		}
		for _, key := range m.keys() {
			out.need[id] = append(out.need[id], share{key, sizes[key]})
			out.users[key]++
		}
	}
	rest := s.marks()
	rest.without = without
	if err := rest.all(kept); err != nil {
		return nil, err
	}
	for _, key := range rest.keys() {
		out.users[key]++
	}
	return out, nil
}

// forget takes what key is for as nothing.
func (sh *shares) forget(key string) {
	for id, list := range sh.need {
		sh.need[id] = slices.DeleteFunc(list, func(n share) bool { return n.key == key })
	}
}

// Bytes is how much layers and blobs take, needed or not: what a GC compares with its budget.
func (s *Store) Bytes() (sum int64) {
	sizes, _ := s.sizes()
	for _, n := range sizes {
		sum += n
	}
	return sum
}

// sizes are the bytes of each layer, by the hex of its chain id, and of each blob, by its digest.
func (s *Store) sizes() (map[string]int64, error) {
	layers, err := os.ReadDir(s.layersDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, e := range layers {
		if l, err := s.readLayer("sha256:" + e.Name()); err == nil {
			sizes[e.Name()] = l.Size
		}
	}
	for _, algorithm := range []string{"sha256", "sha512"} {
		blobs, err := os.ReadDir(filepath.Join(s.blobsDir(), algorithm))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range blobs {
			if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
				sizes[algorithm+":"+e.Name()] = fi.Size()
			}
		}
	}
	return sizes, nil
}

// without takes the image id away and returns how many bytes nothing needs any more for it.
func (sh *shares) without(id string) (free int64) {
	for _, n := range sh.need[id] {
		if sh.users[n.key]--; sh.users[n.key] == 0 {
			free += n.bytes
		}
	}
	return free
}

func (s *Store) marks() *marks {
	return &marks{s: s, blobs: map[ref.Digest]bool{}, layers: map[string]bool{}}
}

// keys are the names of all that is marked: blobs with their algorithm, layers without.
func (m *marks) keys() []string {
	keys := make([]string, 0, len(m.blobs)+len(m.layers))
	for d := range m.blobs {
		keys = append(keys, string(d))
	}
	for chain := range m.layers {
		keys = append(keys, ref.Digest(chain).Hex())
	}
	return keys
}
