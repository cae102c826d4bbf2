package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// A monitor may be there and not answer: somebody sent it SIGSTOP, a debugger holds it, its memory is swapped out to a
// device that is gone. The container runs on, and only what ends it works without: its process is killed through a pidfd,
// then the monitor, and the rest is the repair that follows the death of any monitor.

// silent reports whether the monitor of c does not answer.
func (e *Engine) silent(ctx context.Context, c *Container) bool {
	conn, err := monitor.Dial(ctx, e.runDir(c.ID))
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, monitor.ErrSilent)
}

// endSilent kills c, whose monitor is silent, and the monitor.
func (e *Engine) endSilent(ctx context.Context, c *Container) error {
	ctx = context.WithoutCancel(ctx)
	if err := e.killFirst(c); err != nil {
		return err
	}
	if err := e.killMonitor(ctx, c.ID); err != nil {
		return err
	}
	_, err := e.settle(ctx, c.ID)
	e.loadState(c)
	return err
}

// killFirst kills the first process of c past its monitor, if it runs.
func (e *Engine) killFirst(c *Container) error {
	p, err := monitor.OpenProcess(e.dir(c.ID))
	if errors.Is(err, errdef.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	err = unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill the first process of container %.12s: %w", c.ID, err)
	}
	e.containerEvent(c, "kill", "signal", strconv.Itoa(int(unix.SIGKILL)))
	return nil
}

// killMonitor kills the monitor of the container id, so that the container can be repaired.
func (e *Engine) killMonitor(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killWait, errdef.As(errdef.ErrDeadline,
		fmt.Errorf("the monitor of container %.12s has not ended within %s of SIGKILL", id, killWait)))
	defer cancel()
	return monitor.Kill(ctx, e.runDir(id))
}
