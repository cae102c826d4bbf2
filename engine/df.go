package engine

import (
	"context"
	"errors"
	"time"

	"hull/builds"
	"hull/errdef"
	"hull/image"
	"hull/volume"
)

// DiskUsage is what takes up space in the store. Sizes are of files as they are seen, in bytes.
type DiskUsage struct {
	Images     []image.Summary
	ImageUsers map[string]int   // containers by image id
	Shared     map[string]int64 // by image id: bytes that other images have too
	LastUsed   map[string]time.Time
	Layers     int64 // of all layers, each counted once
	Unused     int64 // of those no container needs
	Containers []ContainerUsage
	Volumes    []VolumeUsage
	Builds     []builds.Record
}

// ContainerUsage is one container with what it has written.
type ContainerUsage struct {
	*Container
	RW, Root int64
}

// VolumeUsage is one volume with what is in it, and by how many containers it is used.
type VolumeUsage struct {
	*volume.Volume
	Size  int64
	Users int // one more when a container is damaged, so that nobody knows its volumes
}

// DiskUsage measures the store. Slow: it looks at every file that containers wrote.
func (e *Engine) DiskUsage(ctx context.Context) (*DiskUsage, error) {
	list, err := e.List(ctx, ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	u := &DiskUsage{ImageUsers: map[string]int{}, LastUsed: map[string]time.Time{}}
	kept := map[string]bool{}
	for _, c := range list {
		rw, root, err := e.Size(ctx, c)
		if err != nil {
			return nil, err
		}
		u.Containers = append(u.Containers, ContainerUsage{c, rw, root})
		u.ImageUsers[c.Image]++
		for _, l := range c.Layers {
			kept[l] = true
		}
		for _, m := range c.Mounts {
			for _, l := range m.Layers {
				kept[l] = true
			}
		}
	}
	if u.Images, err = e.images().List(ctx); err != nil {
		return nil, err
	}
	for _, i := range u.Images {
		u.LastUsed[i.ID] = e.LastUse(i.ID)
	}
	layers, err := e.images().Usage(kept)
	if err != nil {
		return nil, err
	}
	u.Shared, u.Layers, u.Unused = layers.Shared, layers.Layers, layers.Unused
	if u.Volumes, err = e.volumeUsage(ctx); err != nil {
		return nil, err
	}
	u.Builds, err = e.Builds().Records(ctx)
	return u, err
}

func (e *Engine) volumeUsage(ctx context.Context) ([]VolumeUsage, error) {
	list, err := e.Volumes(ctx, nil)
	if err != nil {
		return nil, err
	}
	users, err := e.volumeUsers()
	unknown := 0
	if errors.Is(err, errdef.ErrConflict) { // somebody damaged, who may have any of them
		unknown = 1
	} else if err != nil {
		return nil, err
	}
	var out []VolumeUsage
	for _, v := range list {
		size, err := treeSize(ctx, v.Path())
		if err != nil {
			return nil, err
		}
		out = append(out, VolumeUsage{v, size, len(users[v.Name]) + unknown})
	}
	return out, nil
}
