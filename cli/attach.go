package cli

import (
	"context"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func buildAttach(a *app, cmd *cobra.Command) {
	var keys string
	var noStdin, sigProxy bool
	cmd.Use += " [OPTIONS] CONTAINER"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.StringVar(&keys, "detach-keys", "", "Keys that leave it running, instead of ctrl-p,ctrl-q")
	f.BoolVar(&noStdin, "no-stdin", false, "Do not connect stdin")
	f.BoolVar(&sigProxy, "sig-proxy", true, "Pass signals on to the container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		j := &join{app: a, c: c, name: args[0], stdin: !noStdin, sigProxy: sigProxy, keysText: keys}
		return j.attach(cmd.Context())
	}
}

func (j *join) attach(ctx context.Context) error {
	if err := j.prepare(ctx); err != nil {
		return err
	}
	switch s := j.info.State; {
	case !s.Running:
		return hint(errdef.Conflict("cannot attach to a stopped container, start it first"), "Run '"+j.Name+" start -a "+displayName(j.info.Name)+"'.")
	case s.Paused:
		return errdef.Conflict("cannot attach to a paused container, unpause it first")
	case s.Restarting:
		return errdef.Conflict("cannot attach to a restarting container")
	}
	j.redraw = true
	ctx, in := j.interruptible(ctx)
	defer in.stop()
	// The wait comes first: a container that ends while we attach still has an exit status to give.
	w, err := j.c.ContainerWait(ctx, j.info.ID, container.WaitConditionNotRunning)
	if err != nil {
		return in.or(err)
	}
	defer w.Close()
	stream, err := j.connect(ctx)
	if err != nil {
		return in.or(err)
	}
	defer stream.Close()
	return j.stay(ctx, in, stream, w)
}
