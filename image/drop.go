package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// The blob of a layer may be dropped when the layer is unpacked and a registry is known to hold the blob: containers need
// only what is unpacked, and whoever needs the blob itself gets it with OpenBlob. Manifests and configurations stay.
//
//	compare the layer with its blob, by unpacking that beside it
//	layers/<chain id>/sum   a digest of what is unpacked, synced: from now on it can be checked without the blob
//	origins/<hex>           synced
//	unlink the blob         alone: nobody is at work with images
//
// Whoever is killed in between leaves a sum, or an origin, of a blob that is still here, which harms nothing.

// sumFile is a digest by layer.Sum of an unpacked layer that was found to be what its blob says.
const sumFile = "sum"

// DroppedBlob is the blob of a layer that is not kept any more, or need not be.
type DroppedBlob struct {
	Digest ref.Digest
	Size   int64
	From   string // a repository that holds it, the one that was seen last
}

// place is where a blob is unpacked: the layer i of an image with these diff ids.
type place struct {
	i       int
	diffIDs []string
	chain   []string
}

// droppable is a blob that may go.
type droppable struct {
	DroppedBlob
	places []place // each layer once
}

// layersOf finds each blob of a layer that anything needs, with all layers it is unpacked to. What is a manifest or a
// configuration too, of an image that cannot be understood, or something that a client has pushed, is not among them.
func (s *Store) layersOf(m *marks) map[ref.Digest]*droppable {
	found := map[ref.Digest]*droppable{}
	never := map[ref.Digest]bool{}
	for _, man := range m.targets {
		never[man.digest] = true
		if man.m == nil {
			continue
		}
		never[man.m.Config.Digest] = true
		data, err := s.readBlob(man.m.Config.Digest, maxConfig)
		var c *Config
		if err == nil {
			c, err = parseConfig(data)
		}
		fits := err == nil && len(c.RootFS.DiffIDs) == len(man.m.Layers)
		for i, l := range man.m.Layers {
			if !fits {
				never[l.Digest] = true
				continue
			}
			b := found[l.Digest]
			if b == nil {
				b = &droppable{DroppedBlob: DroppedBlob{Digest: l.Digest, Size: l.Size}}
				found[l.Digest] = b
			}
			chain := chainIDs(c.RootFS.DiffIDs[:i+1])
			if !slices.ContainsFunc(b.places, func(p place) bool { return p.chain[p.i] == chain[i] }) {
				b.places = append(b.places, place{i, c.RootFS.DiffIDs[:i+1], chain})
			}
		}
	}
	for d := range never {
		delete(found, d)
	}
	for d := range m.contents {
		delete(found, d)
	}
	return found
}

// droppable are the blobs that may go, the smallest layers first: each makes room for the next one to be compared.
func (s *Store) droppable(kept func() (map[string]bool, error)) ([]*droppable, error) {
	m := s.marks()
	if err := m.all(kept); err != nil {
		return nil, err
	}
	return s.droppableOf(m), nil
}

