package api

import (
	"net/http"

	"hull/engine"
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

// pruneBuildCache is POST /build/prune, which docker system prune calls: there are no builds yet, and so no cache of them.
func (s *server) pruneBuildCache(q *request) error {
	return q.answer(http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
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
