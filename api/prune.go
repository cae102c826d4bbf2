package api

import (
	"net/http"
	"time"

	"hull/builds"
	"hull/engine"
	"hull/errdef"
	"hull/image"

	"github.com/moby/moby/api/types/build"
	wire "github.com/moby/moby/api/types/container"
	images "github.com/moby/moby/api/types/image"
)

// pruneContainers is POST /containers/prune.
func (s *server) pruneContainers(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	p, err := s.engine.PruneContainers(q.Context(), engine.PruneOptions{Filters: filters})
	if err != nil {
		return err
	}
	out := wire.PruneReport{ContainersDeleted: []string{}, SpaceReclaimed: uint64(p.Bytes)}
	for _, c := range p.Containers {
		out.ContainersDeleted = append(out.ContainersDeleted, c.ID)
	}
	return q.answer(http.StatusOK, out)
}

// pruneImages is POST /images/prune.
func (s *server) pruneImages(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	p, err := s.engine.PruneImages(q.Context(), engine.PruneOptions{Filters: filters})
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, images.PruneReport{ImagesDeleted: deletedImages(p.Images), SpaceReclaimed: uint64(p.Bytes)})
}

// pruneBuildCache is POST /build/prune?all=1&filters={"until":["24h"]}.
func (s *server) pruneBuildCache(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	o := engine.PruneBuildsOptions{All: q.flag("all")}
	for key, values := range filters {
		if key != "until" && key != "unused-for" || len(values) != 1 {
			return errdef.Invalid("invalid filter '%s'", key)
		}
		if o.Unused, err = time.ParseDuration(values[0]); err != nil {
			return errdef.Invalid("invalid filter %s=%s: want a duration, such as 24h", key, values[0])
		}
	}
	p, err := s.engine.PruneBuilds(q.Context(), o)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, build.CachePruneReport{CachesDeleted: append([]string{}, p.IDs...), SpaceReclaimed: uint64(p.Bytes)})
}

// buildCacheRecords are what builds left, in Docker's words.
func buildCacheRecords(list []builds.Record) []build.CacheRecord {
	out := make([]build.CacheRecord, 0, len(list))
	for _, r := range list {
		kind := "regular"
		if r.Mount {
			kind = "exec.cachemount"
		}
		c := build.CacheRecord{ID: r.ID, Type: kind, Description: r.What, InUse: r.InUse, Size: r.Bytes, CreatedAt: r.Made}
		if !r.Used.IsZero() {
			c.LastUsedAt, c.UsageCount = &r.Used, 1
		}
		out = append(out, c)
	}
	return out
}

func deletedImages(list []image.Deleted) []images.DeleteResponse {
	out := make([]images.DeleteResponse, 0, len(list))
	for _, d := range list {
		out = append(out, images.DeleteResponse{Deleted: d.Deleted, Untagged: d.Untagged})
	}
	return out
}

// prunable is GET /hull/v1/prunable, our own: what would a prune of these kinds remove, the containers first? Each of the
// parameters containers, images and volumes has the filters of its kind.
func (s *server) prunable(q *request) error {
	k := engine.PruneKinds{
		Containers: q.form.Has("containers"), Images: q.form.Has("images"), Volumes: q.form.Has("volumes"),
		Filters: map[string]map[string][]string{},
	}
	for _, kind := range []string{"containers", "images", "volumes"} {
		filters, err := q.filtersIn(kind)
		if err != nil {
			return err
		}
		k.Filters[kind] = filters
	}
	p, err := s.engine.PrunePlan(q.Context(), k)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, planOf(p.Plan()))
}
