package engine

import (
	"context"
	"errors"
	"time"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// stopWait is how long a container may take to end after its stop signal, unless it or the person says otherwise.
const stopWait = 10 * time.Second

// StopOptions are for Stop and Restart.
type StopOptions struct {
	Signal  string // "" is the container's own
	Timeout *int   // seconds until it is killed; nil is the container's own, negative for ever
}

// Stop asks the container to end, and kills it when it does not in time. Its restart policy does not bring it back. One
// that does not run is ErrNotModified.
func (e *Engine) Stop(ctx context.Context, name string, o StopOptions) error {
	c, err := e.get(ctx, name)
	if err != nil {
		return err
	}
	restarting := c.State.Status == StatusRestarting
	if _, _, err := stopWith(&c.Config, o); err != nil {
		return err
	}
	if err := e.forget(ctx, c); err != nil {
		return err
	}
	switch {
	case c.Running():
		return e.stop(ctx, c, o)
	case restarting:
		return nil
	}
	return errdef.NotModified("container %s is not running", c.ID)
}

func (e *Engine) stop(ctx context.Context, c *Container, o StopOptions) error {
	sig, wait, err := stopWith(&c.Config, o)
	if err != nil {
		return err
	}
	switch err = e.signal(ctx, c, sig); {
	case errors.Is(err, errdef.ErrConflict):
		return nil // it ended by itself
	case errors.Is(err, monitor.ErrSilent):
		err = e.stopSilent(ctx, c, sig, wait)
	case err == nil:
		err = e.endBy(ctx, c, wait)
	}
	if err == nil {
		e.containerEvent(c, "stop")
	}
	return err
}

// endBy waits for the end of c after its stop signal, and kills it when it takes longer than wait.
func (e *Engine) endBy(ctx context.Context, c *Container, wait time.Duration) error {
	if err := e.thaw(c); err != nil { // whatever the signal: it is to end
		return err
	}
	err := e.awaitEnd(ctx, c, wait)
	if errors.Is(err, errdef.ErrDeadline) {
		err = e.killNow(ctx, c)
	}
	return err
}

// stopWith is the signal to stop with and how long to wait then; negative is for ever.
func stopWith(c *Config, o StopOptions) (sig int, wait time.Duration, err error) {
	sig, wait = int(unix.SIGTERM), stopWait
	for _, s := range []string{c.StopSignal, o.Signal} {
		if s != "" {
			if sig, err = ParseSignal(s); err != nil {
				return 0, 0, err
			}
		}
	}
	for _, t := range []*int{c.StopTimeout, o.Timeout} {
		if t != nil {
			wait = time.Duration(*t) * time.Second
		}
	}
	return sig, wait, nil
}
