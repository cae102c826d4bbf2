package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"

	"hull/client"

	"golang.org/x/sys/unix"
)

// session joins the stdio of this process to that of one in a container.
//
//	stdin ──(detach keys)──► stream ──► container     end of stdin half-closes the stream
//	stdout, stderr ◄── frames or terminal ◄── stream  its end is the end of the session
type session struct {
	app    *app
	stream *client.Stream
	stdin  bool
	stdout io.Writer // where each goes; io.Discard when not attached
	stderr io.Writer
	tty    bool
	keys   []byte // nil: nothing detaches
}

// run returns when the output has ended, or with errDetached. Stdin may still be read then, by a goroutine that
// only the end of the process ends: a read from a terminal cannot be interrupted.
func (s *session) run() error {
	output := make(chan error, 1)
	input := make(chan error, 1)
	if s.stdin {
		if s.tty && s.app.screen.isTerminal() {
			if err := s.app.screen.raw(); err != nil {
				return err
			}
			defer s.app.screen.restore()
		}
		go s.app.screen.guarded(func() { input <- s.feed() })
	}
	go s.app.screen.guarded(func() { output <- s.stream.Copy(s.stdout, s.stderr) })
	for {
		select {
		case err := <-output:
			return err
		case err := <-input:
			if errors.Is(err, errDetached) {
				return err
			}
			// Whatever else happened to stdin, the output is still to come.
		}
	}
}

// feed copies stdin to the container and tells it the end.
func (s *session) feed() error {
	var r io.Reader = s.app.Stdin
	if s.tty && s.keys != nil {
		r = &detachReader{r: r, keys: s.keys}
	}
	// No ReadFrom: it would splice around the look for detach keys on some pairs of files, and gains nothing here.
	_, err := io.CopyBuffer(struct{ io.Writer }{s.stream}, struct{ io.Reader }{r}, make([]byte, 32<<10))
	if errors.Is(err, errDetached) {
		return err
	}
	return s.stream.CloseWrite()
}

// stdio returns where an attached stream goes: the container's own bytes, unescaped.
func stdio(f *os.File, attached bool) io.Writer {
	if attached {
		return f
	}
	return io.Discard
}

// followSize tells size the dimensions of the terminal now and whenever they change, until stop is called.
func (a *app) followSize(size func(width, height int) error) (stop func()) {
	tell := func() {
		if w, h := a.out.size(); w > 0 && h > 0 {
			size(w, h) // a process that has gone has no size; nothing depends on the answer
		}
	}
	tell()
	return a.onSignal(func(os.Signal) { tell() }, unix.SIGWINCH)
}

// onSignal calls f for each of these signals, one at a time, until stop is called; stop waits for a running f.
func (a *app) onSignal(f func(os.Signal), sigs ...os.Signal) (stop func()) {
	stop, _ = a.onSignals(f, sigs, nil)
	return stop
}

// onSignals is onSignal for now, and in the background for later: ready waits for those. Go's runtime takes two switches
// between threads for each signal, 50 µs, on the way to every container.
func (a *app) onSignals(f func(os.Signal), now, later []os.Signal) (stop, ready func()) {
	c := make(chan os.Signal, 128)
	done, all := make(chan struct{}), make(chan struct{})
	signal.Notify(c, now...)
	go func() {
		defer close(all)
		if len(later) > 0 { // without any it would be all there are
			signal.Notify(c, later...)
		}
	}()
	go a.screen.guarded(func() {
		defer close(done)
		for s := range c {
			f(s)
		}
	})
	ready = func() { <-all }
	return func() {
		ready()
		signal.Stop(c)
		close(c)
		<-done
	}, ready
}

// proxySignals sends the signals this process gets to a container instead.
func (a *app) proxySignals(ctx context.Context, c *client.Client, id string) (stop func()) {
	return a.onSignal(func(s os.Signal) {
		if name := unix.SignalName(s.(unix.Signal)); name != "" {
			c.ContainerKill(ctx, id, name) // the container may have ended in the meantime
		}
	}, proxied()...)
}

// proxied are the signals a person or a supervisor sends on purpose. Not among them: those the kernel and the Go
// runtime send (CHLD, PIPE, URG), the terminal's (WINCH, TTIN, TTOU), and TSTP, so that ctrl-z stops the client as it
// does every other program.
func proxied() []os.Signal { return append(ending(), remarks()...) }

// ending are those of them that ask a program to end, and remarks the others.
func ending() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}
}

func remarks() []os.Signal {
	return []os.Signal{
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGVTALRM, unix.SIGPROF, unix.SIGIO, unix.SIGPWR,
	}
}

// dying ends the process on a signal with the terminal as it was. It is for commands that forward nothing.
func (a *app) dying() (stop func()) {
	return a.onSignal(func(s os.Signal) {
		a.screen.restore()
		os.Exit(exitSignalBase + int(s.(unix.Signal)))
	}, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
}
