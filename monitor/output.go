package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Who may slow whom. Output goes to the log first, then to every attached client through its socket's buffer (about
// 200 KiB). A client whose buffer is full holds up the container's next write, as a full pipe does, but only for so
// long; then it is dropped, with a last message. So nobody is stalled by somebody else's closed laptop, and
// `hull run … | less` still pauses the program.
const (
	stallForeground = 10 * time.Minute // clients that attached before the start: the command that runs the container
	stallAttached   = 10 * time.Second // clients that came later
	lastWords       = 10 * time.Second // for the last message to a dropped client, while the container goes on
	settleTick      = 200 * time.Millisecond
	drainTimeout    = 2 * time.Second // after the process ended, for somebody else who holds the pipe; Docker's bound
	sweepMax        = 1 << 20         // the largest pipe: what can be left in one when drainTimeout is over
)

// Stream numbers of the Docker stream format.
const (
	streamStdout = 1
	streamStderr = 2
	streamSystem = 3 // an error of the engine
)

func streamName(n byte) string {
	if n == streamStderr {
		return "stderr"
	}
	return "stdout"
}

// output takes what a process writes to the log and to the attached clients.
type output struct {
	pumps sync.WaitGroup

	turn sync.Mutex // serialises the pumps of stdout and stderr, so that lines and frames are not torn; held during writes
	log  *logs      // nil: none

	foreground, attached time.Duration // stallForeground, stallAttached

	waiting atomic.Bool // for clients to read

	mu       sync.Mutex // protects the following
	clients  []*client
	sources  []*os.File // being pumped
	started  bool
	draining bool
	ended    bool
}

func newOutput() *output { return &output{foreground: stallForeground, attached: stallAttached} }

// client is an attached connection.
type client struct {
	f              *os.File
	stdout, stderr bool
	raw            bool          // a terminal: no frames
	stall          time.Duration // how long it may hold up the process
	answered       chan struct{} // closed when the answer to its request is sent; frames come after it
	done           chan struct{} // closed when no more output comes: the end, or dropped
	last           []byte        // to be sent after done, by the connection's own goroutine
}

func newClient(f *os.File, req *Request) *client {
	return &client{f: f, stdout: req.Stdout, stderr: req.Stderr,
		answered: make(chan struct{}), done: make(chan struct{})}
}

// join adds c to those who get the output from now on. It reports false when the output has ended.
func (o *output) join(c *client) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return false
	}
	c.stall = o.foreground
	if o.started {
		c.stall = o.attached
	}
	o.clients = append(o.clients, c)
	return true
}

// leave takes c out; output for it is no longer sent.
func (o *output) leave(c *client) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clients = slices.DeleteFunc(o.clients, func(x *client) bool { return x == c })
}

// pump starts to take what comes from f, which it closes at its end. f must be on the poller.
func (o *output) pump(stream byte, f *os.File, raw bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started = true
	o.sources = append(o.sources, f)
	o.pumps.Go(func() {
		defer f.Close()
		o.run(stream, f, raw)
	})
}

func (o *output) run(stream byte, f *os.File, raw bool) {
	buf := make([]byte, lineMax)
	held := 0 // at the front of buf: the start of a line that the log has not taken yet
	src := source{o: o, f: f}
	for {
		n, err := src.read(buf[held:])
		o.turn.Lock() // the time is taken behind it, so that times in the log never go back
		taken := o.log.write(streamName(stream), time.Now(), buf[:held+n], err != nil)
		if n > 0 {
			o.send(stream, buf[held:held+n], raw)
		}
		o.turn.Unlock()
		held = copy(buf, buf[taken:held+n])
		if err != nil {
			return
		}
	}
}

// end is called when the process has ended. It takes the rest of its output, at most drainTimeout long from a pipe that
// somebody else holds; then the clients' streams end. Before that it calls record: when all output is taken, or as soon
// as only a client that does not read keeps it from being so, for nobody else has to wait for him.
func (o *output) end(record func()) {
	o.mu.Lock()
	o.draining = true
	for _, f := range o.sources {
		f.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	o.mu.Unlock()
	taken := make(chan struct{})
	go func() { // waited for below
		o.pumps.Wait()
		close(taken)
	}()
	o.settle(taken)
	record()
	<-taken
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, c := range o.clients {
		c.finish()
	}
	o.clients, o.sources = nil, nil
}

// settle waits for taken, as long as it is not a client that holds it up.
func (o *output) settle(taken <-chan struct{}) {
	tick := time.NewTicker(settleTick)
	defer tick.Stop()
	for {
		select {
		case <-taken:
			return
		case <-tick.C:
			if o.waiting.Load() {
				return
			}
		}
	}
}

func (o *output) isDraining() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.draining
}

