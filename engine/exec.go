package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"hull/errdef"
	"hull/monitor"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecConfig is a further process for a running container. What is empty is as in the container.
type ExecConfig struct {
	Args        []string
	Env         []string // added to the container's
	User        string
	WorkingDir  string
	Tty         bool
	Stdin       bool
	Stdout      bool
	Stderr      bool
	Privileged  bool
	ConsoleSize Size
	DetachKeys  string // as the person typed them; kept for whoever starts it
}

// ExecStart says how an exec is started.
type ExecStart struct {
	Detach      bool
	ConsoleSize Size // zero leaves what the create said
}

// Exec is what is known of one exec.
type Exec struct {
	ID, Container         string
	Running               bool
	Started               bool
	Pid                   int
	ExitCode              int
	Args                  []string
	User                  string
	Tty                   bool
	Stdin, Stdout, Stderr bool
	Privileged            bool
}

// ExecCreate registers a process and returns the id to start it by. The monitor keeps it while the container runs.
func (e *Engine) ExecCreate(ctx context.Context, name string, cfg *ExecConfig) (string, error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return "", err
	}
	switch {
	case c.State.Status == StatusRestarting:
		return "", restartingFor(c.ID)
	case !c.Running():
		return "", notRunning(c.ID)
	}
	if c.State.Status == StatusPaused {
		return "", pausedFor(c.ID, "exec")
	}
	p, err := c.execProcess(cfg)
	if err != nil {
		return "", err
	}
	resp, err := e.ask(ctx, c.ID, &monitor.Request{
		Op: monitor.OpExecCreate, Process: p, Privileged: cfg.Privileged,
		Stdin: cfg.Stdin, Stdout: cfg.Stdout, Stderr: cfg.Stderr, DetachKeys: cfg.DetachKeys,
	})
	if errors.Is(err, monitor.ErrNoMonitor) {
		return "", notRunning(c.ID)
	}
	if err != nil {
		return "", err
	}
	e.opt.Trace.Step("register exec")
	return c.ID + resp.Exec, nil // whoever has the id finds the container without looking at others
}

// execProcess is the container's process with what cfg changes.
func (c *Container) execProcess(cfg *ExecConfig) (*specs.Process, error) {
	if len(cfg.Args) == 0 || cfg.Args[0] == "" && len(cfg.Args) == 1 {
		return nil, errdef.Invalid("no exec command specified")
	}
	if slices.ContainsFunc(cfg.Args, func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return nil, errdef.Invalid("invalid command: an argument has a NUL byte")
	}
	if err := errors.Join(checkEnv(cfg.Env), checkUser(cfg.User), checkWorkingDir(cfg.WorkingDir)); err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	host := c.Host
	host.Privileged = host.Privileged || cfg.Privileged
	caps, _, err := capabilities(&host)
	if err != nil {
		return nil, err
	}
	sec, err := parseSecurity(&host)
	if err != nil {
		return nil, err
	}
	p, err := c.process(caps, sec)
	if err != nil {
		return nil, err
	}
	p.Args, p.Terminal, p.ConsoleSize = cfg.Args, cfg.Tty, nil
	if cfg.Tty {
		p.Env = overlayEnv([]string{"TERM=xterm"}, p.Env)
		if cfg.ConsoleSize != (Size{}) {
			p.ConsoleSize = &specs.Box{Height: uint(cfg.ConsoleSize.Height), Width: uint(cfg.ConsoleSize.Width)}
		}
	}
	p.Env = overlayEnv(p.Env, cfg.Env)
	if cfg.User != "" {
		p.User.Username = cfg.User
	}
	if cfg.WorkingDir != "" {
		p.Cwd = cfg.WorkingDir
	}
	return p, nil
}

// cutExec splits an exec's id into the container's and the monitor's.
func cutExec(id string) (container, exec string, err error) {
	if len(id) <= idLength || !isHex(id) {
		return "", "", noSuchExec(id)
	}
	return id[:idLength], id[idLength:], nil
}

func noSuchExec(id string) error { return errdef.NotFound("No such exec instance: %s", clip(id)) }

// askExec is ask about an exec: a container that is gone has none.
func (e *Engine) askExec(ctx context.Context, id string, r *monitor.Request) (*monitor.Response, error) {
	container, exec, err := cutExec(id)
	if err != nil {
		return nil, err
	}
	r.Exec = exec
	resp, err := e.ask(ctx, container, r)
	if errors.Is(err, monitor.ErrNoMonitor) || errors.Is(err, errdef.ErrNotFound) {
		return nil, noSuchExec(id)
	}
	return resp, err
}

// ExecStart runs a registered exec; it returns after its command was executed. The stream is nil with Detach; keys are
// those of the create.
func (e *Engine) ExecStart(ctx context.Context, id string, o ExecStart) (s Stream, tty bool, keys string, err error) {
	container, exec, err := cutExec(id)
	if err != nil {
		return nil, false, "", err
	}
	r := &monitor.Request{Op: monitor.OpExecStart, Exec: exec, Detach: o.Detach, Height: o.ConsoleSize.Height, Width: o.ConsoleSize.Width}
	if o.Detach {
		_, err := e.askExec(ctx, id, r)
		return nil, false, "", err
	}
	conn, err := monitor.Dial(ctx, e.runDir(container))
	if errors.Is(err, monitor.ErrNoMonitor) {
		return nil, false, "", noSuchExec(id)
	}
	if err != nil {
		return nil, false, "", err
	}
	resp, err := conn.Do(ctx, r)
	if err != nil {
		conn.Close()
		if errors.Is(err, errdef.ErrNotFound) {
			err = noSuchExec(id)
		}
		return nil, false, "", err
	}
	e.opt.Trace.Step("start exec")
	if resp.ExecState != nil && resp.ExecState.Process != nil {
		tty, keys = resp.ExecState.Process.Terminal, resp.ExecState.DetachKeys
	}
	return conn.Stream(), tty, keys, nil
}

// ExecInspect tells how an exec stands. It is known as long as the container runs.
func (e *Engine) ExecInspect(ctx context.Context, id string) (*Exec, error) {
	resp, err := e.askExec(ctx, id, &monitor.Request{Op: monitor.OpExecState})
	if err != nil {
		return nil, err
	}
	s := resp.ExecState
	x := &Exec{
		ID: id, Container: id[:idLength], Running: s.Running, Started: s.Started, Pid: s.Pid, ExitCode: s.ExitCode,
		Stdin: s.OpenStdin, Stdout: s.OpenStdout, Stderr: s.OpenStderr,
	}
	if p := s.Process; p != nil {
		x.Args, x.User, x.Tty = p.Args, p.User.Username, p.Terminal
	}
	return x, nil
}

// ExecResize sets the size of an exec's terminal.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint16) error {
	_, err := e.askExec(ctx, id, &monitor.Request{Op: monitor.OpResize, Height: height, Width: width})
	return err
}
