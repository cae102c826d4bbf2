package engine

import (
	"context"
	"time"

	"hull/errdef"
	"hull/runtime/cgroup"
)

// freezeWait bounds how long a pause waits for the last process to stand still; one in uninterruptible sleep may not
// before its device answers.
const freezeWait = 10 * time.Second

// Pause freezes every process of a running container. That a container is paused is known by its cgroup alone, so it
// stays paused whoever dies. On failure it runs on.
func (e *Engine) Pause(ctx context.Context, name string) error {
	return e.withGroup(ctx, name, func(c *Container, g *cgroup.Group) error {
		if c.State.Status == StatusPaused {
			return errdef.Conflict("Container %s is already paused", c.ID)
		}
		ctx, cancel := context.WithTimeout(ctx, freezeWait)
		defer cancel()
		if err := g.Freeze(ctx); err != nil {
			return err
		}
		e.containerEvent(c, "pause")
		return nil
	})
}

// Unpause lets the processes of a paused container go on.
func (e *Engine) Unpause(ctx context.Context, name string) error {
	return e.withGroup(ctx, name, func(c *Container, g *cgroup.Group) error {
		if c.State.Status != StatusPaused {
			return errdef.Conflict("Container %s is not paused", c.ID)
		}
		if err := g.Thaw(); err != nil {
			return err
		}
		e.containerEvent(c, "unpause")
		return nil
	})
}

// withGroup calls f for a running container and its cgroup, with the container locked.
func (e *Engine) withGroup(ctx context.Context, name string, f func(*Container, *cgroup.Group) error) error {
	c, err := e.get(ctx, name)
	if err != nil {
		return err
	}
	l, err := e.lock(ctx, c.ID)
	if err != nil {
		return err
	}
	defer l.Unlock()
	e.loadState(c)
	switch {
	case c.State.Status == StatusRestarting:
		return restartingFor(c.ID)
	case !c.Running():
		return notRunning(c.ID)
	}
	g, err := e.group(c)
	if err != nil {
		return err
	}
	if !g.Exists() {
		return errdef.Unavailable("container %s has no cgroup, so it can be neither paused nor unpaused: %s", c.ID[:12], noGroups())
	}
	return f(c, g)
}

// noGroups says why a container is without a cgroup.
func noGroups() string {
	if why := cgroup.Detect().Reason; why != "" {
		return why
	}
	return "it was started without one"
}

// group is the cgroup of c. It need not exist: an ordinary user's containers mostly have none.
func (e *Engine) group(c *Container) (*cgroup.Group, error) {
	return cgroup.Open(cgroup.Detect(), e.cgroupOf(c))
}

// frozen reports whether the processes of c stand still, whoever froze them.
func (e *Engine) frozen(c *Container) bool {
	g, err := e.group(c)
	return err == nil && g.Frozen()
}

func pausedFor(id, verb string) error {
	return errdef.Conflict("Container %s is paused, unpause the container before %s", id, verb)
}

// thaw unpauses c if it is paused.
func (e *Engine) thaw(c *Container) error {
	if !e.frozen(c) {
		return nil
	}
	g, err := e.group(c)
	if err != nil {
		return err
	}
	return g.Thaw()
}
