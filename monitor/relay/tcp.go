package relay

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connectTimeout = 10 * time.Second
	bufferSize     = 64 << 10
	// A client that vanished without a word is noticed after keepIdle and keepCount times keepInterval.
	keepIdle, keepInterval, keepCount = 60, 15, 4 // seconds, seconds, probes
)

func newBuffer() any { return new([bufferSize]byte) }

// buffers are held only while something flows.
var buffers = sync.Pool{New: newBuffer}

func (r *Relay) serveTCP(l *listener) {
	for {
		f, client, err := accept(l.f)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrClosed):
			return
		default: // out of descriptors or memory, or the client has left already
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if r.full() {
			control(f, reset)
			f.Close()
			continue
		}
		if !r.track(f) {
			f.Close()
			return
		}
		r.work.Go(func() { r.carry(f, client, l.To) })
	}
}

func accept(l *os.File) (*os.File, IP, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var fd int
	var from unix.Sockaddr
	var failed error
	err = raw.Read(func(s uintptr) bool {
		fd, from, failed = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return failed != unix.EAGAIN
	})
	if err != nil {
		return nil, nil, os.ErrClosed
	}
	if failed != nil {
		return nil, nil, failed
	}
	ip, _ := address(from)
	return os.NewFile(uintptr(fd), "client"), ip, nil
}

// carry connects a client with the container until both have said all. A client of a container that does not answer
// sees his connection end, as one of a service that is not there.
func (r *Relay) carry(client *os.File, ip IP, port uint16) {
	defer r.drop(client)
	fd, err := r.connect(unix.SOCK_STREAM, ip, port)
	if err != nil {
		return
	}
	server := os.NewFile(uintptr(fd), "container")
	if !r.track(server) {
		server.Close()
		return
	}
	defer r.drop(server)
	if established(server, connectTimeout) != nil {
		control(client, reset)
		return
	}
	control(client, keepAlive)
	control(server, keepAlive)
	var back sync.WaitGroup
	back.Go(func() { pass(client, server) })
	pass(server, client)
	back.Wait()
}

// reset has the close of fd tell the peer that something was wrong.
func reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

func keepAlive(fd int) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount)
}

// pass copies from src to dst until src says no more, and says that to dst; after an error, to both.
func pass(dst, src *os.File) {
	for {
		more, err := burst(dst, src)
		if err != nil {
			control(src, func(fd int) { unix.Shutdown(fd, unix.SHUT_RDWR) })
			control(dst, func(fd int) { unix.Shutdown(fd, unix.SHUT_RDWR) })
			return
		}
		if !more {
			control(dst, func(fd int) { unix.Shutdown(fd, unix.SHUT_WR) })
			return
		}
	}
}

// burst waits for src and copies what is there. It reports false at the end.
func burst(dst, src *os.File) (more bool, err error) {
	if err := readable(src); err != nil {
		return false, err
	}
	raw, err := src.SyscallConn()
	if err != nil {
		return false, err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		var n int
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT)
			return true
		}); err != nil {
			return false, err
		}
		switch {
		case failed == unix.EAGAIN:
			return true, nil
		case failed == unix.EINTR:
			continue
		case failed != nil:
			return false, failed
		case n == 0:
			return false, nil
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return false, err
		}
		if n < len(buf) {
			return true, nil
		}
	}
}