// source reads one stream of a process until its end.
type source struct {
	o     *output
	f     *os.File
	sweep bool // take only what is there
	swept int
}

func (s *source) read(p []byte) (int, error) {
	for !s.sweep {
		n, err := s.f.Read(p)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.f.SetReadDeadline(time.Time{})
			s.sweep = true
		case errors.Is(err, syscall.EIO) && !s.o.isDraining():
			// Nobody has the terminal open just now; a process may still open /dev/console again.
			time.Sleep(100 * time.Millisecond)
		default:
			return n, err
		}
	}
	return s.sweepRead(p)
}

// sweepRead reads what is in the pipe and never waits.
func (s *source) sweepRead(p []byte) (int, error) {
	if s.swept > sweepMax {
		return 0, io.EOF
	}
	n := 0
	err := control(s.f, func(fd int) (err error) {
		n, err = unix.Read(fd, p)
		return err
	})
	if err != nil || n <= 0 {
		return 0, io.EOF
	}
	s.swept += n
	return n, nil
}

// send gives p to all clients. It returns when each has taken it or was dropped.
func (o *output) send(stream byte, p []byte, raw bool) {
	o.mu.Lock()
	clients := slices.Clone(o.clients)
	o.mu.Unlock()
	var slow sync.WaitGroup
	for _, c := range clients {
		if stream == streamStdout && !c.stdout || stream == streamStderr && !c.stderr {
			continue
		}
		<-c.answered
		c.raw = raw
		rest, err := c.try(stream, p)
		switch {
		case err != nil:
			o.leave(c)
			c.finish()
		case len(rest) > 0:
			slow.Go(func() { o.push(c, rest) })
		}
	}
	o.waiting.Store(true)
	slow.Wait()
	o.waiting.Store(false)
}

// try writes the frame of p as far as the socket takes it at once, and returns the rest.
func (c *client) try(stream byte, p []byte) (rest []byte, err error) {
	iov := [][]byte{p}
	if !c.raw {
		iov = [][]byte{frameHeader(stream, len(p)), p}
	}
	n := 0
	err = control(c.f, func(fd int) (err error) {
		n, err = unix.SendmsgBuffers(fd, iov, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return err
	})
	if err != nil && err != unix.EAGAIN {
		return nil, err
	}
	if n = max(n, 0); n == len(p)+len(iov)*8-8 {
		return nil, nil
	}
	return bytes.Join(iov, nil)[n:], nil
}

// push waits for a slow client to take rest, or drops it.
func (o *output) push(c *client, rest []byte) {
	c.f.SetWriteDeadline(time.Now().Add(c.stall))
	n, err := c.f.Write(rest)
	c.f.SetWriteDeadline(time.Time{})
	if err == nil {
		return
	}
	o.leave(c)
	defer c.finish()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	text := "hull: this client did not read for " + c.stall.String() + " and was detached; the container runs on\n"
	c.last = rest[n:]
	if c.raw {
		c.last = append(c.last, text...)
	} else {
		c.last = append(append(c.last, frameHeader(streamSystem, len(text))...), text...)
	}
}

// finish wakes the goroutine of the connection for the last time.
func (c *client) finish() {
	close(c.done)
	c.f.SetReadDeadline(time.Unix(1, 0))
}

// farewell sends the last message, if there is one.
func (c *client) farewell() {
	select {
	case <-c.done:
	default:
		return
	}
	if len(c.last) > 0 {
		c.f.SetWriteDeadline(time.Now().Add(lastWords))
		c.f.Write(c.last)
	}
}

func frameHeader(stream byte, n int) []byte {
	h := make([]byte, 8)
	h[0] = stream
	binary.BigEndian.PutUint32(h[4:], uint32(n))
	return h
}
