package main

import (
	"os"

	"hull/errdef"
	"hull/runtime"
)

func start(c *command) error {
	return c.withContainer(func(k *container) error {
		if err := k.loadSpec(); err != nil {
			return err
		}
		return c.start(k)
	})
}

// start lets the waiting process go on. The caller has locked the container.
func (c *command) start(k *container) error {
	switch s := k.status(); s {
	case created:
	case stopped:
		return errdef.Conflict("cannot start a container that has stopped")
	case running, paused:
		return errdef.Conflict("cannot start an already running container")
	default:
		return errdef.Conflict("cannot start a container in the %s state", s)
	}
	if err := c.containerHooks(k, "startContainer", created); err != nil {
		return err
	}
	if err := runtime.Start(k.fifo()); err != nil {
		return err
	}
	if err := os.Remove(k.fifo()); err != nil {
		return err
	}
	// runtime-spec: the process runs, so a poststart hook that fails is reported and nothing else.
	if err := c.hooks(k, "poststart", running); err != nil {
		c.report("warning", err.Error())
	}
	return nil
}
