package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets are plain os.Files on the runtime's poller: they have deadlines and cost no package net, whose
// resolver and name tables every idle monitor would carry.

// socketPath names the socket in the directory open as dir. sun_path holds 108 bytes; a run directory may be longer.
func socketPath(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketFile)
}

// openDir opens a directory as a place to resolve names in, nothing more.
func openDir(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pollable hands fd over to the runtime's poller.
func pollable(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("set %s non-blocking: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listen makes the listening socket in dir, for the owner only.
func listen(dir *os.File) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	ln := os.NewFile(uintptr(fd), SocketFile)
	// bind(2) gives the node 0777 &^ umask; fchmod before it sets the mode without a moment of more.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("chmod socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socketPath(dir)}); err != nil {
		ln.Close()
		return nil, fmt.Errorf("bind %s: %w", SocketFile, err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", SocketFile, err)
	}
	return ln, nil
}

// accept takes one connection of a process with our own uid, or root's. It waits on the poller.
func accept(ln *os.File) (*os.File, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = raw.Read(func(l uintptr) bool {
		fd, _, failed = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return failed != unix.EAGAIN
	})
	if err != nil {
		return nil, closed(err)
	}
	if failed != nil {
		return nil, failed
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		unix.Close(fd)
		return nil, errStranger
	}
	return os.NewFile(uintptr(fd), "client"), nil
}

// waiting says whether somebody has connected to ln and was not accepted yet.
func waiting(ln *os.File) bool {
	n := 0
	err := control(ln, func(fd int) (err error) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err
	})
	return err == nil && n > 0
}

var errStranger = errors.New("connection of another user refused")

// connect reaches the monitor that listens in dir. Its errors are the kernel's: ENOENT and ECONNREFUSED say
// that nobody listens.
func connect(ctx context.Context, dir *os.File) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: socketPath(dir)})
		// EAGAIN: the backlog is full, and a unix socket that does not block cannot be waited for.
		if err == unix.EAGAIN {
			err = sleep(ctx, 2*time.Millisecond)
		} else if err == nil {
			return os.NewFile(uintptr(fd), "monitor"), nil
		}
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
}

// closeWrite ends the direction away from us; the other end reads EOF.
func closeWrite(f *os.File) error {
	return control(f, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// control runs fn on the descriptor of f, which stays open meanwhile and on the poller.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = fn(int(fd)) }); err != nil {
		return closed(err)
	}
	return failed
}

// closed gives the error of a raw operation its public name: those of the os package pass the poller's own through.
func closed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

// hungUp waits until the other end of f is closed in both directions, and does not read from f.
func hungUp(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return gone(int(fd)) })
}

// gone reports whether the other end of fd is closed in both directions; a half-close is not enough.
func gone(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// sleep waits for d, or returns why ctx ended before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isNobody reports errors of a connection attempt that mean that no monitor took it.
func isNobody(err error) bool {
	return errors.Is(err, ErrNoMonitor) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR)
}
