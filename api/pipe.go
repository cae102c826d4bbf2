package api

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pipe serves h in this process, from the first dial on. Each dial makes a pair of connected unix sockets and hands out one end:
// unlike net.Pipe they have buffers, and the end of stdin arrives as a half-close. close ends the server and
// every connection still open, and waits for its accept loop.
func Pipe(h http.Handler) (dial func(context.Context) (net.Conn, error), close func()) {
	l := &pairListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true) // and nothing else: HTTP/2 costs start-up time and cannot be hijacked
	var wg sync.WaitGroup
	var once sync.Once
	serve := func() { wg.Go(func() { _ = srv.Serve(l) }) }
	dial = func(ctx context.Context) (net.Conn, error) {
		once.Do(serve)
		return l.dial(ctx)
	}
	return dial, func() {
		once.Do(func() {}) // what was not begun is not begun any more
		_ = srv.Close()
		_ = l.Close() // which the server does only to one it has served
		wg.Wait()
	}
}

// pairListener accepts the far ends of the pairs its dial makes.
type pairListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pairListener) dial(ctx context.Context) (net.Conn, error) {
	near, far, err := socketpair()
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	near.Close()
	far.Close()
	return nil, err
}

func (l *pairListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pairListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pairListener) Addr() net.Addr { return &net.UnixAddr{Name: "in process", Net: "unix"} }

func socketpair() (near, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if near, err = fileConn(fds[0]); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	if far, err = fileConn(fds[1]); err != nil {
		near.Close()
		return nil, nil, err
	}
	return near, far, nil
}

// fileConn makes a connection of fd, which it takes over.
func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "api")
	defer f.Close()
	return net.FileConn(f)
}
