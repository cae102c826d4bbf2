package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"hull/errdef"
)

// maxIdle is how long a kept connection is trusted. A server drops idle ones after a while of its own choosing, and
// a request that met such an end could not be repeated safely.
const maxIdle = 2 * time.Second

// conn is a connection with what was read ahead of the answers.
type conn struct {
	net.Conn
	r     *bufio.Reader
	since time.Time // when it became idle
}

func (c *Client) connect(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	for n := len(c.idle); n > 0; n = len(c.idle) {
		k := c.idle[n-1]
		c.idle = c.idle[:n-1]
		if time.Since(k.since) < maxIdle {
			c.mu.Unlock()
			return k, nil
		}
		k.Close()
	}
	c.mu.Unlock()
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, dialError(c.host, err)
	}
	return &conn{Conn: nc, r: bufio.NewReader(nc)}, nil
}

func (c *Client) keep(k *conn) {
	if k.r.Buffered() > 0 { // an answer nobody asked for: the two sides no longer agree where they are
		k.Close()
		return
	}
	k.since = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, k)
}

// dialError says who did not answer; an error of the engine in this process has its kind and stays as it is.
func dialError(host string, err error) error {
	if errdef.Kind(err) != nil || host == "" {
		return err
	}
	return errdef.Unavailable("cannot connect to %s: %w", host, err)
}

// roundTrip sends req on a connection of its own and reads the head of the answer. The answer's body owns the
// connection; an answer to an upgrade has a *Stream as body.
func (c *Client) roundTrip(ctx context.Context, req *http.Request, streamed bool) (*http.Response, error) {
	k, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	// A cancelled context ends every read and write at once.
	stop := context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
	drop := func(err error) (*http.Response, error) {
		stop()
		k.Close()
		return nil, cause(ctx, err)
	}

	var upload chan error
	if streamed {
		// The server may answer while it still reads. The goroutine ends with its source or the connection; nobody
		// waits for it, as a source that is a terminal or pipe cannot be interrupted.
		upload = make(chan error, 1)
		go func() { upload <- write(k, req) }()
	} else if err := write(k, req); err != nil {
		// A server that refuses early has often said why.
		if resp, rerr := http.ReadResponse(k.r, req); rerr == nil && resp.StatusCode >= 400 {
			resp.Close = true
			return c.own(resp, k, stop, nil), nil
		}
		return drop(fmt.Errorf("send to %s: %w", c.name(), err))
	}

	resp, err := http.ReadResponse(k.r, req)
	if err != nil {
		if upload != nil {
			select {
			case uerr := <-upload:
				if uerr != nil {
					return drop(uerr)
				}
			default:
			}
		}
		return drop(fmt.Errorf("no answer from %s: %w", c.name(), noEOF(err)))
	}
	if upgraded(req, resp) {
		stop()
		if err := ctx.Err(); err != nil {
			return drop(err)
		}
		resp.Body = newStream(k, resp)
		return resp, nil
	}
	return c.own(resp, k, stop, upload), nil
}

// upgraded says whether the connection is a stream now. Old servers go on without a word.
func upgraded(req *http.Request, resp *http.Response) bool {
	return req.Header.Get("Upgrade") != "" && (resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode == http.StatusOK)
}

// callLocal is roundTrip without a connection.
func (c *Client) callLocal(ctx context.Context, req *http.Request) (*http.Response, error) {
	resp, err := c.local(req)
	if err != nil {
		return nil, cause(ctx, err)
	}
	if nc, ok := resp.Body.(net.Conn); ok && upgraded(req, resp) {
		resp.Body = newStream(&conn{Conn: nc, r: bufio.NewReader(nc)}, resp)
	}
	return resp, nil
}

// write sends the request; a failing source is told apart from a failing connection.
func write(k *conn, req *http.Request) error {
	w := bufio.NewWriterSize(k.Conn, 32<<10)
	if err := req.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

func (c *Client) name() string {
	if c.host == "" {
		return "the engine"
	}
	return c.host
}

// own makes the body give back or close the connection.
func (c *Client) own(resp *http.Response, k *conn, stop func() bool, upload chan error) *http.Response {
	resp.Body = &body{ReadCloser: resp.Body, done: func(whole bool) {
		// After stop reports false the deadline has been or is being set: the connection is spent.
		if !stop() || !whole || resp.Close || upload != nil {
			k.Close()
			return
		}
		c.keep(k)
	}}
	return resp
}

// body calls done once, when it is closed, saying whether it was read to its end.
type body struct {
	io.ReadCloser
	eof  bool
	once sync.Once
	done func(whole bool)
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.eof = true
	}
	return n, err
}

func (b *body) Close() error {
	b.once.Do(func() { b.done(b.eof || b.ReadCloser == http.NoBody) })
	return nil
}

// noEOF makes the end of a connection in the middle of an answer an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
