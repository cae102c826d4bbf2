package cli

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// interrupts decides what signals mean.
//
//	while a container is made    the first is noted, and looked at between the steps: a request that is cut off may
//	                             have made something nobody knows of. The second, or two seconds, cut it off.
//	once it runs                 they are passed on, the noted one first, or end this program
//
// Whatever ends this program leaves the terminal as it was.
type interrupts struct {
	app    *app
	cancel context.CancelCauseFunc
	stop   func()
	ready  func() // waits until all signals are caught

	// mu protects the following.
	mu      sync.Mutex
	noted   unix.Signal // that came while the container was made; 0 for none
	running bool
	forward func(os.Signal)
	insists int // SIGINT and SIGTERM that were passed on
}

// patience is how long a step may take to its end after a signal.
const patience = 2 * time.Second

// enough is how often a person interrupts a container that ignores it before this program leaves it alone. The first
// process of a container ignores what it does not handle, so that happens to everybody.
const enough = 3

func (a *app) interruptible(ctx context.Context) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancelCause(ctx)
	in := &interrupts{app: a, cancel: cancel}
	stop, ready := a.onSignals(in.handle, ending(), remarks())
	in.ready = ready
	in.stop = func() {
		go stop() // this program is about to exit, and need not wait
		cancel(nil)
	}
	return ctx, in
}

// interruption is the reason a container was not made, or not started.
type interruption struct{ unix.Signal }

func (e interruption) Error() string { return "interrupted by " + unix.SignalName(e.Signal) }

func ends(s os.Signal) bool { return slices.Contains(ending(), s) }

func (in *interrupts) handle(s os.Signal) {
	in.mu.Lock()
	running, forward, again := in.running, in.forward, in.noted != 0
	if !running && ends(s) {
		in.noted = s.(unix.Signal)
	}
	in.mu.Unlock()
	switch {
	case running:
		in.deliver(s, forward)
	case !ends(s):
	case again:
		in.cancel(interruption{s.(unix.Signal)})
	default:
		time.AfterFunc(patience, func() { in.late(s.(unix.Signal)) })
	}
}

// late cuts off what was not done in time.
func (in *interrupts) late(s unix.Signal) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.running {
		in.cancel(interruption{s})
	}
}

// deliver passes a signal on to the container, or ends this program.
func (in *interrupts) deliver(s os.Signal, forward func(os.Signal)) {
	if forward != nil {
		if in.insist(s) < enough {
			forward(s)
			return
		}
		in.app.err.printf("\n%s: got %d interrupts and leaves; the container goes on\n", in.app.Name, enough)
	}
	if forward != nil || ends(s) {
		in.app.screen.restore()
		os.Exit(exitSignalBase + int(s.(unix.Signal)))
	}
}

// insist counts the interrupts so far.
func (in *interrupts) insist(s os.Signal) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if s == unix.SIGINT || s == unix.SIGTERM {
		in.insists++
	}
	return in.insists
}

// check is the error of a signal that came while the container was made.
func (in *interrupts) check() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.noted != 0 && !in.running {
		return interruption{in.noted}
	}
	return nil
}

// pass says that the container runs: from now on signals go to forward, or without one end this program.
func (in *interrupts) pass(forward func(os.Signal)) {
	in.ready()
	in.mu.Lock()
	in.running, in.forward = true, forward
	noted := in.noted
	in.mu.Unlock()
	if noted != 0 {
		in.deliver(noted, forward)
	}
}

// or returns err, with the status of the signal that was the reason for it.
func (in *interrupts) or(err error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil && in.noted != 0 && !in.running {
		return status(exitSignalBase+int(in.noted), err)
	}
	return err
}
