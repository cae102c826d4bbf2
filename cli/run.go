package cli

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func buildRun(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] IMAGE [COMMAND] [ARG...]"
	cmd.Args = a.arguments(1, -1)
	f := cmd.Flags()
	o := containerFlags(f)
	refuseFlags(f)
	detach := f.BoolP("detach", "d", false, "Leave it running in the background and print its id")
	keys := f.String("detach-keys", "", "Keys that leave it running, instead of ctrl-p,ctrl-q")
	sigProxy := f.Bool("sig-proxy", true, "Pass signals on to the container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *detach && len(o.attach) > 0 {
			return errdef.Invalid("conflicting options: cannot specify both --attach and --detach")
		}
		req, err := o.request(args[0], args[1:])
		if err != nil {
			return a.usageHint(cmd, err)
		}
		if *detach {
			req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
		}
		r := &run{app: a, options: o, req: req, detach: *detach, keysText: *keys, sigProxy: *sigProxy}
		return r.do(cmd.Context())
	}
}

// run is one hull run. Its requests come in an order that misses nothing:
//
//	create → attach (before the first byte) → wait (before the exit, or a short --rm container is gone) → start
type run struct {
	*app
	options  *options
	req      container.CreateRequest
	detach   bool
	keysText string
	keys     []byte
	sigProxy bool

	c  *client.Client
	id string
}

func (r *run) do(ctx context.Context) error {
	var err error
	r.keysText = cmp.Or(r.keysText, r.docker().DetachKeys)
	if r.keys, err = detachKeys(r.keysText); err != nil {
		return status(exitEngine, err)
	}
	if err := r.checkTerminal(r.req.AttachStdin, r.req.Tty); err != nil {
		return err
	}
	if size := r.consoleSize(r.req.Tty); size != nil {
		r.req.HostConfig.ConsoleSize = *size
	}
	if r.c, err = r.engine(); err != nil {
		return status(exitEngine, err)
	}
	ctx, interrupts := r.interruptible(ctx)
	defer interrupts.stop()
	if r.id, err = r.createContainer(ctx, r.c, r.options, r.req, true); err != nil {
		return interrupts.or(status(exitEngine, err))
	}
	r.Trace.Step("created")
	if err := interrupts.check(); err != nil {
		return interrupts.or(r.giveUp(err))
	}
	if r.detach {
		return interrupts.or(r.background(ctx))
	}
	return interrupts.or(r.foreground(ctx, interrupts))
}

func (r *run) background(ctx context.Context) error {
	err := r.c.ContainerStart(ctx, r.id)
	r.out.println(r.id) // also of one that did not start: it is there, and somebody has to remove it
	return startStatus(err)
}

func (r *run) foreground(ctx context.Context, in *interrupts) error {
	stream, err := r.connect(ctx)
	if err != nil {
		return r.giveUp(status(exitEngine, err))
	}
	if stream != nil {
		defer stream.Close()
	}
	waiting, err := r.c.ContainerWait(ctx, r.id, r.until())
	if err != nil {
		return r.giveUp(status(exitEngine, err))
	}
	defer waiting.Close()
	r.Trace.Step("attached and waiting")
	if err := in.check(); err != nil {
		return r.giveUp(err)
	}
	if err := r.c.ContainerStart(ctx, r.id); err != nil {
		if ctx.Err() != nil { // nobody waits for what the engine would do about a start that failed
			return r.giveUp(status(exitEngine, err))
		}
		return r.notStarted(waiting, err)
	}
	r.Trace.Step("started")
	if r.sigProxy {
		in.pass(func(s os.Signal) { r.forward(context.WithoutCancel(ctx), s) })
	} else {
		in.pass(nil)
	}
	if r.req.Tty {
		defer r.followSize(func(w, h int) error { return r.c.ContainerResize(ctx, r.id, w, h) })()
	}
	if stream != nil {
		if err := r.stdioUntilEnd(stream); err != nil {
			if errors.Is(err, errDetached) {
				r.err.println(err)
				return nil
			}
			return status(exitEngine, err)
		}
		r.Trace.Step("output ended")
	}
	return r.exitStatus(waiting)
}

func (r *run) until() container.WaitCondition {
	if r.options.remove {
		return container.WaitConditionRemoved
	}
	return container.WaitConditionNextExit
}

// connect attaches to what -a asks for; nil when nothing.
func (r *run) connect(ctx context.Context) (*client.Stream, error) {
	c := r.req.Config
	if !c.AttachStdin && !c.AttachStdout && !c.AttachStderr {
		return nil, nil
	}
	s, err := r.c.ContainerAttach(ctx, r.id, client.AttachOptions{
		Stdin: c.AttachStdin, Stdout: c.AttachStdout, Stderr: c.AttachStderr, DetachKeys: r.keysText,
	})
	if err != nil {
		return nil, err
	}
	s.Multiplexed = !c.Tty
	return s, nil
}

func (r *run) stdioUntilEnd(stream *client.Stream) error {
	c := r.req.Config
	s := &session{
		app: r.app, stream: stream, stdin: c.AttachStdin, tty: c.Tty, keys: r.keys,
		stdout: stdio(r.Stdout, c.AttachStdout), stderr: stdio(r.Stderr, c.AttachStderr),
	}
	return s.run()
}

func (r *run) exitStatus(w *client.Waiting) error {
	res, err := w.Status()
	if err != nil {
		return status(exitEngine, err)
	}
	if res.Error != nil && res.Error.Message != "" {
		return status(exitEngine, errors.New(res.Error.Message))
	}
	return exit(int(res.StatusCode))
}

// removalGrace is how long a failed start waits for the engine to remove a --rm container.
const removalGrace = 10 * time.Second

// notStarted reports a failed start after the engine has cleaned up behind it, so that nothing is left when the
// command returns.
func (r *run) notStarted(w *client.Waiting, err error) error {
	if r.options.remove {
		t := time.AfterFunc(removalGrace, w.Close)
		defer t.Stop()
		w.Status() // how it ended is known already
	}
	return startStatus(err)
}

// giveUp removes the container of a --rm run that will not be started.
func (r *run) giveUp(err error) error {
	if !r.options.remove {
		return err
	}
	return errors.Join(err, r.takeBack(r.c, r.id))
}

// forward passes a signal on. A container that has ended in the meantime needs it no more.
func (r *run) forward(ctx context.Context, s os.Signal) {
	if name := unix.SignalName(s.(unix.Signal)); name != "" {
		r.c.ContainerKill(ctx, r.id, name)
	}
}
