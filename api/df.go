package api

import (
	"net/http"
	"slices"
	"time"

	"hull/engine"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// oldUsage is the answer of GET /system/df before API 1.52.
type oldUsage struct {
	LayersSize int64
	Images     []summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
}

// systemDF is GET /system/df.
func (s *server) systemDF(q *request) error {
	u, err := s.engine.DiskUsage(q.Context())
	if err != nil {
		return err
	}
	images := imageUsage(u)
	containers := s.containerUsage(u)
	volumes := volumeUsage(u)
	cache := &build.DiskUsage{Items: buildCacheRecords(u.Builds), TotalCount: int64(len(u.Builds))}
	for _, r := range u.Builds {
		cache.TotalSize += r.Bytes
		if r.InUse {
			cache.ActiveCount++
		} else {
			cache.Reclaimable += r.Bytes
		}
	}
	if q.minor < 52 {
		return q.answer(http.StatusOK, oldUsage{
			LayersSize: u.Layers, Images: q.forVersion(images.Items), Containers: containers.Items,
			Volumes: volumes.Items, BuildCache: cache.Items,
		})
	}
	if !q.flag("verbose") {
		images.Items, containers.Items, volumes.Items, cache.Items = nil, nil, nil, nil
	}
	want := func(t system.DiskUsageObject) bool {
		return !q.form.Has("type") || slices.Contains(q.form["type"], string(t))
	}
	var out diskUsage
	if want(system.ImageObject) {
		out.ImageUsage = images
	}
	if want(system.ContainerObject) {
		out.ContainerUsage = containers
	}
	if want(system.VolumeObject) {
		out.VolumeUsage = volumes
	}
	if want(system.BuildCacheObject) {
		out.BuildCacheUsage = cache
	}
	return q.answer(http.StatusOK, out)
}

// diskUsage is the answer since API 1.52.
type diskUsage struct {
	system.DiskUsage
	ImageUsage *imageDiskUsage `json:"ImageUsage,omitempty"`
}

// imageDiskUsage has images with what Docker does not know.
type imageDiskUsage struct {
	image.DiskUsage
	Items []summary `json:"Items,omitempty"`
}

// disk is GET /hull/v1/disk, our own: every byte below the root directory of the store.
func (s *server) disk(q *request) error {
	d, err := s.engine.Disk(q.Context())
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, d)
}

func imageUsage(u *engine.DiskUsage) *imageDiskUsage {
	out := &imageDiskUsage{Items: []summary{}}
	out.TotalCount, out.TotalSize, out.Reclaimable = int64(len(u.Images)), u.Layers, u.Unused
	for _, i := range u.Images {
		users := u.ImageUsers[i.ID]
		if users > 0 {
			out.ActiveCount++
		}
		sum := imageSummary(&i)
		sum.SharedSize, sum.Containers = u.Shared[i.ID], int64(users)
		out.Items = append(out.Items, summary{Summary: sum, LastUsed: unixTime(u.LastUsed[i.ID])})
	}
	return out
}

func (s *server) containerUsage(u *engine.DiskUsage) *container.DiskUsage {
	out := &container.DiskUsage{TotalCount: int64(len(u.Containers)), Items: []container.Summary{}}
	now := time.Now()
	for _, c := range u.Containers {
		out.TotalSize += c.RW
		if c.Running() {
			out.ActiveCount++
		} else {
			out.Reclaimable += c.RW
		}
		sum := s.summary(c.Container, now)
		sum.SizeRw, sum.SizeRootFs = c.RW, c.Root
		out.Items = append(out.Items, sum)
	}
	return out
}

func volumeUsage(u *engine.DiskUsage) *volume.DiskUsage {
	out := &volume.DiskUsage{TotalCount: int64(len(u.Volumes)), Items: []volume.Volume{}}
	for _, v := range u.Volumes {
		w := wireVolume(v.Volume)
		w.UsageData = &volume.UsageData{Size: v.Size, RefCount: int64(v.Users)}
		out.Items = append(out.Items, w)
		out.TotalSize += v.Size
		if v.Users > 0 {
			out.ActiveCount++
		} else {
			out.Reclaimable += v.Size
		}
	}
	return out
}
