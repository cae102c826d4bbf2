package engine

import (
	"context"
	"errors"

	"hull/errdef"
)

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
