package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
)

// Part is a layer of an image that is assembled.
type Part struct {
	// ChainID, DiffID and the rest describe the layer. They are empty if nobody knows them yet: then Open gives it.
	ChainID   string
	DiffID    string
	MediaType string // of the blob
	Digest    string
	Size      int64 // of the blob, in bytes
	// Open returns the layer as a plain tar. It may be nil if the store has the blob.
	Open func(context.Context) (io.ReadCloser, error)
	// Created is when the layer was made; zero for one whose line of history says it already.
	Created time.Time
}

// AssembleOptions are for Assemble.
type AssembleOptions struct {
	// Config is the configuration of the image as JSON: everything but the layers and when it was made. Members that this
	// package does not know stay.
	Config  []byte
	Created time.Time // of the image, when neither its layers nor its history say
	Refs    []string  // names of the image
	By      string    // the command, for the log of references
	Parts   []Part    // lowest first
}

// Assembled is what Assemble made.
type Assembled struct {
	ID, Manifest string
	Parts        []Part // described in full
}

// PartsOf are the layers of an image as parts of another one.
func (s *Store) PartsOf(img *Image) ([]Part, error) {
	m, _, err := s.manifestOf(ref.Digest(img.Manifest))
	if err != nil {
		return nil, err
	}
	out := make([]Part, len(m.Layers))
	for i, l := range m.Layers {
		out[i] = Part{
			ChainID: img.Layers[i].ChainID, DiffID: img.Layers[i].DiffID,
			MediaType: l.MediaType, Digest: string(l.Digest), Size: l.Size,
		}
	}
	return out, nil
}

// Assemble makes an image of layers that are here, layers of which only the blob is, and layers that are made of a tar. When
// it returns, the image survives a power cut.
func (s *Store) Assemble(ctx context.Context, o AssembleOptions) (_ *Assembled, err error) {
	var refs []ref.Ref
	for _, name := range o.Refs {
		r, err := newRefs(name, "build")
		if err != nil {
			return nil, err
		}
		refs = append(refs, r...)
	}
	if len(o.Parts) > maxLayers {
		return nil, errdef.Invalid("the image has %d layers, more than %d", len(o.Parts), maxLayers)
	}
	in, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	parts := slices.Clone(o.Parts)
	if err := in.parts(ctx, parts); err != nil {
		return nil, err
	}
	data, c, err := composed(&o, parts)
	if err != nil {
		return nil, err
	}
	config, err := in.addBytes(data)
	if err != nil {
		return nil, err
	}
	config.MediaType = typeConfig
	m := &manifest{SchemaVersion: 2, MediaType: typeManifest, Config: config, Layers: []descriptor{}}
	for _, p := range parts {
		m.Layers = append(m.Layers, descriptor{MediaType: p.MediaType, Digest: ref.Digest(p.Digest), Size: p.Size})
	}
	if data, err = json.Marshal(m); err != nil {
		return nil, err
	}
	d, err := in.addBytes(data)
	if err != nil {
		return nil, err
	}
	img := ready{manifest: d.Digest, m: m, c: c, target: d.Digest, refs: refs}
	if err := in.commit(ctx, orDefault(o.By, "build"), []ready{img}); err != nil {
		return nil, err
	}
	return &Assembled{ID: string(config.Digest), Manifest: string(d.Digest), Parts: parts}, nil
}

