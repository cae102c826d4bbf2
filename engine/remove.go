package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/state"

	"golang.org/x/sys/unix"
)

// killWait bounds how long a command waits for a killed container to end.
const killWait = 10 * time.Second

// RemoveOptions are for Remove.
type RemoveOptions struct {
	Force   bool   // kill it first if it runs
	Volumes bool   // with its anonymous volumes, those that no other container has
	Now     bool   // past the trash
	Batch   string // the same for all that one command removes
}

// Remove removes a container and everything it wrote. It works on damaged ones too. Of several at once each
// succeeds or says that the container is gone. saved is for how long it can be restored; 0 is not at all.
func (e *Engine) Remove(ctx context.Context, name string, o RemoveOptions) (saved time.Duration, err error) {
	for range forceTries {
		saved, err = e.removeOnce(ctx, name, &o)
		if !o.Force || !errors.Is(err, errStarted) {
			break
		}
	}
	return saved, err
}

// forceTries is how often a forced removal kills a container that somebody, be it its restart policy, starts meanwhile.
const forceTries = 5

func (e *Engine) removeOnce(ctx context.Context, name string, o *RemoveOptions) (saved time.Duration, err error) {
	c, err := e.get(ctx, name)
	if err != nil {
		return 0, err
	}
	if c.Unread != nil { // what else would have to go with it?
		return 0, fmt.Errorf("cannot remove: %w", e.unreadable(c))
	}
	if err := removable(c, o.Force); err != nil {
		return 0, err
	}
	running := c.Running()
	if running || c.State.Status == StatusRestarting {
		if err := e.forget(ctx, c); err != nil {
			return 0, err
		}
	}
	if running {
		if err := e.killNow(ctx, c); err != nil {
			return 0, err
		}
	}
	done := false
	if !c.Host.AutoRemove && c.Damaged == "" && !o.Now {
		done, saved, err = e.saveContainer(ctx, c, o)
	}
	if !done && err == nil {
		err = e.take(ctx, c.ID, o.Volumes)
	}
	if !c.Host.AutoRemove {
		_ = e.tidyTrash(ctx, nil) // or the next command does
	}
	switch {
	case errors.Is(err, errdef.ErrNotFound) && running && c.Host.AutoRemove:
		return 0, nil // gone at its end
	case errors.Is(err, errdef.ErrNotFound):
		return 0, noSuchContainer(name)
	case err != nil:
		return 0, fmt.Errorf("cannot remove container %q: %w", "/"+c.Name, err)
	}
	return saved, nil
}

// removable refuses the removal of what is about to run, unless it is forced.
func removable(c *Container, force bool) error {
	refuse := func(why string) error {
		return errdef.Conflict("cannot remove container %q: container is %s", "/"+c.Name, why)
	}
	switch {
	case force:
		return nil
	case c.State.Status == StatusRestarting:
		return refuse("restarting: stop the container before removing or force remove")
	case c.State.Status == StatusPaused:
		return refuse("paused and must be unpaused first")
	case c.Running():
		return refuse("running: stop the container before removing or force remove")
	}
	return nil
}

// remove takes the stopped container id away; with its anonymous volumes, if it removes itself at its end.
// ErrNotFound: somebody else was first.
func (e *Engine) remove(ctx context.Context, id string) error { return e.take(ctx, id, false) }

// take is remove as limbo.go draws it; with volumes the anonymous ones go too, whatever the definition says.
func (e *Engine) take(ctx context.Context, id string, volumes bool) error {
	l, err := e.lockStopped(ctx, id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if err := e.markDrop(id, volumes); err != nil {
		return err
	}
	if err := e.unpublish(ctx, id); err != nil {
		return err
	}
	err = os.Rename(e.dir(id), e.limbo(id))
	if isMissing(err) {
		if err = e.makeStore(); err == nil {
			err = os.Rename(e.dir(id), e.limbo(id))
		}
	}
	if isMissing(err) {
		return noSuchContainer(id)
	}
	if err != nil {
		return err
	}
	// From here on the container is gone for everybody; the rest is cleaning up.
	e.unkeep(id)
	err = e.dissolve(id, func(c *Container) {
		if c.Image != "" {
			e.images().Used(c.Image) // until now
		}
		e.containerEvent(c, "destroy")
	})
	e.opt.Trace.Step("remove container")
	return err
}

// lockStopped locks a container that does not run, for its removal.
func (e *Engine) lockStopped(ctx context.Context, id string) (*state.Locked, error) {
	e.dropHead(id)
	l, err := e.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: id}
	e.loadState(c)
	switch {
	case c.Unread != nil: // it may run
		l.Unlock()
		return nil, e.unreadable(c)
	case c.Running():
		l.Unlock()
		return nil, errdef.As(errdef.ErrConflict, errStarted)
	}
	return l, nil
}

// errStarted is the cause when a container that did not run does by the time it is locked.
const errStarted = plainError("container is running: stop the container before removing or force remove")

// markDrop notes for whoever dissolves the container id whether its anonymous volumes go with it. A note that a killed
// remove left behind no longer counts.
func (e *Engine) markDrop(id string, volumes bool) error {
	note := filepath.Join(e.dir(id), dropFile)
	if !volumes {
		if err := unix.Unlink(note); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "unlink", Path: note, Err: err}
		}
		return nil
	}
	fd, err := unix.Open(note, unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: note, Err: err}
	}
	return unix.Close(fd)
}

// killNow kills the container and waits until its end is on disk. It needs no monitor that answers.
func (e *Engine) killNow(ctx context.Context, c *Container) error {
	err := e.signal(ctx, c, int(unix.SIGKILL))
	if err == nil || errors.Is(err, errdef.ErrConflict) {
		err = e.awaitEnd(ctx, c, killWait)
	}
	if errors.Is(err, monitor.ErrSilent) || errors.Is(err, errdef.ErrDeadline) && e.silent(ctx, c) {
		return e.endSilent(ctx, c)
	}
	return err
}

// awaitEnd waits for at most d, negative for ever, until the container does not run. One that removes itself at its end
// is removed here, so that no further process has to. The error of kind ErrDeadline says whom it waited for.
func (e *Engine) awaitEnd(ctx context.Context, c *Container, d time.Duration) error {
	bounded := ctx
	if d >= 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeoutCause(ctx, d, errdef.As(errdef.ErrDeadline,
			fmt.Errorf("container %s has not ended within %s", c.ID[:12], d)))
		defer cancel()
	}
	conn, err := monitor.Dial(bounded, e.runDir(c.ID))
	if err == nil {
		defer conn.Close()
		_, err = conn.Do(bounded, &monitor.Request{Op: monitor.OpWait, Now: true, Remove: c.Host.AutoRemove})
	}
	if errors.Is(err, monitor.ErrNoMonitor) {
		// Ended and left already, or killed. In the first case its monitor has a command remove it, later than now.
		_, err = e.settle(context.WithoutCancel(ctx), c.ID)
	}
	if err != nil || !c.Host.AutoRemove {
		return err
	}
	if err := e.remove(context.WithoutCancel(ctx), c.ID); !errors.Is(err, errdef.ErrNotFound) {
		return err
	}
	return nil
}

// ask sends one request to the container's monitor; monitor.ErrNoMonitor when there is none, monitor.ErrSilent when it
// does not answer.
func (e *Engine) ask(ctx context.Context, id string, r *monitor.Request) (*monitor.Response, error) {
	conn, err := monitor.Dial(ctx, e.runDir(id))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Do(ctx, r)
}
