package cli

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// interrupts decides what signals mean. While a container is being made they cancel the work, so that the engine
// takes it back; once it runs they are passed on, or end this program with the terminal as it was.
type interrupts struct {
	app    *app
	cancel context.CancelCauseFunc
	stop   func()

	// mu protects the following.
	mu      sync.Mutex
	got     unix.Signal // that cancelled the work
	started bool
	forward func(os.Signal)
	insists int // SIGINT and SIGTERM that were passed on
}

// enough is how often a person interrupts a container that ignores it before this program leaves it alone. The first
// process of a container ignores what it does not handle, so that happens to everybody.
const enough = 3

func (a *app) interruptible(ctx context.Context) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancelCause(ctx)
	in := &interrupts{app: a, cancel: cancel}
	stop := a.onSignal(in.handle, proxied()...)
	in.stop = func() {
		stop()
		cancel(nil)
	}
	return ctx, in
}

// errInterrupted is the cause of a cancelled context.
type errInterrupted struct{ unix.Signal }

func (e errInterrupted) Error() string { return "interrupted by " + unix.SignalName(e.Signal) }

func (in *interrupts) handle(s os.Signal) {
	in.mu.Lock()
	forward, started := in.forward, in.started
	ends := s == unix.SIGINT || s == unix.SIGTERM || s == unix.SIGHUP || s == unix.SIGQUIT
	if ends && !started {
		in.got = s.(unix.Signal)
	}
	if forward != nil && (s == unix.SIGINT || s == unix.SIGTERM) {
		in.insists++
	}
	insists := in.insists
	in.mu.Unlock()
	switch {
	case insists == enough:
		in.app.screen.restore()
		in.app.err.printf("\n%s: got %d interrupts and leaves; the container goes on\n", in.app.Name, enough)
		os.Exit(exitSignalBase + int(s.(unix.Signal)))
	case forward != nil:
		forward(s)
	case !ends:
	case started:
		in.app.screen.restore()
		os.Exit(exitSignalBase + int(s.(unix.Signal)))
	default:
		in.cancel(errInterrupted{s.(unix.Signal)})
	}
}

// pass says that the container runs: from now on signals go to forward, or without one end this program.
func (in *interrupts) pass(forward func(os.Signal)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.started, in.forward = true, forward
}

// or returns err, or the status of the signal that was the reason for it.
func (in *interrupts) or(err error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil && in.got != 0 {
		return status(exitSignalBase+int(in.got), err)
	}
	return err
}
