package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// Lease keeps all layers and blobs in place until Unlock: nothing is swept meanwhile. It is shared.
func (s *Store) Lease(ctx context.Context) (*state.Locked, error) {
	wait, cancel := context.WithTimeoutCause(ctx, updateWait, errors.New("waited for a minute"))
	defer cancel()
	l, err := state.LockShared(wait, s.layersDir())
	if !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return state.LockShared(wait, s.layersDir())
}

// Resolve finds an image by reference, by full or short id, by name@digest or by a place in a reference's log
// (name@{1}, name@{2h}, name@{yesterday}).
// The error of an unknown one has kind errdef.ErrNotFound and Docker's words.
func (s *Store) Resolve(ctx context.Context, name string) (*Image, error) {
	f, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return s.open(f)
}

// ResolveFor is Resolve of the image for a platform, os/arch[/variant]; "" is the one that a container would be made of.
func (s *Store) ResolveFor(ctx context.Context, name, platform string) (*Image, error) {
	if platform == "" {
		return s.Resolve(ctx, name)
	}
	want, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	f, err := s.find(name)
	if err != nil {
		return nil, err
	}
	one := f
	if f.target != "" {
		data, err := s.readBlob(f.target, maxManifest)
		if err != nil {
			return nil, incomplete(f, err)
		}
		_, x, err := parseTarget(data, "")
		if err != nil {
			return nil, err
		}
		if x != nil {
			if d := s.present(x, want); d != nil {
				one.target = d.Digest
			}
		}
	}
	img, err := s.open(one)
	if err != nil {
		return nil, err
	}
	if f.target != "" {
		img.Target = string(f.target)
	}
	if p := platformOfConfig(&img.Config); !p.suits(want) {
		return nil, errdef.NotFound("image with reference %s was found but does not provide the specified platform (%s)", name, want)
	}
	return img, nil
}

// found is where a name leads: a target that a reference names, or an id.
type found struct {
	ref    string // in full; "" when found by id
	target ref.Digest
	id     string
}

func (s *Store) find(name string) (found, error) {
	base, sel, ok, err := ref.Cut(name)
	if err != nil {
		return found{}, err
	}
	if ok {
		return s.findInLog(name, base, sel)
	}
	hex, isID := ref.ShortID(name)
	if isID && (len(hex) == 64 || strings.HasPrefix(name, "sha256:")) {
		return s.findID(name, hex)
	}
	r, err := ref.Parse(name)
	if err != nil {
		return found{}, err
	}
	f, err := s.findRef(r.Tagged())
	if errors.Is(err, errdef.ErrNotFound) && isID {
		if f, err := s.findID(name, hex); !errors.Is(err, errdef.ErrNotFound) {
			return f, err
		}
	}
	return f, err
}

func noSuchImage(name string) error { return errdef.NotFound("No such image: %s", name) }

func (s *Store) findRef(r ref.Ref) (found, error) {
	if r.Digest != "" {
		return s.findDigest(r)
	}
	target, err := s.readRef(r)
	if errors.Is(err, fs.ErrNotExist) {
		return found{}, noSuchImage(r.Familiar())
	}
	return found{ref: r.String(), target: target}, err
}

// findDigest finds name@digest: some reference of the repository has to name that very manifest or index, or an
// index that holds it. A tag beside the digest is for the reader only.
func (s *Store) findDigest(r ref.Ref) (found, error) {
	r.Tag = ""
	if target, err := s.readRef(r); err == nil {
		return found{ref: r.String(), target: target}, nil
	}
	entries, err := os.ReadDir(filepath.Dir(s.refPath(r)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return found{}, err
	}
	for _, e := range entries {
		other, ok := refOfFile(filepath.Join(r.Registry, r.Repo, e.Name()))
		if !ok {
			continue
		}
		target, err := s.readRef(other)
		if err != nil {
			continue
		}
		if target == r.Digest || s.chosen(target) == r.Digest {
			return found{ref: r.String(), target: r.Digest}, nil
		}
	}
	return found{}, noSuchImage(r.Familiar())
}

// chosen returns the manifest for this machine in the index target; "" if there is none.
func (s *Store) chosen(target ref.Digest) ref.Digest {
	_, d, err := s.manifestOf(target)
	if err != nil {
		return ""
	}
	return d
}

func (s *Store) findInLog(name, base string, sel ref.Selector) (found, error) {
	r, err := ref.Parse(base)
	if err != nil {
		return found{}, err
	}
	r = r.Tagged()
	log, err := s.readLog(r)
	if errors.Is(err, errdef.ErrNotFound) {
		return found{}, noSuchImage(r.Familiar())
	}
	if err != nil {
		return found{}, err
	}
	now, err := s.readRef(r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found{}, err
	}
	target, err := pick(effective(log, string(now)), sel, time.Now())
	if err != nil {
		return found{}, fmt.Errorf("No such image: %s: %w", name, err)
	}
	if !s.hasBlob(target) {
		return found{}, errdef.NotFound("No such image: %s: %s has been removed from the store", name, target)
	}
	return found{ref: r.String(), target: target}, nil
}

// findID finds the one image whose id begins with hex.
func (s *Store) findID(name, hex string) (found, error) {
	if len(hex) == 64 {
		if _, err := os.Lstat(filepath.Join(s.imagesDir(), hex)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return found{}, noSuchImage(name)
			}
			return found{}, err
		}
		return found{id: "sha256:" + hex}, nil
	}
	entries, err := os.ReadDir(s.imagesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found{}, err
	}
	match := ""
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), hex) {
			continue
		}
		if match != "" {
			return found{}, errdef.Invalid("ambiguous image id %s: %s and %s begin with it", name, match[:12], e.Name()[:min(12, len(e.Name()))])
		}
		match = e.Name()
	}
	if len(match) != 64 {
		return found{}, noSuchImage(name)
	}
	return found{id: "sha256:" + match}, nil
}

