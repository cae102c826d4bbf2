package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"hull/kernel"
)

// Call returns a function that has h answer a request in this process, without a connection and a server around it:
// those cost a short command more than its request. The answer is there once its head is: when the handler flushes,
// takes the connection over, or returns. What follows is read from its body; closing that early, or the end of the
// request's context, ends the context h works with.
//
// A handler that takes the connection over gets one end of a pair of connected sockets. The body of the answer is the
// other, a net.Conn that can half-close.
func Call(h http.Handler) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body == nil { // a server's requests always have one
			req.Body = http.NoBody
		}
		ctx, cancel := context.WithCancelCause(req.Context())
		c := &call{head: make(chan struct{}), header: http.Header{}, cancel: cancel}
		go func() {
			kernel.DeepStack()
			defer cancel(nil)
			defer c.end()
			h.ServeHTTP(c, req.WithContext(ctx))
		}()
		select {
		case <-c.head:
		case <-ctx.Done():
			select {
			case <-c.head: // the handler returned, which ends its context too
			default:
				go c.drop() // ends with the handler at the latest, whose context is over
				return nil, context.Cause(ctx)
			}
		}
		return c.response(req)
	}
}

// call is one answer on its way: the http.ResponseWriter of the handler, and what the caller gets of it.
//
//	handler                        caller
//	Header, WriteHeader, Write     waits                 kept in whole
//	Flush                ──head──► reads whole and what follows, as it comes
//	Hijack               ──head──► reads the head from near
//	returns              ──head──► reads whole to its end
type call struct {
	head   chan struct{} // closed when the caller may look at what is below
	told   sync.Once     // closes head
	cancel context.CancelCauseFunc

	// The handler's until head is closed, then the caller's.
	header  http.Header // what the handler writes to
	sent    http.Header // as it was when the status was written
	status  int
	whole   bytes.Buffer
	near    net.Conn // after Hijack
	aborted bool     // the handler broke the answer off

	rest *io.PipeWriter // after Flush: where the handler goes on
	tail *io.PipeReader // its other end
}

func (c *call) tell() { c.told.Do(func() { close(c.head) }) }

// end is deferred around the handler. A handler breaks an answer off by a panic of its own.
func (c *call) end() {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		panic(p)
	}
	switch {
	case c.rest != nil && p != nil:
		c.rest.CloseWithError(io.ErrUnexpectedEOF)
	case c.rest != nil:
		c.rest.Close()
	case c.near == nil:
		c.WriteHeader(http.StatusOK)
		c.aborted = p != nil
	}
	c.tell()
}

func (c *call) Header() http.Header { return c.header }

func (c *call) WriteHeader(status int) {
	if c.status == 0 {
		c.status, c.sent = status, c.header.Clone()
	}
}

func (c *call) Write(p []byte) (int, error) {
	if c.near != nil {
		return 0, http.ErrHijacked
	}
	c.WriteHeader(http.StatusOK)
	if c.rest != nil {
		return c.rest.Write(p)
	}
	return c.whole.Write(p)
}

// FlushError sends what there is to the caller; see http.ResponseController.
func (c *call) FlushError() error {
	if c.near != nil {
		return http.ErrHijacked
	}
	c.WriteHeader(http.StatusOK)
	if c.rest == nil {
		c.tail, c.rest = io.Pipe()
		c.tell()
	}
	return nil
}

// Hijack is http.Hijacker.
func (c *call) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if c.near != nil || c.rest != nil {
		return nil, nil, http.ErrHijacked
	}
	near, far, err := socketpair()
	if err != nil {
		return nil, nil, err
	}
	c.near = near
	c.tell()
	return far, bufio.NewReadWriter(bufio.NewReader(far), bufio.NewWriter(far)), nil
}

// drop closes what the handler would go on with, when nobody is there any more.
func (c *call) drop() {
	<-c.head
	if c.near != nil {
		c.near.Close()
	}
	if c.tail != nil {
		c.tail.Close()
	}
}

func (c *call) response(req *http.Request) (*http.Response, error) {
	if c.near != nil {
		r := bufio.NewReader(c.near)
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			c.near.Close()
			return nil, err
		}
		resp.Body = &upgraded{c.near.(*net.UnixConn), r}
		return resp, nil
	}
	if c.aborted {
		return nil, io.ErrUnexpectedEOF
	}
	resp := &http.Response{
		Status: http.StatusText(c.status), StatusCode: c.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: c.sent, ContentLength: -1, Request: req,
	}
	body := &answer{Reader: &c.whole, done: func() { c.cancel(errUnread) }}
	if c.rest != nil {
		body.Reader = io.MultiReader(&c.whole, c.tail)
		ctx := req.Context()
		stop := context.AfterFunc(ctx, func() { c.tail.CloseWithError(context.Cause(ctx)) })
		body.done = func() {
			c.cancel(errUnread)
			stop()
			c.tail.Close()
		}
	}
	resp.Body = body
	return resp, nil
}

// errUnread is why the context of a handler ends whose answer nobody wants any more.
var errUnread = errors.New("the client is gone")

// answer is the body of an answer without a connection.
type answer struct {
	io.Reader
	done func()
}

func (a *answer) Close() error {
	a.done()
	return nil
}

// upgraded is a connection behind the head of its answer.
type upgraded struct {
	*net.UnixConn
	r *bufio.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.r.Read(p) }
