package api

import (
	"net/http"
	"time"

	"hull/engine"
	"hull/volume"

	wire "github.com/moby/moby/api/types/volume"
)

// wireVolume is a volume as Docker shows it.
func wireVolume(v *volume.Volume) wire.Volume {
	out := wire.Volume{
		Name: v.Name, Driver: volume.Driver, Mountpoint: v.Path(), Scope: "local",
		Labels: v.Labels, Options: v.Options, CreatedAt: v.Created.Format(time.RFC3339),
	}
	if v.Unread != nil {
		out.CreatedAt, out.Status = "", map[string]any{"Unread": v.Unread.Error()}
	}
	if v.Damaged != "" {
		out.CreatedAt, out.Status = "", map[string]any{"Damaged": v.Damaged}
	}
	return out
}

// listVolumes is GET /volumes.
func (s *server) listVolumes(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	list, err := s.engine.Volumes(q.Context(), filters)
	if err != nil {
		return err
	}
	out := wire.ListResponse{Volumes: make([]wire.Volume, 0, len(list))}
	for _, v := range list {
		out.Volumes = append(out.Volumes, wireVolume(v))
	}
	return q.answer(http.StatusOK, out)
}

// createVolume is POST /volumes/create.
func (s *server) createVolume(q *request) error {
	var body wire.CreateRequest
	if err := q.decodeOptional(&body); err != nil {
		return err
	}
	v, err := s.engine.CreateVolume(q.Context(), volume.Spec{
		Name: body.Name, Driver: body.Driver, Labels: body.Labels, Options: body.DriverOpts,
	})
	if err != nil {
		return err
	}
	return q.answer(http.StatusCreated, wireVolume(v))
}

// inspectVolume is GET /volumes/{name}.
func (s *server) inspectVolume(q *request) error {
	v, err := s.engine.Volume(q.name)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, wireVolume(v))
}

// removeVolume is DELETE /volumes/{name}.
func (s *server) removeVolume(q *request) error {
	saved, err := s.engine.RemoveVolume(q.Context(), q.name, q.removeVolume())
	if err != nil {
		return err
	}
	q.saved(saved)
	return q.empty(http.StatusNoContent)
}

func (q *request) removeVolume() engine.RemoveVolumeOptions {
	return engine.RemoveVolumeOptions{Force: q.flag("force"), Now: !q.flagOr("trash", true), Batch: q.batch()}
}

// removableVolume is GET /hull/v1/volumes/{name}/removable, our own.
func (s *server) removableVolume(q *request) error {
	list, err := s.engine.VolumeRemoval(q.Context(), q.name, q.removeVolume())
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, planOf(list))
}

// pruneVolumes is POST /volumes/prune.
func (s *server) pruneVolumes(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	if q.minor < 42 { // before which all volumes were pruned
		if filters == nil {
			filters = map[string][]string{}
		}
		filters["all"] = []string{"true"}
	}
	pruned, err := s.engine.PruneVolumes(q.Context(), filters)
	if err != nil {
		return err
	}
	out := wire.PruneReport{VolumesDeleted: []string{}, SpaceReclaimed: uint64(pruned.Bytes)}
	for _, v := range pruned.Volumes {
		out.VolumesDeleted = append(out.VolumesDeleted, v.Name)
	}
	return q.answer(http.StatusOK, out)
}