func (s *Store) droppableOf(m *marks) []*droppable {
	all := s.layersOf(m)
	var out []*droppable
	for d, b := range all {
		st, err := os.Lstat(s.blobPath(d))
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		origins := s.Origins(d)
		if len(origins) == 0 || slices.ContainsFunc(b.places, func(p place) bool { return !s.isUnpacked(p) }) {
			continue
		}
		b.Size, b.From = st.Size(), origins[0]
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *droppable) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

func (s *Store) isUnpacked(p place) bool {
	l, err := s.readLayer(p.chain[p.i])
	return err == nil && l.DiffID == p.diffIDs[p.i] && unix.Access(s.layerFS(p.chain[p.i]), unix.F_OK) == nil
}

// dropped says whether the layer can do without its blob: then that it is not here is no damage.
func (s *Store) dropped(d ref.Digest, chain string) bool {
	if s.hasBlob(d) || len(s.Origins(d)) == 0 {
		return false
	}
	_, err := s.readSum(chain)
	return err == nil
}

func (s *Store) readSum(chain string) (string, error) {
	data, err := state.Read(filepath.Join(s.layerPath(chain), sumFile), 256)
	if err != nil {
		return "", err
	}
	if _, err := ref.ParseDigest(string(data)); err != nil {
		return "", errdef.As(errdef.ErrCorrupt, fmt.Errorf("layer %s: its sum: %w", chain, err))
	}
	return string(data), nil
}

// Dropping is what a registry holds of the store.
type Dropping struct {
	Dropped   int64 // bytes of blobs that were dropped, and that something here names
	Droppable int64 // bytes of blobs that could be
}

// Dropping measures what is dropped, and what could be.
func (s *Store) Dropping(kept func() (map[string]bool, error)) (*Dropping, error) {
	m := s.marks()
	if err := m.all(kept); err != nil {
		return nil, err
	}
	out := new(Dropping)
	for _, b := range s.droppableOf(m) {
		out.Droppable += b.Size
	}
	for d, b := range s.layersOf(m) {
		if slices.ContainsFunc(b.places, func(p place) bool { return s.dropped(d, p.chain[p.i]) }) {
			out.Dropped += b.Size
		}
	}
	return out, nil
}

// drop drops those of the blobs that are as their layers say. It returns what went, and why others stay.
func (s *Store) drop(ctx context.Context, list []*droppable, kept func() (map[string]bool, error), tell func(Progress)) (gone []DroppedBlob, stay []StayingImage, err error) {
	for len(list) > 0 {
		// The disk may be full: what the small ones leave is the room in which the large ones are compared.
		ready, rest, bad, err := s.compare(ctx, list, tell)
		stay = append(stay, bad...)
		if err != nil {
			return gone, stay, err
		}
		more, err := s.unlink(ctx, ready, kept)
		gone = append(gone, more...)
		if err != nil {
			return gone, stay, err
		}
		if len(more) == 0 {
			for _, b := range rest {
				stay = append(stay, StayingImage{string(b.Digest), "no space is left to compare its layer with it"})
			}
			return gone, stay, nil
		}
		list = rest
	}
	return gone, stay, nil
}

// compare writes the sum of each layer, after a comparison of it with its blob. What there was no room for is rest.
func (s *Store) compare(ctx context.Context, list []*droppable, tell func(Progress)) (ready map[ref.Digest]bool, rest []*droppable, stay []StayingImage, err error) {
	in, err := s.receive(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	ready = map[ref.Digest]bool{}
	g := &gauge{tell: tell, action: "Comparing layers"}
	for _, b := range list {
		g.total += b.Size * int64(len(s.unsummed(b)))
	}
	defer g.end()
	for _, b := range list {
		switch problem, err := in.summed(ctx, b, g); {
		case errors.Is(err, unix.ENOSPC):
			rest = append(rest, b)
		case ctx.Err() != nil:
			return nil, nil, stay, context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist): // it went meanwhile, or its layer did
		case err != nil:
			stay = append(stay, StayingImage{string(b.Digest), "it cannot be compared with its layer: " + err.Error() + " (hull system check)"})
		case problem != "":
			stay = append(stay, StayingImage{string(b.Digest), "its layer is damaged: " + problem + " (hull system check --repair)"})
		default:
			ready[b.Digest] = true
		}
	}
	if len(ready) == 0 {
		return ready, rest, stay, nil
	}
	return ready, rest, stay, state.SyncTree(s.layersDir()) // sums and origins: one file system
}

// unsummed are the layers of a blob that have no sum: one of an earlier drop stands, and whether it is still so a check finds
// out, with the blob or without.
func (s *Store) unsummed(b *droppable) (out []place) {
	for _, p := range b.places {
		if _, err := s.readSum(p.chain[p.i]); err != nil {
			out = append(out, p)
		}
	}
	return out
}

// summed makes sure that all layers of a blob have a sum that was made after a comparison, or says what is wrong.
func (in *incoming) summed(ctx context.Context, b *droppable, g *gauge) (problem string, err error) {
	for _, p := range in.s.unsummed(b) {
		chain := p.chain[p.i]
		g.next("blob "+string(b.Digest), b.Size)
		if problem, err := in.differs(ctx, b.Digest, p, g); problem != "" || err != nil {
			return problem, err
		}
		sum, err := layer.Sum(ctx, in.s.layerFS(chain))
		if err != nil {
			return "", err
		}
		if err := state.Write(filepath.Join(in.s.layerPath(chain), sumFile), []byte(sum)); err != nil {
			return "", err
		}
	}
	return "", nil
}

// differs says how a layer differs from its blob, which is unpacked beside it; "" is not at all.
func (in *incoming) differs(ctx context.Context, d ref.Digest, p place, g *gauge) (problem string, err error) {
	dir, fsDir, err := in.newLayer("check-" + in.freshName())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, state.Remove(dir)) }()
	chain := p.chain[p.i]
	res, err := in.s.unpackAgain(ctx, fsDir, d, p.chain[:p.i], func(r io.Reader) io.Reader { return g.reader(ctx, r) })
	if err != nil {
		return "", err
	}
	if res.DiffID != p.diffIDs[p.i] {
		return "its blob holds the content " + res.DiffID, nil
	}
	differences, err := layer.Differ(ctx, fsDir, in.s.layerFS(chain), 1)
	return strings.Join(differences, ""), err
}

// unlink takes away those of the blobs that may still go, now that nobody is at work with images.
func (s *Store) unlink(ctx context.Context, ready map[ref.Digest]bool, kept func() (map[string]bool, error)) ([]DroppedBlob, error) {
	if len(ready) == 0 {
		return nil, nil
	}
	wait, cancel := context.WithTimeoutCause(ctx, sweepWait, errBusy)
	defer cancel()
	l, err := state.Lock(wait, s.layersDir())
	if errors.Is(err, errBusy) {
		return nil, errdef.Conflict("blobs are in use by a pull, a push or another command: try again when it is done")
	}
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	refs, err := s.lockRefs(ctx)
	if err != nil {
		return nil, err
	}
	defer refs.Unlock()
	now, err := s.droppable(kept)
	if err != nil {
		return nil, err
	}
	var gone []DroppedBlob
	dirs := map[string]bool{}
	for _, b := range now {
		if !ready[b.Digest] || slices.ContainsFunc(b.places, func(p place) bool { _, err := s.readSum(p.chain[p.i]); return err != nil }) {
			continue
		}
		path := s.blobPath(b.Digest)
		if err := os.Remove(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return gone, err
		}
		dirs[filepath.Dir(path)] = true
		gone = append(gone, b.DroppedBlob)
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := state.SyncDir(dir); err != nil {
			return gone, err
		}
	}
	return gone, nil
}
