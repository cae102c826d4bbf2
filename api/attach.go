package api

import (
	"bufio"
	"context"
	"io"

	"hull/engine"
	"hull/errdef"
)

func badKeys(s string) error { return errdef.Invalid("Invalid detach keys (%s) provided", s) }

// attachContainer is POST /containers/{name}/attach. With logs=1 what was written before comes first, and without
// stream=1 that is all.
func (s *server) attachContainer(q *request) error {
	keys, err := parseKeys(q.query("detachKeys"))
	if err != nil {
		return err
	}
	return q.connect(func(ctx context.Context) (*link, error) {
		o := engine.AttachOptions{Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr")}
		if !q.flag("logs") {
			stream, tty, err := s.engine.Attach(ctx, q.name, o)
			return &link{stream, tty, tty, keys}, err
		}
		lines, tty, err := s.engine.Logs(ctx, q.name, engine.LogOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1})
		if err != nil {
			return nil, err
		}
		var live engine.Stream = noStream{}
		if q.flag("stream") {
			if live, tty, err = s.engine.Attach(ctx, q.name, o); err != nil {
				return nil, err
			}
		}
		r, w := io.Pipe()
		go func() { // ends with the log, or when the reader is closed
			b := bufio.NewWriter(w)
			for line, err := range lines {
				if err != nil || writeEntry(b, &line, tty, false, false) != nil {
					break
				}
			}
			w.CloseWithError(b.Flush())
		}()
		return &link{&logged{live, r}, tty, tty, keys}, nil
	})
}

// logged is a stream that begins with the log.
type logged struct {
	engine.Stream
	log *io.PipeReader
}

func (l *logged) Read(p []byte) (int, error) {
	if n, err := l.log.Read(p); n > 0 || err == nil {
		return n, nil
	}
	return l.Stream.Read(p)
}

func (l *logged) Close() error {
	l.log.Close()
	return l.Stream.Close()
}

// noStream is the stdio of nothing.
type noStream struct{}

func (noStream) Read([]byte) (int, error)    { return 0, io.EOF }
func (noStream) Write(p []byte) (int, error) { return len(p), nil }
func (noStream) CloseWrite() error           { return nil }
func (noStream) Close() error                { return nil }
