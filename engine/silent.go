package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// A monitor may be there and not answer: somebody sent it SIGSTOP, a debugger holds it, its memory is swapped out to a
// device that is gone. The container runs on, and only what ends it works without: its process is signalled through a
// pidfd, the monitor killed, and the rest is the repair that follows the death of any monitor. What only tells of the
// container asks no monitor.

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

// stopSilent is stop of c, whose monitor is silent: its first process gets the time to end that it has with any other.
// Nobody sees its exit code.
func (e *Engine) stopSilent(ctx context.Context, c *Container, sig int, wait time.Duration) error {
	p, err := e.signalFirst(c, sig)
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
		if err := e.thaw(c); err != nil {
			return err
		}
		if err := awaitProcess(ctx, p, wait); err != nil {
			return err
		}
	}
	return e.endSilent(ctx, c)
}

// awaitProcess waits until the process of the pidfd p has ended, for at most d, negative for ever.
func awaitProcess(ctx context.Context, p *os.File, d time.Duration) error {
	const look = 50 * time.Millisecond // at ctx
	for end := time.Now().Add(d); d < 0 || time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(p.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(look.Milliseconds()))
		switch {
		case err != nil && err != unix.EINTR:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
	return nil
}

// killFirst kills the first process of c past its monitor, if it runs.
func (e *Engine) killFirst(c *Container) error {
	p, err := e.signalFirst(c, int(unix.SIGKILL))
	if p != nil {
		p.Close()
	}
	return err
}

// signalFirst sends a signal to the first process of c past its monitor, and returns its pidfd: nil when it has ended.
func (e *Engine) signalFirst(c *Container, sig int) (*os.File, error) {
	p, err := monitor.OpenProcess(e.dir(c.ID))
	if errors.Is(err, errdef.ErrConflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.PidfdSendSignal(int(p.Fd()), unix.Signal(sig), nil, 0)
	if err == nil {
		e.containerEvent(c, "kill", "signal", strconv.Itoa(sig))
		return p, nil
	}
	p.Close()
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	return nil, fmt.Errorf("signal the first process of container %.12s: %w", c.ID, err)
}

// killMonitor kills the monitor of the container id, so that the container can be repaired.
func (e *Engine) killMonitor(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killWait, errdef.As(errdef.ErrDeadline,
		fmt.Errorf("the monitor of container %.12s has not ended within %s of SIGKILL", id, killWait)))
	defer cancel()
	return monitor.Kill(ctx, e.runDir(id))
}
