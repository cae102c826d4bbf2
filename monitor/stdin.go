package monitor

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stdin is what the container reads from: a pipe, the terminal, or nothing. Several clients may write to it.
type stdin struct {
	ready chan struct{} // closed when f is set for good

	mu   sync.Mutex // protects the following
	f    *os.File   // nil: nothing reads
	tty  bool       // f is the terminal, which is the output too, and not ours to close
	once bool       // the end of the first client's stdin is the end of the container's
}

func newStdin() *stdin { return &stdin{ready: make(chan struct{})} }

// open lets clients write to f from now on, which is nil when the container has no stdin. Called once.
func (in *stdin) open(f *os.File, tty, once bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.f, in.tty, in.once = f, tty, once
	close(in.ready)
}

// close is called when a client's stdin has ended.
func (in *stdin) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.once && !in.tty {
		in.drop()
	}
}

// shut is called when the process has ended.
func (in *stdin) shut() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.drop()
}

func (in *stdin) drop() {
	if in.f != nil && !in.tty {
		in.f.Close()
	}
	in.f = nil
}

func (in *stdin) file() *os.File {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.f
}

// copy moves a client's bytes, read from r on its connection c.f, to the container until the client's EOF, the
// container's end, or until the container no longer reads. It reports whether the client has ended its stdin.
func (in *stdin) copy(c *client, r io.Reader) (ended bool) {
	if !in.wait(c) {
		return false
	}
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && !in.write(c, buf[:n]) {
			// Let the sender have EPIPE, as the writer into a closed pipe has.
			control(c.f, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
			return false
		}
		if err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded) // which is how finish wakes us
		}
	}
}

// wait returns true when the container has started. A client that goes away before ends the wait.
func (in *stdin) wait(c *client) bool {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-in.ready:
			return true
		case <-c.done:
			return false
		case <-tick.C:
			if c.isGone() {
				return false
			}
		}
	}
}

// write gives p to the container, however slowly it reads. It gives up when nothing reads any more, and some
// time after the client went away.
func (in *stdin) write(c *client, p []byte) bool {
	patience := 10 // seconds
	for {
		f := in.file()
		if f == nil {
			return false
		}
		f.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := f.Write(p)
		if err == nil {
			return true
		}
		p = p[n:]
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if c.isGone() {
			if patience--; patience == 0 {
				return false
			}
		}
		select {
		case <-c.done:
			return false
		default:
		}
	}
}

func (c *client) isGone() (yes bool) {
	err := control(c.f, func(fd int) error { yes = gone(fd); return nil })
	return yes || err != nil
}
