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
	if !c.Running() {
		return errdef.Conflict("cannot kill container: %s: container %s is not running", name, c.ID)
	}
	return e.signal(ctx, c.ID, sig)
}

// signal is refused with ErrConflict when the container does not run.
func (e *Engine) signal(ctx context.Context, id string, sig int) error {
	_, err := e.ask(ctx, id, &monitor.Request{Op: monitor.OpSignal, Signal: sig})
	if errors.Is(err, monitor.ErrNoMonitor) {
		return notRunning(id)
	}
	return err
}

func notRunning(id string) error { return errdef.Conflict("container %s is not running", id) }
