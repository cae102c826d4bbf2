package build

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/containerd/platforms"

	"hull/builds"
	"hull/errdef"
	"hull/image"
)

// exportImage makes an image of the result, and gives it its names.
func (j *job) exportImage(ctx context.Context, r *Result) error {
	if len(r.FS) == 0 || j.req.Attrs["requestid"] != "" {
		return nil
	}
	if len(r.FS) > 1 {
		return errdef.NotImplemented("an image of several platforms at once is not there yet: build one with --platform")
	}
	return inVertex(ctx, "exporting to image", func(ctx context.Context) error { return j.assemble(ctx, r, r.FS[0]) })
}

func (j *job) assemble(ctx context.Context, r *Result, b *Built) error {
	f := b.FS
	if f == nil {
		f = &builds.FS{}
	}
	config := b.Config
	if config == nil {
		var err error
		if config, err = emptyConfig(b.Platform); err != nil {
			return err
		}
	}
	created := time.Now().UTC()
	if j.req.Epoch != nil {
		created = j.req.Epoch.UTC()
	}
	o := image.AssembleOptions{Config: config, Created: created, Refs: j.req.Tags, By: j.req.By}
	now, err := j.parts()
	if err != nil {
		return err
	}
	for _, l := range f.Layers {
		p, ok := now[l.Chain]
		if !ok {
			p = image.Part{ChainID: l.Chain, DiffID: l.DiffID, MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}
		}
		o.Parts = append(o.Parts, p)
	}
	lower := j.b.dirs(&builds.FS{Layers: f.Layers})
	for _, id := range f.Snapshots {
		snap, err := j.b.store.Snapshot(id)
		if err != nil {
			return err
		}
		p := image.Part{Created: snap.Made}
		if j.req.Epoch != nil {
			p.Created = created
		}
		if l := snap.Layer; l != nil {
			p.DiffID, p.MediaType, p.Digest, p.Size = l.DiffID, l.MediaType, l.Digest, l.Size
		}
		upper, below := j.b.store.SnapshotFS(id), lower
		p.Open = func(ctx context.Context) (io.ReadCloser, error) { return j.b.e.LayerTar(ctx, upper, below) }
		o.Parts = append(o.Parts, p)
		lower = append([]string{upper}, lower...)
	}
	made, err := j.b.e.Images().Assemble(ctx, o)
	if err != nil {
		return err
	}
	r.Image, r.Manifest = made.ID, made.Manifest
	for i, id := range f.Snapshots {
		p := made.Parts[len(f.Layers)+i]
		// A hint for the next export of the snapshot.
		_ = j.b.store.SetLayer(id, &builds.Layer{Chain: p.ChainID, DiffID: p.DiffID, MediaType: p.MediaType, Digest: p.Digest, Size: p.Size})
	}
	return nil
}

// parts are the layers of the images that the build has looked up, by their chain ids. A result of an earlier build may name
// blobs that a push has compressed since.
func (j *job) parts() (map[string]image.Part, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := map[string]image.Part{}
	for _, f := range j.images {
		if f.err != nil {
			continue
		}
		list, err := j.b.e.Images().PartsOf(f.img)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			out[p.ChainID] = p
		}
	}
	return out, nil
}

// emptyConfig is that of an image that nothing is known of.
func emptyConfig(platform string) ([]byte, error) {
	p, err := platforms.Parse(platform)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	return json.Marshal(&image.Config{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
}
