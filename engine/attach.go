package engine

import (
	"context"
	"errors"
	"io"
	"strconv"

	"hull/monitor"
)

// Stream is the stdio of a container or an exec: writes go to its stdin, CloseWrite ends it. What is read is raw
// with a terminal, else in frames of the Docker stream format. The end of what is read is the end of the output; for
// a container its exit state is on disk then. Close detaches.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// AttachOptions choose streams.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
}

// Attach connects to the container's stdio, before its start or while it runs. Nothing of a start that is asked for
// later is missed.
func (e *Engine) Attach(ctx context.Context, name string, o AttachOptions) (s Stream, tty bool, err error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if c.State.Status == StatusPaused {
		return nil, false, pausedFor(c.ID, "attach")
	}
	if c.State.Status == StatusRestarting {
		return nil, false, restartingFor(c.ID)
	}
	conn, err := e.monitor(ctx, c)
	if err != nil {
		return nil, false, err
	}
	_, err = conn.Do(ctx, &monitor.Request{
		Op: monitor.OpAttach, Stdin: o.Stdin && c.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr,
	})
	if err != nil {
		conn.Close()
		return nil, false, err
	}
	e.containerEvent(c, "attach")
	e.opt.Trace.Step("attach")
	return conn.Stream(), c.Config.Tty, nil
}

// Resize sets the size of the container's terminal.
func (e *Engine) Resize(ctx context.Context, name string, height, width uint16) error {
	c, err := e.get(ctx, name)
	if err != nil {
		return err
	}
	if err := e.resize(ctx, c.ID, &monitor.Request{Op: monitor.OpResize, Height: height, Width: width}); err != nil {
		return err
	}
	e.containerEvent(c, "resize", "height", strconv.Itoa(int(height)), "width", strconv.Itoa(int(width)))
	return nil
}

func (e *Engine) resize(ctx context.Context, id string, r *monitor.Request) error {
	_, err := e.ask(ctx, id, r)
	if errors.Is(err, monitor.ErrNoMonitor) {
		return notRunning(id)
	}
	return err
}
