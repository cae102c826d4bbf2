package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// sweepWait is how long a sweep waits for leases: creating a container takes milliseconds.
const sweepWait = 2 * time.Second

// errBusy is the cause when a sweep found somebody at work and leaves its own to the next one.
var errBusy = errors.New("images are being brought in")

func (s *Store) trashDir() string { return filepath.Join(s.root, "trash") }

// Sweep removes blobs and layers that no image, reference or container needs, and what killed processes left; it
// returns the chain ids of the removed layers. While somebody brings images in it does nothing: the next sweep
// will. kept is as in Store; nil means that there are no containers.
func (s *Store) Sweep(ctx context.Context, kept func() (map[string]bool, error)) ([]string, error) {
	wait, cancel := context.WithTimeoutCause(ctx, sweepWait, errBusy)
	defer cancel()
	l, err := state.Lock(wait, s.layersDir())
	if errors.Is(err, errBusy) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.sweepLocked(ctx, l, kept)
}

// expectGarbage leaves a mark, until the next complete sweep, that there may be garbage: whoever comes after us, if
// we are killed, looks for it. What a Load makes for itself is such a mark too.
func (s *Store) expectGarbage() (path string, err error) {
	path = filepath.Join(s.layersDir(), state.TempName())
	if err = os.Mkdir(path, 0o700); errors.Is(err, unix.ENOSPC) {
		err = nil // what frees space goes on without
	}
	return path, err
}

// repair sweeps what a killed process left, unless somebody is at work.
func (s *Store) repair(ctx context.Context) error {
	if s.Kept == nil || !marked(s.layersDir(), state.TempPrefix) && !marked(s.trashDir(), "") {
		return nil
	}
	l, ok, err := state.TryLock(s.layersDir())
	if !ok || err != nil {
		return err
	}
	_, err = s.sweepLocked(ctx, l, s.Kept)
	return err
}

// marked says whether a name in dir begins with prefix.
func marked(dir, prefix string) bool {
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), prefix) })
}

// sweepLocked gives the lock back.
func (s *Store) sweepLocked(ctx context.Context, l *state.Locked, kept func() (map[string]bool, error)) ([]string, error) {
	swept, trash, err := s.sweep(ctx, kept)
	l.Unlock() // what remains takes time and is in nobody's way
	errs := []error{err}
	for _, path := range trash {
		errs = append(errs, state.Remove(path))
	}
	return swept, errors.Join(append(errs, state.EmptyTrash(s.trashDir()))...)
}

// sweep renames what is not needed into the trash.
func (s *Store) sweep(ctx context.Context, kept func() (map[string]bool, error)) (swept, trash []string, err error) {
	// Records and references change without a lease, but only ever to what is complete: mark under their lock.
	refs, err := s.lockRefs(ctx)
	if err != nil {
		return nil, nil, err
	}
	m := marks{s: s, blobs: map[ref.Digest]bool{}, layers: map[string]bool{}}
	err = m.all(kept)
	if err == nil {
		// Whoever was killed may have left it behind the references.
		if err = s.writeIndex(); errors.Is(err, unix.ENOSPC) {
			err = nil
		}
	}
	s.tidy()
	if err == nil {
		s.sweepPushed()
	}
	refs.Unlock()
	if err != nil {
		return nil, nil, err
	}
	noTrash := os.MkdirAll(s.trashDir(), 0o700)
	if noTrash != nil && !errors.Is(noTrash, unix.ENOSPC) {
		return nil, nil, noTrash
	}
	discard := func(path string) error {
		to := filepath.Join(s.trashDir(), state.TempName())
		if noTrash != nil { // a full disk: beside it, where the next sweep looks too
			to = filepath.Join(filepath.Dir(path), state.TempName())
		}
		trash = append(trash, to)
		return os.Rename(path, to)
	}
	layers, err := os.ReadDir(s.layersDir())
	if err != nil {
		return nil, nil, err
	}
	isMark := func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), state.TempPrefix) }
	for _, e := range layers {
		chain := "sha256:" + e.Name()
		if m.layers[chain] || isMark(e) {
			continue
		}
		if err := discard(filepath.Join(s.layersDir(), e.Name())); err != nil {
			return swept, trash, err
		}
		swept = append(swept, chain)
	}
	s.sweepIngests() // first: bytes that are in the store too are known by the blob that may go now
	if err := s.sweepBlobs(&m, discard); err != nil {
		return swept, trash, err
	}
	s.sweepOrigins(&m)
	for _, e := range layers { // at last: a mark stands for all the rest
		if isMark(e) {
			err = errors.Join(err, discard(filepath.Join(s.layersDir(), e.Name())))
		}
	}
	return swept, trash, err
}

