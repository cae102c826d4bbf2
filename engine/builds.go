package engine

import (
	"context"
	"errors"
	"time"

	"hull/builds"
	"hull/errdef"
)

// PruneBuildsOptions are for PruneBuilds.
type PruneBuildsOptions struct {
	All    bool          // also what images in the store were made of: their next build would use it
	Unused time.Duration // only what was not used for so long; 0 is all
}

// PrunedBuilds is what PruneBuilds removed.
type PrunedBuilds struct {
	IDs   []string
	Bytes int64
}

// PruneBuilds removes the results that builds left for the next ones, and cache mounts that no step uses.
func (e *Engine) PruneBuilds(ctx context.Context, o PruneBuildsOptions) (*PrunedBuilds, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	s := e.Builds()
	before := time.Now().Add(-o.Unused)
	imaged := func(r *builds.Result) bool {
		for _, id := range r.FS.Snapshots {
			if snap, err := s.Snapshot(id); err == nil && snap.Layer != nil && e.HasLayers([]string{snap.Layer.Chain}) {
				return true
			}
		}
		return false
	}
	gone, bytes, err := s.Prune(ctx, func(r *builds.Result, used time.Time) bool {
		return !used.After(before) && (o.All || !imaged(r))
	})
	out := &PrunedBuilds{Bytes: bytes}
	for _, r := range gone {
		out.IDs = append(out.IDs, r.ID)
	}
	if err != nil {
		return out, e.storeError(err)
	}
	mounts, err := s.Mounts(ctx)
	if err != nil {
		return out, err
	}
	for _, m := range mounts {
		if m.InUse || m.Used.After(before) {
			continue
		}
		if err := s.RemoveMount(m.Name); errors.Is(err, errdef.ErrConflict) || errors.Is(err, errdef.ErrNotFound) {
			continue // used or removed meanwhile
		} else if err != nil {
			return out, err
		}
		out.IDs, out.Bytes = append(out.IDs, m.Name), out.Bytes+m.Bytes
	}
	if o.All && o.Unused == 0 {
		if err := s.ForgetSums(); err != nil {
			return out, err
		}
	}
	return out, e.images().Collect(ctx) // layers that only results stood on
}
