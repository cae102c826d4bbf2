package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// endGrace is for a container whose kill was asked for just before.
const endGrace = 200 * time.Millisecond

// awaitEnd waits for the end of the init process, at most d.
func (k *container) awaitEnd(d time.Duration) {
	p, err := k.open()
	if err != nil {
		return
	}
	defer p.Close()
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.Fd()), Events: unix.POLLIN}}, max(int(left.Milliseconds()), 0))
		if err != unix.EINTR || left <= 0 {
			return
		}
	}
}

func remove(c *command) error {
	fs := c.flags()
	var force bool
	for _, name := range []string{"force", "f"} {
		fs.BoolVar(&force, name, false, "")
	}
	args, err := c.parse(fs, 1, 1)
	if err != nil {
		return err
	}
	k, unlock, err := c.loadLocked(args[0])
	if force && errors.Is(err, errdef.ErrNotFound) {
		// What a create left that was killed before it had written anything, or nothing.
		return state.Remove(filepath.Join(c.root, args[0]))
	}
	if err != nil {
		return err
	}
	defer unlock()
	if s := k.status(); s == running && !force {
		k.awaitEnd(endGrace)
	}
	if s := k.status(); s != stopped {
		if !force {
			return errdef.Conflict("cannot delete container %s that is not stopped: %s", k.ID, s)
		}
		if p, err := k.open(); err == nil {
			err = unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0)
			p.Close()
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	if err := k.loadSpec(); err != nil && !force {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, clearTimeout)
	defer cancel()
	if err := k.remove(ctx); err != nil {
		return err
	}
	// runtime-spec: logged, and the removal goes on as if the hook had succeeded.
	if err := c.hooks(k, "poststop", stopped); err != nil {
		c.report("warning", err.Error())
	}
	return nil
}
