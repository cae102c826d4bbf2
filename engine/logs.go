package engine

import (
	"context"
	"iter"
	"time"

	"hull/errdef"
	"hull/monitor"
)

// LogOptions choose lines of a container's log.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: without bound
	Tail           int       // so many of the newest; negative: all
	Follow         bool      // go on while the container runs
}

// LogEntry is one line of a log, with its newline; a piece of a long line has none.
type LogEntry = monitor.Entry

// Logs yields lines of the container's log, oldest first, and whether it has a terminal.
func (e *Engine) Logs(ctx context.Context, name string, o LogOptions) (lines iter.Seq2[LogEntry, error], tty bool, err error) {
	if !o.Stdout && !o.Stderr {
		return nil, false, errdef.Invalid("Bad parameters: you must choose at least one stream")
	}
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, false, err
	}
	cfg, err := logConfig(&c.Host.Log)
	if err != nil {
		return nil, false, err
	}
	if cfg.Driver == monitor.LogNone || cfg.NoCache {
		return nil, false, errdef.NotImplemented("configured logging driver does not support reading")
	}
	running := func() bool {
		e.loadState(c)
		return c.Running()
	}
	return monitor.ReadLogs(ctx, e.logDir(c), monitor.LogOptions{
		Stdout: o.Stdout, Stderr: o.Stderr, Since: o.Since, Until: o.Until, Tail: o.Tail,
		Follow: o.Follow, Running: running, Segmented: cfg.Segmented(),
	}), c.Config.Tty, nil
}