// parts brings in what is not here, several layers at once, and completes the descriptions.
func (in *incoming) parts(ctx context.Context, parts []Part) error {
	trees := make([]*grown, len(parts))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range parts {
		p := &parts[i]
		if p.DiffID != "" && in.hasBlob(p) {
			continue
		}
		if p.Open == nil {
			return errdef.As(errdef.ErrCorrupt, fmt.Errorf("the blob %s of layer %d is missing: pull or load its image again", p.Digest, i))
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var err error
			if trees[i], err = in.fromTar(ctx, i, p); err != nil {
				cancel(fmt.Errorf("layer %d: %w", i, err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var diffIDs []string
	for _, p := range parts {
		diffIDs = append(diffIDs, p.DiffID)
	}
	chain := chainIDs(diffIDs)
	for i := range parts {
		p := &parts[i]
		p.ChainID = chain[i]
		if in.hasLayer(chain[i]) {
			continue
		}
		parent := ""
		if i > 0 {
			parent = chain[i-1]
		}
		t := trees[i]
		if t == nil { // the same blob over other layers
			var err error
			if t, err = in.fromBlob(ctx, i, p, chain[:i]); err != nil {
				return fmt.Errorf("layer %d: %w", i, err)
			}
		}
		if err := in.addLayer(t.dir, chain[i], parent, t.res); err != nil {
			return err
		}
	}
	return nil
}

func (in *incoming) hasBlob(p *Part) bool {
	_, ok := in.path(ref.Digest(p.Digest))
	return ok || p.ChainID != "" && in.s.dropped(ref.Digest(p.Digest), p.ChainID)
}

// grown is an unpacked layer that has no name yet.
type grown struct {
	dir string
	res layer.Result
}

// fromTar makes blob and tree of what p.Open gives, and describes them in p.
func (in *incoming) fromTar(ctx context.Context, i int, p *Part) (*grown, error) {
	src, err := p.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	dir, fsDir, err := in.newLayer("part-" + strconv.Itoa(i))
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	defer r.Close()
	spooling := make(chan error, 1)
	var sp spooled
	path := in.tempBlob()
	go func() { // ends when w is closed
		var err error
		sp, err = spool(path, r)
		r.CloseWithError(err)
		spooling <- err
	}()
	res, err := layer.Unpack(ctx, fsDir, io.TeeReader(&cancelled{ctx, src}, w), layer.Options{NoDigest: true})
	w.CloseWithError(err)
	if e := <-spooling; err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	in.add(sp)
	res.DiffID = string(sp.digest)
	p.DiffID, p.Digest, p.Size, p.MediaType = res.DiffID, res.DiffID, sp.size, typeLayer
	return &grown{dir, res}, nil
}

// fromBlob unpacks a blob that is here, over the layers below.
func (in *incoming) fromBlob(ctx context.Context, i int, p *Part, below []string) (*grown, error) {
	path, ok := in.path(ref.Digest(p.Digest))
	if !ok {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("the blob %s is missing: pull or load its image again", p.Digest))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, _, err := layer.Decompress(f)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	dir, fsDir, err := in.newLayer("part-" + strconv.Itoa(i))
	if err != nil {
		return nil, err
	}
	lower := func() (dirs []string, err error) {
		for _, c := range below {
			dirs = append(dirs, in.layerFS(c))
		}
		return dirs, nil
	}
	res, err := layer.Unpack(ctx, fsDir, plain, layer.Options{Lower: lower})
	if err != nil {
		return nil, err
	}
	if res.DiffID != p.DiffID {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("the blob %s has the content %s, not %s", p.Digest, res.DiffID, p.DiffID))
	}
	return &grown{dir, res}, nil
}

// composed is the configuration with the layers and the times in it.
func composed(o *AssembleOptions, parts []Part) ([]byte, *Config, error) {
	c := new(Config)
	if err := json.Unmarshal(o.Config, c); err != nil {
		return nil, nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("configuration of the image: %w", err))
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(o.Config, &all); err != nil {
		return nil, nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("configuration of the image: %w", err))
	}
	c.RootFS = RootFS{Type: "layers", DiffIDs: []string{}}
	for _, p := range parts {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, p.DiffID)
	}
	c.History = matched(c.History, parts)
	if c.Created = lastTime(c.History); c.Created == nil {
		c.Created = &o.Created
	}
	for name, v := range map[string]any{"rootfs": c.RootFS, "history": c.History, "created": c.Created} {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, nil, err
		}
		all[name] = data
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, nil, err
	}
	return data, c, c.Run.Validate()
}

// matched makes history and layers agree: each layer has one line that is not empty, in order. Lines without a time get that of
// their layer, or of the layer before them; those before the first new layer get its time. So an image that is assembled
// again of the same layers is the same image.
func matched(history []History, parts []Part) []History {
	out := slices.Clone(history)
	n := 0
	for i := range out {
		h := &out[i]
		switch {
		case h.EmptyLayer:
		case n == len(parts):
			h.EmptyLayer = true
		default:
			if t := parts[n].Created; h.Created == nil && !t.IsZero() {
				h.Created = &t
			}
			n++
		}
	}
	for ; n < len(parts); n++ {
		h := History{}
		if t := parts[n].Created; !t.IsZero() {
			h.Created = &t
		}
		out = append(out, h)
	}
	var when *time.Time
	for _, p := range parts {
		if !p.Created.IsZero() {
			when = &p.Created
			break
		}
	}
	if when == nil {
		when = lastTime(out)
	}
	for i := range out {
		switch {
		case out[i].Created == nil:
			out[i].Created = when
		case when == nil || out[i].Created.After(*when):
			when = out[i].Created
		}
	}
	return out
}

// lastTime is the time of the last line that has one.
func lastTime(history []History) (t *time.Time) {
	for _, h := range history {
		if h.Created != nil {
			t = h.Created
		}
	}
	return t
}

// Blob returns the small blob with the digest d: a configuration or a manifest.
func (s *Store) Blob(d string) ([]byte, error) { return s.readBlob(ref.Digest(d), maxConfig) }
