package engine

import (
	"context"
	"errors"
	"os"
	"time"

	"hull/errdef"
	"hull/monitor"
)

// Condition is what a wait waits for.
type Condition string

// The conditions of Wait.
const (
	NotRunning Condition = "not-running" // holds at once for a container that does not run
	NextExit   Condition = "next-exit"
	Removed    Condition = "removed"
)

// Exit is how a container ended.
type Exit struct {
	Code  int
	Error string // why there is no exit status of its own
}

// Wait waits for the condition. ready is called as soon as no exit can be missed any more: a client that waits
// before it starts the container starts it then. Waiting for the removal of a container that removes itself
// removes it, so that no further process has to.
func (e *Engine) Wait(ctx context.Context, name string, cond Condition, ready func()) (Exit, error) {
	c, err := e.get(ctx, name)
	if err != nil {
		return Exit{}, err
	}
	switch cond {
	case "", NotRunning:
		if !c.Running() && c.State.Status != StatusRestarting {
			ready()
			return exitOf(&c.State), nil
		}
		return e.waitStopped(ctx, c, ready)
	case NextExit:
		return e.waitExit(ctx, c, &monitor.Request{Op: monitor.OpWait}, ready)
	case Removed:
		if c.Host.AutoRemove && c.known() {
			return e.waitExit(ctx, c, &monitor.Request{Op: monitor.OpWait, Remove: true}, ready)
		}
		ready()
		return e.waitGone(ctx, c)
	}
	return Exit{}, errdef.Invalid("invalid condition: %q", clip(string(cond)))
}

func exitOf(s *State) Exit { return Exit{s.ExitCode, s.Error} }

// waitExit waits for an exit at the container's monitor. Without one, one is started, so that there is a place to
// wait at before the container is.
func (e *Engine) waitExit(ctx context.Context, c *Container, r *monitor.Request, ready func()) (Exit, error) {
	conn, err := e.monitor(ctx, c)
	if err != nil {
		return Exit{}, err
	}
	defer conn.Close()
	ready()
	resp, err := conn.Do(ctx, r)
	if errors.Is(err, monitor.ErrNoMonitor) {
		return e.exitOnDisk(context.WithoutCancel(ctx), c, r.Remove)
	}
	if err != nil {
		return Exit{}, err
	}
	e.opt.Trace.Step("container ended")
	if r.Remove {
		err := e.remove(context.WithoutCancel(ctx), c.ID)
		if err != nil && !errors.Is(err, errdef.ErrNotFound) {
			return Exit{}, err
		}
	}
	return Exit{resp.State.ExitCode, resp.State.Error}, nil
}

// waitStopped waits for the end of a container that was seen running. Its monitor may be gone since, or another one
// may have been started to wait for the next start: both know less than the disk.
func (e *Engine) waitStopped(ctx context.Context, c *Container, ready func()) (Exit, error) {
	conn, err := monitor.Dial(ctx, e.runDir(c.ID))
	if errors.Is(err, monitor.ErrNoMonitor) {
		ready()
		return e.exitOnDisk(context.WithoutCancel(ctx), c, false)
	}
	if err != nil {
		return Exit{}, err
	}
	defer conn.Close()
	ready()
	resp, err := conn.Do(ctx, &monitor.Request{Op: monitor.OpWait, Now: true})
	if errors.Is(err, monitor.ErrNoMonitor) || err == nil && resp.State.Status == monitor.StatusCreated {
		return e.exitOnDisk(context.WithoutCancel(ctx), c, false)
	}
	if err != nil {
		return Exit{}, err
	}
	return Exit{resp.State.ExitCode, resp.State.Error}, nil
}

// exitOnDisk is for a wait whose monitor went away: it was killed, or had no container to start.
func (e *Engine) exitOnDisk(ctx context.Context, c *Container, remove bool) (Exit, error) {
	if _, err := e.repair(ctx, c.ID); err != nil {
		return Exit{}, err
	}
	if !e.exists(c.ID) {
		return Exit{}, noSuchContainer(c.ID)
	}
	e.loadState(c)
	exit := exitOf(&c.State)
	if e.due(c.ID) {
		if err := e.resume(ctx, c.ID); err != nil {
			return exit, err
		}
	}
	if remove {
		if err := e.remove(ctx, c.ID); err != nil && !errors.Is(err, errdef.ErrNotFound) {
			return exit, err
		}
	}
	return exit, nil
}

// waitGone waits until somebody removes the container. It looks from time to time, because inotify instances are
// few (128 for each user) and this wait is rare.
func (e *Engine) waitGone(ctx context.Context, c *Container) (Exit, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if _, err := os.Lstat(e.dir(c.ID)); isMissing(err) {
			return exitOf(&c.State), nil
		}
		e.loadState(c)
		select {
		case <-ctx.Done():
			return Exit{}, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
