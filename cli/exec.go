package cli

import (
	"cmp"
	"context"
	"errors"

	"hull/client"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildExec(a *app, cmd *cobra.Command) {
	var o execOptions
	cmd.Use += " [OPTIONS] CONTAINER COMMAND [ARG...]"
	cmd.Args = a.arguments(2, -1)
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.detach, "detach", "d", false, "Leave the command running in the background")
	f.StringVar(&o.keys, "detach-keys", "", "Keys that leave it, instead of ctrl-p,ctrl-q")
	f.VarP(&o.env, "env", "e", "Set environment variables")
	f.Var(&o.envFiles, "env-file", "Read environment variables from a file")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Connect stdin")
	f.BoolVar(&o.privileged, "privileged", false, "Give the command every right")
	f.BoolVarP(&o.tty, "tty", "t", false, "Give it a terminal")
	f.StringVarP(&o.user, "user", "u", "", "User: <name|uid>[:<group|gid>]")
	f.StringVarP(&o.dir, "workdir", "w", "", "Working directory in the container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.exec(cmd.Context(), args[0], args[1:], o) }
}

type execOptions struct {
	detach, interactive, privileged, tty bool
	keys, user, dir                      string
	env, envFiles                        listFlag
}

func (a *app) exec(ctx context.Context, name string, command []string, o execOptions) error {
	o.keys = cmp.Or(o.keys, a.docker().DetachKeys)
	keys, err := detachKeys(o.keys)
	if err != nil {
		return err
	}
	env, err := environment(o.envFiles, o.env)
	if err != nil {
		return err
	}
	req := container.ExecCreateRequest{
		User: o.user, Privileged: o.privileged, Tty: o.tty, DetachKeys: o.keys, Env: env, WorkingDir: o.dir, Cmd: command,
	}
	if !o.detach {
		req.AttachStdin, req.AttachStdout, req.AttachStderr = o.interactive, true, true
		if err := a.checkTerminal(req.AttachStdin, o.tty); err != nil {
			return err
		}
		req.ConsoleSize = a.consoleSize(o.tty)
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	id, err := c.ExecCreate(ctx, name, req)
	if err != nil {
		return err
	}
	if o.detach {
		return startStatusOr1(c.ExecStart(ctx, id, o.tty))
	}
	return a.execAttached(ctx, c, id, req, keys)
}

func (a *app) execAttached(ctx context.Context, c *client.Client, id string, req container.ExecCreateRequest, keys []byte) error {
	stream, err := c.ExecAttach(ctx, id, req.Tty, req.ConsoleSize)
	if err != nil {
		return startStatusOr1(err)
	}
	defer stream.Close()
	stop := a.dying()
	defer stop()
	if req.Tty {
		defer a.followSize(func(w, h int) error { return c.ExecResize(ctx, id, w, h) })()
	}
	stream.Multiplexed = !req.Tty
	s := &session{
		app: a, stream: stream, stdin: req.AttachStdin, tty: req.Tty, keys: keys,
		stdout: stdio(a.Stdout, req.AttachStdout), stderr: stdio(a.Stderr, req.AttachStderr),
	}
	if err := s.run(); err != nil {
		if errors.Is(err, errDetached) {
			a.err.println(err)
			return nil
		}
		return err
	}
	state, err := c.ExecInspect(ctx, id)
	if err != nil {
		return err
	}
	if state.ExitCode == nil {
		return errors.New("the stream ended before the command did")
	}
	return exit(*state.ExitCode)
}

// startStatusOr1 is startStatus for exec, whose other failures have status 1.
func startStatusOr1(err error) error {
	err = startStatus(err)
	var e *exitError
	if errors.As(err, &e) && e.code == exitEngine {
		e.code = 1
	}
	return err
}

// checkTerminal refuses to give a container a terminal nobody sits at.
func (a *app) checkTerminal(stdin, tty bool) error {
	if stdin && tty && !a.screen.isTerminal() {
		return errdef.Invalid("the input device is not a TTY")
	}
	return nil
}

// consoleSize is [height, width] of the terminal, for a container's terminal to begin with.
func (a *app) consoleSize(tty bool) *[2]uint {
	if w, h := a.out.size(); tty && w > 0 && h > 0 {
		return &[2]uint{uint(h), uint(w)}
	}
	return nil
}
