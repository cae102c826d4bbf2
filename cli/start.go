package cli

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"

	"hull/client"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildStart(a *app, cmd *cobra.Command) {
	var attach, stdin bool
	var keys string
	cmd.Use += " [OPTIONS] CONTAINER [CONTAINER...]"
	cmd.Args = a.arguments(1, -1)
	f := cmd.Flags()
	f.BoolVarP(&attach, "attach", "a", false, "Connect stdout and stderr, and pass signals on")
	f.StringVar(&keys, "detach-keys", "", "Keys that leave it running, instead of ctrl-p,ctrl-q")
	f.BoolVarP(&stdin, "interactive", "i", false, "Connect stdin")
	refusedFlags(f, []refused{{name: "checkpoint", why: notYet}, {name: "checkpoint-dir", why: notYet}})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		if !attach && !stdin {
			return a.eachPrinted(args, func(name string) error { return c.ContainerStart(cmd.Context(), name) })
		}
		if len(args) > 1 {
			return errdef.Invalid("you cannot start and attach multiple containers at once")
		}
		j := &join{app: a, c: c, name: args[0], stdin: stdin, sigProxy: true, keysText: keys}
		return j.start(cmd.Context())
	}
}

// join is attach, and start with attach: the client at the stdio of a container made earlier.
type join struct {
	*app
	c        *client.Client
	name     string
	stdin    bool // wanted
	sigProxy bool
	keysText string
	keys     []byte

	tty    bool
	redraw bool // what is on the terminal was written before we came
	info   container.InspectResponse
}

// prepare learns how the container was made.
func (j *join) prepare(ctx context.Context) error {
	var err error
	j.keysText = cmp.Or(j.keysText, j.docker().DetachKeys)
	if j.keys, err = detachKeys(j.keysText); err != nil {
		return err
	}
	if j.info, _, err = j.c.ContainerInspect(ctx, j.name, false); err != nil {
		return err
	}
	if j.info.Config == nil || j.info.State == nil {
		return errdef.Unavailable("the engine's answer does not describe the container %s", j.name)
	}
	j.tty = j.info.Config.Tty
	j.stdin = j.stdin && j.info.Config.OpenStdin
	return j.checkTerminal(j.stdin, j.tty)
}

func (j *join) connect(ctx context.Context) (*client.Stream, error) {
	s, err := j.c.ContainerAttach(ctx, j.info.ID, client.AttachOptions{
		Stdin: j.stdin, Stdout: true, Stderr: true, DetachKeys: j.keysText,
	})
	if err != nil {
		return nil, err
	}
	s.Multiplexed = !j.tty
	return s, nil
}

func (j *join) start(ctx context.Context) error {
	if err := j.prepare(ctx); err != nil {
		return err
	}
	until := container.WaitConditionNextExit
	if h := j.info.HostConfig; h != nil && h.AutoRemove {
		until = container.WaitConditionRemoved
	}
	ctx, in := j.interruptible(ctx)
	defer in.stop()
	stream, err := j.connect(ctx)
	if err != nil {
		return in.or(err)
	}
	defer stream.Close()
	w, err := j.c.ContainerWait(ctx, j.info.ID, until)
	if err != nil {
		return in.or(err)
	}
	defer w.Close()
	if err := j.c.ContainerStart(ctx, j.info.ID); err != nil {
		return in.or(err)
	}
	return j.stay(ctx, in, stream, w)
}

// stay passes stdio and signals until the container ends.
func (j *join) stay(ctx context.Context, in *interrupts, stream *client.Stream, w *client.Waiting) error {
	r := &run{app: j.app, c: j.c, id: j.info.ID}
	if j.sigProxy {
		in.pass(func(s os.Signal) { r.forward(context.WithoutCancel(ctx), s) })
	} else {
		in.pass(nil)
	}
	if j.tty {
		resize := func(width, height int) error { return j.c.ContainerResize(ctx, j.info.ID, width, height) }
		if w, h := j.out.size(); j.redraw && w > 0 && h > 0 {
			resize(w, h+1) // the change back makes programs draw themselves anew
		}
		defer j.followSize(resize)()
	}
	s := &session{app: j.app, stream: stream, stdin: j.stdin, tty: j.tty, keys: j.keys, stdout: j.Stdout, stderr: j.Stderr}
	if err := s.run(); err != nil {
		if errors.Is(err, errDetached) {
			j.err.println(err)
			return nil
		}
		return err
	}
	return r.exitStatus(w)
}

// displayName is a container's name without Docker's slash.
func displayName(name string) string { return strings.TrimPrefix(name, "/") }
