package engine

import (
	"context"
	"errors"

	"hull/errdef"
)

// ended gives the ports of c back, unless somebody has started it again.
func (e *Engine) ended(ctx context.Context, c *Container) error {
	l, err := e.lock(ctx, c.ID)
	if errors.Is(err, errdef.ErrNotFound) {
		return e.unpublish(ctx, c.ID)
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	if e.loadState(c); c.Running() {
		return nil
	}
	return e.unpublish(ctx, c.ID)
}

// OnExit does what is due when the container id has ended and nobody was there to do it: the monitor runs
// `hull event exit ID`. The exit state is on disk. A container that removes itself is removed, and one with a restart
// policy is judged by it; for others there is nothing to do. Idempotent.
func (e *Engine) OnExit(ctx context.Context, id string) error {
	if !isID(id) {
		return errdef.Invalid("not a container id: %q", clip(id))
	}
	c, err := e.load(id)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.ended(ctx, c); err != nil {
		return err
	}
	switch {
	case c.Running():
		return nil
	case c.Host.kept():
		return e.resume(ctx, id)
	case !c.Host.AutoRemove:
		return nil
	}
	if err := e.remove(ctx, id); err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return err
	}
	return nil
}