// manifestOf reads the manifest that target is, or the one for this machine of the index that target is.
func (s *Store) manifestOf(target ref.Digest) (*manifest, ref.Digest, error) {
	data, err := s.readBlob(target, maxManifest)
	if err != nil {
		return nil, "", err
	}
	m, x, err := parseTarget(data, "")
	if err != nil || m != nil {
		return m, target, err
	}
	p, _ := parsePlatform("")
	d := s.present(x, p)
	if d == nil {
		return nil, "", errdef.NotFound("%s has no image for %s", target, p)
	}
	data, err = s.readBlob(d.Digest, maxManifest)
	if err != nil {
		return nil, "", err
	}
	m, x, err = parseTarget(data, d.MediaType)
	if err == nil && x != nil {
		err = errdef.Invalid("index within an index")
	}
	return m, d.Digest, err
}

// present is x.choose among the entries whose manifest is in the store: somebody may have loaded an image of
// another platform on purpose.
func (s *Store) present(x *index, p platform) *descriptor {
	here := index{}
	for _, d := range x.Manifests {
		if s.hasBlob(d.Digest) && d.Annotations["vnd.docker.reference.type"] == "" {
			here.Manifests = append(here.Manifests, d)
		}
	}
	if d := here.choose(p); d != nil {
		return d
	}
	if len(here.Manifests) > 0 {
		return &here.Manifests[0]
	}
	return nil
}

func (s *Store) open(f found) (*Image, error) {
	if f.id != "" {
		rec, err := s.readRecord(f.id)
		if err != nil {
			return nil, err
		}
		f.target = rec.Manifest
	}
	m, digest, err := s.manifestOf(f.target)
	if err != nil {
		return nil, incomplete(f, err)
	}
	img, err := s.image(m, digest)
	if err != nil {
		return nil, incomplete(f, err)
	}
	img.Ref, img.Target = f.ref, string(f.target)
	return img, nil
}

// incomplete says of an image that should be there what is wrong with it.
func incomplete(f found, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := f.ref
	if name == "" {
		name = f.id
	}
	return errdef.As(errdef.ErrCorrupt, fmt.Errorf("image %s is incomplete: %w; load or pull it again", name, err))
}

func (s *Store) image(m *manifest, digest ref.Digest) (*Image, error) {
	data, err := s.readBlob(m.Config.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, errdef.Invalid("image has %d layers but %d diff ids", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	img := &Image{ID: string(m.Config.Digest), Manifest: string(digest), Config: *c, Layers: make([]Layer, len(m.Layers))}
	if c.Created != nil {
		img.Created = *c.Created
	}
	for i, chain := range chainIDs(c.RootFS.DiffIDs) {
		dir := s.layerFS(chain)
		if err := unix.Access(dir, unix.F_OK); err != nil {
			return nil, &fs.PathError{Op: "open layer", Path: dir, Err: err}
		}
		img.Layers[i] = Layer{ChainID: chain, DiffID: c.RootFS.DiffIDs[i], Dir: dir}
	}
	rec, err := s.readRecord(img.ID)
	if err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return nil, err
	}
	img.Size = rec.Size
	return img, nil
}

// record is the file images/<hex of id>: that the image exists, and what a list of images shows. It is the last
// thing written of an image and the first one removed.
type record struct {
	Manifest ref.Digest        `json:"manifest"`
	Size     int64             `json:"size"`
	Created  time.Time         `json:"created"`
	Labels   map[string]string `json:"labels,omitempty"`
}

func (s *Store) recordPath(id string) string {
	return filepath.Join(s.imagesDir(), ref.Digest(id).Hex())
}

func (s *Store) readRecord(id string) (record, error) {
	data, err := state.Read(s.recordPath(id), maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, noSuchImage(id)
	}
	if err != nil {
		return record{}, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil || rec.Manifest == "" {
		return record{}, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s is damaged: remove the image and load or pull it again", s.recordPath(id)))
	}
	return rec, nil
}

// records returns all images by id. A damaged one is there with an empty record: it can be removed.
func (s *Store) records() map[string]record {
	entries, _ := os.ReadDir(s.imagesDir())
	all := make(map[string]record, len(entries))
	for _, e := range entries {
		id := "sha256:" + e.Name()
		if _, err := ref.ParseDigest(id); err != nil {
			continue
		}
		rec, err := s.readRecord(id)
		if errors.Is(err, errdef.ErrNotFound) {
			continue // removed meanwhile
		}
		all[id] = rec
	}
	return all
}
