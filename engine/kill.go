package engine

import (
	"context"
	"errors"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// Kill sends a signal, SIGKILL for "", to the container's first process.
func (e *Engine) Kill(ctx context.Context, name, signal string) error {
	sig := int(unix.SIGKILL)
	if signal != "" {
		var err error
		if sig, err = ParseSignal(signal); err != nil {
			return err
		}
	}
	c, err := e.get(ctx, name)
	if err != nil {
		return err
	}
	restarting := c.State.Status == StatusRestarting
	if stopsBy(&c.Config, sig) {
		if err := e.forget(ctx, c); err != nil {
			return err
		}
		if restarting && !c.Running() {
			return nil
		}
	}
	if !c.Running() {
		return errdef.Conflict("cannot kill container: %s: container %s is not running", name, c.ID)
	}
	if sig == int(unix.SIGKILL) { // as in Docker: who removes the container next finds it stopped
		return e.killNow(ctx, c)
	}
	return e.signal(ctx, c, sig)
}

// signal is refused with ErrConflict when the container does not run. A paused one that is to end by the signal is
// unpaused, as in Docker: it would neither see it nor, with cgroup v1, die.
func (e *Engine) signal(ctx context.Context, c *Container, sig int) error {
	_, err := e.ask(ctx, c.ID, &monitor.Request{Op: monitor.OpSignal, Signal: sig})
	if errors.Is(err, monitor.ErrNoMonitor) {
		return notRunning(c.ID)
	}
	if err != nil {
		return err
	}
	if !endsBy(&c.Config, sig) {
		return nil
	}
	return e.thaw(c)
}

// endsBy reports whether the signal asks the container to end: SIGKILL, and its stop signal. Without one of its own any
// does, as in Docker.
func endsBy(c *Config, sig int) bool {
	if c.StopSignal == "" || sig == int(unix.SIGKILL) {
		return true
	}
	stop, err := ParseSignal(c.StopSignal)
	return err == nil && stop == sig
}

// stopsBy reports whether a person who sends the signal wants the container to stay away: SIGKILL, and its stop signal.
// With Docker any signal ends the restart policy of a container without a stop signal of its own, SIGHUP for a new
// configuration too, which nobody means.
func stopsBy(c *Config, sig int) bool {
	if sig == int(unix.SIGKILL) {
		return true
	}
	stop, _, err := stopWith(c, StopOptions{})
	return err == nil && stop == sig
}

func notRunning(id string) error { return errdef.Conflict("container %s is not running", id) }
