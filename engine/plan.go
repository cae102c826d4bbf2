package engine

import (
	"context"
	"errors"
	"slices"

	"hull/errdef"
	"hull/image"
	"hull/volume"
)

// Planned is one thing that a removal would take.
type Planned struct {
	Kind string // "container", "volume", "reference", "image", "layer", "blobs" or "trash"
	ID   string // where it has one
	Name string
	Size int64 // bytes
}

// Total is how many bytes would be free.
func Total(list []Planned) (sum int64) {
	for _, p := range list {
		sum += max(p.Size, 0)
	}
	return sum
}

// ContainerRemoval is what Remove would do. Nothing changes.
func (e *Engine) ContainerRemoval(ctx context.Context, name string, o RemoveOptions) ([]Planned, error) {
	c, err := e.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := removable(c, o.Force); err != nil {
		return nil, err
	}
	size, err := treeSize(ctx, e.dir(c.ID))
	if err != nil {
		return nil, err
	}
	out := []Planned{{Kind: "container", ID: c.ID, Name: c.Name, Size: size}}
	if !o.Volumes && !c.Host.AutoRemove {
		return out, nil
	}
	users, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	for _, m := range c.Mounts {
		others := slices.ContainsFunc(users[m.Name], func(id string) bool { return id != c.ID })
		if v, err := e.volumes().Get(m.Name); m.Anonymous && !others && err == nil {
			p, err := e.plannedVolume(ctx, v)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func (e *Engine) plannedVolume(ctx context.Context, v *volume.Volume) (Planned, error) {
	size, err := treeSize(ctx, v.Path())
	return Planned{Kind: "volume", Name: v.Name, Size: size}, err
}

// errDryRun ends a removal that would have gone on.
const errDryRun = plainError("dry run")

// plainError is an error that needs no code at program start.
type plainError string

func (e plainError) Error() string { return string(e) }

// VolumeRemoval is what RemoveVolume would do. Nothing changes.
func (e *Engine) VolumeRemoval(ctx context.Context, name string, o RemoveVolumeOptions) ([]Planned, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	var found *volume.Volume
	err := e.volumes().Remove(ctx, name, func(v *volume.Volume) error {
		if err := e.unused(v); err != nil {
			return err
		}
		found = v
		return errDryRun
	})
	switch {
	case o.Force && errors.Is(err, errdef.ErrNotFound):
		return nil, nil
	case !errors.Is(err, errDryRun):
		return nil, e.storeError(err)
	}
	p, err := e.plannedVolume(ctx, found)
	return []Planned{p}, err
}

// ImageRemoval is what RemoveImage would do. Nothing changes.
func (e *Engine) ImageRemoval(ctx context.Context, name string, o RemoveImageOptions) ([]Planned, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	p, err := e.images().Removal(ctx, name, e.removeImage(&o))
	if err != nil {
		return nil, e.storeError(err)
	}
	return plannedImages(p.Deleted, p.Bytes), nil
}

// plannedImages are what goes with images. What of bytes is in no layer is in blobs.
func plannedImages(list []image.Deleted, bytes int64) []Planned {
	var out []Planned
	for _, d := range list {
		switch {
		case d.Untagged != "":
			out = append(out, Planned{Kind: "reference", Name: d.Untagged})
		case d.Layer:
			out = append(out, Planned{Kind: "layer", ID: d.Deleted, Size: d.Size})
			bytes -= d.Size
		default:
			out = append(out, Planned{Kind: "image", ID: d.Deleted})
		}
	}
	if bytes > 0 {
		out = append(out, Planned{Kind: "blobs", Size: bytes})
	}
	return out
}

// Plan is everything that p has taken, or would take.
func (p *Pruned) Plan() []Planned {
	var out []Planned
	rest := p.Bytes
	add := func(l Planned) {
		out = append(out, l)
		rest -= max(l.Size, 0)
	}
	for _, c := range p.Containers {
		add(Planned{Kind: "container", ID: c.ID, Name: c.Name, Size: c.Size})
	}
	for _, v := range p.Volumes {
		add(Planned{Kind: "volume", Name: v.Name, Size: v.Size})
	}
	for _, t := range p.Trash {
		add(Planned{Kind: "trash", ID: t.ID, Name: t.Kind + " " + t.Name, Size: max(t.Size, 0)})
	}
	return append(out, plannedImages(p.Images, rest)...)
}
