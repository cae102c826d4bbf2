package engine

import (
	"context"
	"time"

	"hull/image"
)

// ImageLog returns what the reference name has named, newest first; the empty name means all references. At most limit
// entries, unless that is 0.
func (e *Engine) ImageLog(name string, limit int) ([]image.Version, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	return e.images().Versions(name, limit)
}

// RollbackImage lets a reference name an earlier version again: see image.Store.Rollback.
func (e *Engine) RollbackImage(ctx context.Context, name, to string, dry bool) (*image.Rollback, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	r, err := e.images().Rollback(ctx, name, to, dry)
	if err != nil {
		return nil, e.storeError(err)
	}
	if !dry && !r.AlreadyThere {
		e.imageEvent("tag", r.To, r.Ref)
	}
	return r, nil
}

// PinImage keeps an image whatever becomes of its names.
func (e *Engine) PinImage(ctx context.Context, name, reason string) (*image.Pin, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.bring(ctx, name); err != nil {
		return nil, err
	}
	p, err := e.images().Pin(ctx, name, reason)
	return p, e.storeError(err)
}

// UnpinImage ends that.
func (e *Engine) UnpinImage(ctx context.Context, name string) (*image.Pin, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	p, err := e.images().Unpin(ctx, name)
	return p, e.storeError(err)
}

// PinnedImages lists the pins, the newest first.
func (e *Engine) PinnedImages() ([]image.Pin, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	return e.images().Pins(), nil
}

// ImageTagged returns when a tag was last set to the image id; zero if it has none.
func (e *Engine) ImageTagged(id string) time.Time { return e.images().LastTagged(id) }

// UntagImage takes names away from the image name, all of its own if none are given, and returns them. The image stays.
func (e *Engine) UntagImage(ctx context.Context, name string, names []string) ([]string, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	id, gone, err := e.images().Untag(ctx, name, names)
	for _, n := range gone {
		e.imageEvent("untag", id, n)
	}
	return gone, e.storeError(err)
}
