package client

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types"
)

// Stream is a connection that became the stdio of a process. Reading gives its output, writing feeds its stdin.
type Stream struct {
	k *conn
	// Multiplexed output carries stdout and stderr in frames; Copy takes them apart. Otherwise it is a terminal's bytes.
	Multiplexed bool
}

func newStream(k *conn, resp *http.Response) *Stream {
	return &Stream{k, multiplexed(resp)}
}

func multiplexed(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), types.MediaTypeMultiplexedStream)
}

func (s *Stream) Read(p []byte) (int, error)  { return s.k.r.Read(p) }
func (s *Stream) Write(p []byte) (int, error) { return s.k.Conn.Write(p) }

// Close ends both directions.
func (s *Stream) Close() error { return s.k.Close() }

// CloseWrite tells the process that its stdin has ended; its output goes on.
func (s *Stream) CloseWrite() error {
	if c, ok := s.k.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("a %T cannot half-close", s.k.Conn)
}

// Copy writes the output to stdout and stderr until it ends.
func (s *Stream) Copy(stdout, stderr io.Writer) error {
	if !s.Multiplexed {
		_, err := io.Copy(stdout, s.k.r)
		return err
	}
	return Demultiplex(stdout, stderr, s.k.r)
}

// Output is the stdout and stderr of a container as its log kept it.
type Output struct {
	io.ReadCloser
	Multiplexed bool
}

// Copy writes the output to stdout and stderr until it ends.
func (o *Output) Copy(stdout, stderr io.Writer) error {
	if !o.Multiplexed {
		_, err := io.Copy(stdout, o)
		return err
	}
	return Demultiplex(stdout, stderr, o)
}

// Demultiplex takes apart the Docker stream format until r ends: frames of one byte that names the stream (0 and 1
// stdout, 2 stderr, 3 an error of the server), three zero, and the length of what follows, big-endian. Whatever
// length a frame claims, memory stays bounded. An end within a frame is io.ErrUnexpectedEOF.
func Demultiplex(stdout, stderr io.Writer, r io.Reader) error {
	br, ok := r.(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(r, 32<<10)
	}
	var head [8]byte
	for {
		if _, err := io.ReadFull(br, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		var w io.Writer
		switch head[0] {
		case 0, 1:
			w = stdout
		case 2:
			w = stderr
		case 3:
			return frameError(br, size)
		default:
			return fmt.Errorf("damaged stream: frame of unknown kind %d", head[0])
		}
		if err := copyFrame(w, br, size); err != nil {
			return err
		}
	}
}

// copyFrame passes on what has arrived at once, so that half a long frame is not held back.
func copyFrame(w io.Writer, r *bufio.Reader, size int64) error {
	for size > 0 {
		if r.Buffered() == 0 {
			if _, err := r.Peek(1); err != nil {
				return noEOF(err)
			}
		}
		b, err := r.Peek(int(min(size, int64(r.Buffered()))))
		if err != nil {
			return noEOF(err)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		r.Discard(len(b))
		size -= int64(len(b))
	}
	return nil
}

func frameError(r io.Reader, size int64) error {
	text, err := io.ReadAll(io.LimitReader(r, min(size, maxError)))
	if err != nil {
		return err
	}
	return errors.New(strings.TrimSpace(string(text)))
}