func (s *Store) sweepBlobs(m *marks, discard func(string) error) error {
	algorithms, err := os.ReadDir(s.blobsDir())
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		dir := filepath.Join(s.blobsDir(), a.Name())
		if strings.HasPrefix(a.Name(), state.TempPrefix) {
			if err := discard(dir); err != nil {
				return err
			}
			continue
		}
		blobs, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if m.blobs[ref.Digest(a.Name()+":"+b.Name())] {
				continue
			}
			if err := os.Remove(filepath.Join(dir, b.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// tidy removes temporary files that killed writers left beside records, pins and references. All writers of those hold
// the lock that the caller has.
func (s *Store) tidy() {
	for _, dir := range []string{s.imagesDir(), s.pinsDir(), filepath.Join(s.root, "refs"), s.pushedDir()} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasPrefix(d.Name(), state.TempPrefix) {
				os.Remove(path)
			}
			return nil
		})
	}
}

// marks is what a sweep leaves alone.
type marks struct {
	s      *Store
	blobs  map[ref.Digest]bool
	layers map[string]bool
	kept   map[ref.Digest]bool // manifests of any kind that were followed; see content
	// contents are blobs of what is no image of ours, though perhaps of images too.
	contents map[ref.Digest]bool
	// targets are the manifests and indexes among the blobs.
	targets []target
	// without are the ids of images that are taken for removed, with their references.
	without map[string]bool
	noTrash bool // what can be restored is taken for removed
}

func (m *marks) all(kept func() (map[string]bool, error)) error {
	for id, rec := range m.s.records() {
		if m.without[id] {
			continue
		}
		if rec.Manifest == "" {
			return errdef.As(errdef.ErrCorrupt, errors.New("image "+id+" is damaged: remove it first (hull rmi "+short(id)+"), nothing was swept"))
		}
		if err := m.target(rec.Manifest, ""); err != nil {
			return err
		}
	}
	for _, target := range m.s.refs() {
		if len(m.without) > 0 && m.without[m.s.idOf(target)] {
			continue
		}
		if err := m.target(target, ""); err != nil {
			return err
		}
	}
	if err := m.past(); err != nil {
		return err
	}
	if err := m.saved(); err != nil {
		return err
	}
	if err := m.pins(); err != nil {
		return err
	}
	if kept != nil {
		chains, err := kept()
		if err != nil {
			return err
		}
		for c := range chains {
			m.layer(c)
		}
	}
	return m.pushed()
}

// layer marks a layer and those below it.
func (m *marks) layer(chain string) {
	for chain != "" && !m.layers[chain] {
		if _, err := ref.ParseDigest(chain); err != nil {
			return
		}
		m.layers[chain] = true
		l, err := m.s.readLayer(chain)
		if err != nil {
			return
		}
		chain = l.Parent
	}
}

// target marks a manifest, or an index with those of its manifests that are here. What is missing needs no mark;
// what is damaged stops the sweep, since nobody knows what it needs.
func (m *marks) target(d ref.Digest, declared string) error {
	if m.blobs[d] {
		return nil
	}
	data, err := m.s.readBlob(d, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m.blobs[d] = true
	man, x, err := parseTarget(data, declared)
	if err != nil {
		return err
	}
	m.targets = append(m.targets, target{digest: d, m: man, x: x})
	if x != nil {
		for _, e := range x.Manifests {
			if e.Annotations["vnd.docker.reference.type"] != "" || !m.s.hasBlob(e.Digest) {
				continue
			}
			err := m.target(e.Digest, e.MediaType)
			if errors.Is(err, errdef.ErrInvalid) || errors.Is(err, errdef.ErrUnavailable) {
				err = m.content(e.Digest) // something beside the images
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return m.manifest(man)
}

func (m *marks) manifest(man *manifest) error {
	m.blobs[man.Config.Digest] = true
	for _, l := range man.Layers {
		m.blobs[l.Digest] = true
	}
	data, err := m.s.readBlob(man.Config.Digest, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := parseConfig(data)
	if err != nil {
		return err
	}
	for _, chain := range chainIDs(c.RootFS.DiffIDs) {
		m.layers[chain] = true
	}
	return nil
}
