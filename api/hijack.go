package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"hull/engine"

	"github.com/moby/moby/api/types"
	"golang.org/x/sys/unix"
)

// link is the stdio that a client is joined with.
type link struct {
	engine.Stream
	tty, raw bool   // there is a terminal; its bytes go to the client as they are
	keys     []byte // that detach, with a terminal
}

// framed puts the bytes of a terminal into frames of the Docker stream format, for clients that ask for those.
type framed struct {
	engine.Stream
	rest []byte // of a frame that is not read yet
}

func (f *framed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		buf := make([]byte, 16<<10)
		n, err := f.Stream.Read(buf)
		if n == 0 {
			return 0, err
		}
		f.rest = append(frameHead(1, n), buf[:n]...)
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// connect joins the client of q with the stdio of a container or exec, until one of them ends. open is called while
// the client can still be told of an error by status code.
//
//	client ── stdin, half-close ──► stream
//	       ◄── output ─────────────         its end closes the connection
func (q *request) connect(open func(context.Context) (*link, error)) error {
	// The client may have closed its side already (no stdin): net/http takes that for having gone away.
	s, err := open(context.WithoutCancel(q.Context()))
	if err != nil {
		return err
	}
	defer s.Close()
	conn, rw, err := http.NewResponseController(q.w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, q.greeting(s.raw)); err != nil {
		return errAnswered
	}
	q.letRead(conn)
	var in sync.WaitGroup
	defer in.Wait()
	defer conn.Close() // ends the reader of stdin
	in.Go(func() { feed(s, conn, rw.Reader) })
	_, _ = io.Copy(conn, s)
	return errAnswered
}

// letRead waits, for a second at most, until a client over a unix socket has taken the head of the answer. Docker's
// Python package reads that through a buffer, and the stream past it: what it finds in the buffer together with the
// head it loses. Docker is slow enough for that not to happen.
func (q *request) letRead(conn net.Conn) {
	if agent := q.UserAgent(); agent == hullAgent || strings.HasPrefix(agent, "Docker-Client/") {
		return // they read both through one buffer
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	pending := func() (n int) {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		return n
	}
	for end := time.Now().Add(time.Second); pending() > 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Microsecond)
	}
}

// greeting is the head of the answer, after which the connection is the stream: 101 for who asked for an upgrade,
// 200 for old clients that just go on.
func (q *request) greeting(raw bool) string {
	kind := types.MediaTypeRawStream
	if !raw && q.minor >= 42 {
		kind = types.MediaTypeMultiplexedStream
	}
	if q.Header.Get("Upgrade") == "" {
		return "HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\n\r\n"
	}
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
}

// feed copies the client's stdin to s until its end, and closes s when the client detaches or goes away.
func feed(s *link, conn net.Conn, buffered *bufio.Reader) {
	var err error
	if s.tty && len(s.keys) > 0 {
		err = copyUntil(s, buffered, s.keys)
	} else {
		err = copyAll(s, conn, buffered)
	}
	if err != nil {
		s.Close()
		return
	}
	_ = s.CloseWrite()
	// The end of stdin and the end of the client look the same to read(2).
	if hungUp(conn) == nil {
		s.Close()
	}
}

// copyAll copies what is buffered and then straight from the connection.
func copyAll(w io.Writer, conn net.Conn, buffered *bufio.Reader) error {
	if n := buffered.Buffered(); n > 0 {
		if _, err := io.CopyN(w, buffered, int64(n)); err != nil {
			return err
		}
	}
	_, err := io.Copy(w, conn)
	return err
}

// errDetached ends a copy: the person typed the detach keys.
var errDetached = errors.New("detached")

// copyUntil copies r to w until the keys come. The beginning of the keys is held back until it is clear that they
// are not meant.
func copyUntil(w io.Writer, r io.Reader, keys []byte) error {
	buf := make([]byte, 4096)
	matched := 0
	for {
		n, err := r.Read(buf)
		var out []byte
		for _, b := range buf[:n] {
			if b != keys[matched] && matched > 0 {
				out = append(out, keys[:matched]...)
				matched = 0
			}
			if b != keys[matched] {
				out = append(out, b)
				continue
			}
			if matched++; matched == len(keys) {
				_, _ = w.Write(out)
				return errDetached
			}
		}
		if err != nil {
			out = append(out, keys[:matched]...)
		}
		if len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hungUp waits until the other end of conn is closed in both directions; it does not read.
func hungUp(conn net.Conn) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}

// defaultKeys are ctrl-p ctrl-q.
const defaultKeys = "ctrl-p,ctrl-q"

// parseKeys reads the detachKeys parameter: single characters and ctrl-X, separated by commas.
func parseKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultKeys
	}
	var out []byte
	for part := range strings.SplitSeq(s, ",") {
		c, ctrl := strings.CutPrefix(part, "ctrl-")
		switch {
		case len(c) != 1:
			return nil, badKeys(part)
		case !ctrl:
			out = append(out, c[0])
		case c[0] >= 'a' && c[0] <= 'z':
			out = append(out, c[0]-'a'+1)
		case strings.IndexByte("@[\\]^_", c[0]) >= 0:
			out = append(out, c[0]-'@')
		default:
			return nil, badKeys(part)
		}
	}
	return out, nil
}
