package monitor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

// ErrNoMonitor says that no monitor answers for the container: it is not running, or its monitor died or is just
// ending. What is on disk is then the truth (see Alive and ReadState).
var ErrNoMonitor = errors.New("no monitor")

const (
	dialTimeout = 30 * time.Second // for a monitor to take the connection
	maxLine     = 4 << 20          // of a request or answer: arguments and environment of an exec are at most 2 MiB
)

// Conn is a connection to a monitor. It carries one request; see Do.
type Conn struct {
	dir     string // run directory
	f       *os.File
	br      *bufio.Reader
	greeted bool
	ending  bool // the container has ended, and the monitor only answers questions about that
	version int  // of the monitor
}

func newConn(dir string, f *os.File) *Conn {
	return &Conn{dir: dir, f: f, br: bufio.NewReaderSize(incoming{f}, 1024)}
}

// incoming reads from a monitor. One that closes while input of ours is still unread makes the kernel say "reset" behind
// the last byte of output; that is an end like any other.
type incoming struct{ f *os.File }

func (in incoming) Read(p []byte) (int, error) {
	n, err := in.f.Read(p)
	if errors.Is(err, unix.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}

// Dial connects to the monitor of the container whose run directory is dir. The monitor stays at least until the
// connection is closed. The error is ErrNoMonitor when there is none, ErrSilent when it does not take the connection or is stopped.
func Dial(ctx context.Context, dir string) (*Conn, error) {
	begun := time.Now()
	ctx, cancel := patient(ctx, dir, dialTimeout)
	defer cancel()
	for {
		c, err := dialOnce(ctx, dir)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, explain(context.Cause(ctx), dir, begun)
		}
		if !isNobody(err) {
			return nil, fmt.Errorf("connect to the monitor in %s: %w", dir, err)
		}
		if _, alive := Alive(dir); !alive {
			return nil, ErrNoMonitor
		}
		// Being spawned and not listening yet, or leaving and not gone yet.
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func dialOnce(ctx context.Context, dir string) (*Conn, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := connect(ctx, d)
	if err != nil {
		return nil, err
	}
	c := newConn(dir, f)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	if err := c.greet(); err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// greet waits until the monitor has taken the connection.
func (c *Conn) greet() error {
	if c.greeted {
		return nil
	}
	line, err := readLine(c.br)
	if errors.Is(err, io.EOF) {
		return ErrNoMonitor // it was leaving
	}
	word, version, _ := strings.Cut(string(line), " ")
	c.greeted, c.ending, c.version = err == nil, word == greetEnding, 1
	if n, err := strconv.Atoi(version); err == nil {
		c.version = n
	}
	return err
}

// interrupt makes all that waits on the connection fail, for good.
func (c *Conn) interrupt() { c.f.SetDeadline(time.Unix(1, 0)) }

// Do sends the one request of this connection and returns the answer. A refusal is an error with its errdef kind,
// and the answer beside it where there is one. ErrNoMonitor means that the monitor went away before it answered,
// ErrSilent that it has not for longer than any answer but that of OpWait takes, or is stopped.
// Cancelling ctx ends the wait and makes the connection useless.
func (c *Conn) Do(ctx context.Context, req *Request) (*Response, error) {
	begun := time.Now()
	if d := req.patience(); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = patient(ctx, c.dir, d)
		defer cancel()
	}
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	resp, err := c.do(req)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("ask the monitor to %s: %w", req.Op, explain(context.Cause(ctx), c.dir, begun))
	}
	return resp, err
}

func (c *Conn) do(req *Request) (*Response, error) {
	if err := writeLine(c.f, req); err != nil {
		return nil, lost(req.Op, err)
	}
	if err := c.greet(); err != nil {
		return nil, lost(req.Op, err)
	}
	line, err := readLine(c.br)
	if err != nil {
		return nil, lost(req.Op, err)
	}
	resp := new(Response)
	if err := plainjson.Unmarshal(line, resp); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("answer of the monitor to %s: %w", req.Op, err))
	}
	return resp, resp.err()
}

// Prepare tells the monitor that the files of a start are written: it makes of the container what needs no process. The
// request of the connection is still to come. An error shows there.
func (c *Conn) Prepare(traced bool) {
	_ = writeLine(c.f, &Request{Op: OpPrepare, Trace: traced})
}

// lost names an error of the transport: whatever way the connection broke, nobody answers there.
func lost(op string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errdef.As(errdef.ErrDeadline, err)
	}
	return fmt.Errorf("ask the monitor to %s: %w (%w)", op, ErrNoMonitor, err)
}

// Stream is the stream that follows the answer to OpAttach or OpExecStart.
func (c *Conn) Stream() *Stream { return &Stream{c} }

// Finish tells the monitor that what was promised with Request.Remove is done, and waits until the monitor has
// removed the run directory and ended.
func (c *Conn) Finish(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	closeWrite(c.f) // an error means that the monitor is gone already
	if _, err := io.Copy(io.Discard, c.br); errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return nil
}

// Close ends the connection. The container goes on.
func (c *Conn) Close() error { return c.f.Close() }

// Stream carries stdin to the monitor and output from it. Its end (io.EOF) is the end of the output: the exit
// state is on disk then.
type Stream struct{ c *Conn }

func (s *Stream) Read(p []byte) (int, error)         { return s.c.br.Read(p) }
func (s *Stream) Write(p []byte) (int, error)        { return s.c.f.Write(p) }
func (s *Stream) WriteTo(w io.Writer) (int64, error) { return s.c.br.WriteTo(w) }

// Frames calls yield with the output as it comes, until its end: fd is 1 or 2. Only for a process without a terminal. p is
// valid during the call.
func (s *Stream) Frames(yield func(fd int, p []byte) error) error {
	buf := make([]byte, 32<<10)
	for {
		var head [8]byte
		if _, err := io.ReadFull(s, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if head[0] != 1 && head[0] != 2 {
			return errdef.As(errdef.ErrCorrupt, fmt.Errorf("output of the monitor in %s: frame of kind %d", s.c.dir, head[0]))
		}
		for left := int64(binary.BigEndian.Uint32(head[4:])); left > 0; {
			n, err := s.Read(buf[:min(left, int64(len(buf)))])
			if n > 0 {
				if err := yield(int(head[0]), buf[:n]); err != nil {
					return err
				}
			}
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
			left -= int64(n)
		}
	}
}

// CloseWrite tells the monitor that stdin has ended; output still comes.
func (s *Stream) CloseWrite() error { return closeWrite(s.c.f) }

// SetDeadline bounds reads and writes, as os.File.SetDeadline does.
func (s *Stream) SetDeadline(t time.Time) error { return s.c.f.SetDeadline(t) }

// Close ends the connection; for an attached client that is the detach.
func (s *Stream) Close() error { return s.c.Close() }

// writeLine sends v as one line of JSON.
func writeLine(w io.Writer, v any) error {
	b, err := plainjson.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// readLine returns one line of at most maxLine bytes. A line cut off by the end is io.ErrUnexpectedEOF.
func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, errdef.Invalid("line longer than %d bytes", maxLine)
		}
	}
}
