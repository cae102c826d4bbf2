package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// ContainerPrune removes the containers that do not run.
func (c *Client) ContainerPrune(ctx context.Context, f Filters) (out container.PruneReport, err error) {
	q := url.Values{}
	f.query(q)
	err = c.call(ctx, request{method: http.MethodPost, path: "/containers/prune", query: q}, &out)
	return out, err
}

// ImagePrune removes the images that no container has: those without a name, unless the filter dangling says otherwise.
func (c *Client) ImagePrune(ctx context.Context, f Filters) (out image.PruneReport, err error) {
	q := url.Values{}
	f.query(q)
	err = c.call(ctx, request{method: http.MethodPost, path: "/images/prune", query: q}, &out)
	return out, err
}

// BuildPrune removes what builds left for the next ones; with all also what images were made of.
func (c *Client) BuildPrune(ctx context.Context, all bool, f Filters) (out build.CachePruneReport, err error) {
	q := url.Values{}
	flag(q, "all", all)
	f.query(q)
	err = c.call(ctx, request{method: http.MethodPost, path: "/build/prune", query: q}, &out)
	return out, err
}

// PrunePlan says what a prune of the kinds that have filters, nil or not, would remove if containers went first. The
// kinds are "containers", "images" and "volumes".
func (c *Client) PrunePlan(ctx context.Context, kinds map[string]Filters) (out Plan, err error) {
	q := url.Values{}
	for kind, f := range kinds {
		one := url.Values{}
		f.query(one)
		q.Set(kind, one.Get("filters"))
	}
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/prunable", query: q}, &out)
	return out, err
}

// Usage is what takes up space, in the words of every version of the API.
type Usage struct {
	LayersSize int64
	Images     []ImageSummary
	Containers []ContainerSummary
	Volumes    []VolumeUsage
	BuildCache []BuildCacheUsage
}

// VolumeUsage is a volume with its size and the number of containers that have it, -1 where it is not known.
type VolumeUsage struct {
	Name        string
	Size, Users int64
}

// BuildCacheUsage is one record of a build cache.
type BuildCacheUsage struct {
	ID, Type      string
	Size          int64
	InUse, Shared bool
}

// DiskUsage asks what takes up space.
func (c *Client) DiskUsage(ctx context.Context) (*Usage, error) {
	var out struct {
		oldUsage
		system.DiskUsage
		ImageUsage *struct {
			TotalSize int64
			Items     []ImageSummary
		}
		ContainerUsage *struct{ Items []ContainerSummary }
	}
	err := c.call(ctx, request{method: http.MethodGet, path: "/system/df", query: url.Values{"verbose": {"1"}}}, &out)
	if err != nil {
		return nil, err
	}
	u := &Usage{LayersSize: out.LayersSize, Images: out.Images, Containers: out.Containers}
	volumes, cache := out.Volumes, out.BuildCache
	if i := out.ImageUsage; i != nil {
		u.Images, u.LayersSize = i.Items, i.TotalSize
	}
	if k := out.ContainerUsage; k != nil {
		u.Containers = k.Items
	}
	if v := out.VolumeUsage; v != nil {
		volumes = v.Items
	}
	if b := out.BuildCacheUsage; b != nil {
		cache = b.Items
	}
	for _, v := range volumes {
		usage := VolumeUsage{v.Name, -1, -1}
		if v.UsageData != nil {
			usage.Size, usage.Users = v.UsageData.Size, v.UsageData.RefCount
		}
		u.Volumes = append(u.Volumes, usage)
	}
	for _, r := range cache {
		u.BuildCache = append(u.BuildCache, BuildCacheUsage{r.ID, r.Type, r.Size, r.InUse, r.Shared})
	}
	return u, nil
}

// Disk is what every byte below the root directory of a store is for.
type Disk struct {
	Root  string
	Total int64
	Parts []DiskPart
	// Dropped is how many bytes of blobs were dropped, since a registry holds them, and Droppable how many could be.
	Dropped, Droppable int64

	Closed int64 // directories that could not be looked into
}

// DiskPart is one kind of thing.
type DiskPart struct {
	Kind         string
	Bytes, Files int64
}

// Disk asks what every byte of the store is for.
func (c *Client) Disk(ctx context.Context) (out Disk, err error) {
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/disk"}, &out)
	return out, err
}

// oldUsage is the answer before API 1.52.
type oldUsage struct {
	LayersSize int64
	Images     []ImageSummary
	Containers []ContainerSummary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
}
