package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// listen opens the sockets of one --host.
func (s *server) listen(host string) error {
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		return errdef.Invalid("%q: say where to listen like unix:///run/hull/hull.sock, fd:// or tcp://127.0.0.1:2375", host)
	}
	var l net.Listener
	var err error
	switch scheme {
	case "unix":
		l, err = listenUnix(rest, s.o.Group)
	case "tcp":
		l, err = s.listenTCP(rest)
	case "fd":
		return s.inherit(rest)
	default:
		err = errdef.Invalid("%q: it is unix://, fd:// or tcp://", host)
	}
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, l)
	return nil
}

// listenTCP listens on an address. Without certificates that is one of loopback.
func (s *server) listenTCP(address string) (net.Listener, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, errdef.Invalid("tcp://%s: it takes an address and a port, like 127.0.0.1:2375", address)
	}
	if s.o.TLS.given() {
		cfg, err := s.o.TLS.config()
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		return tls.NewListener(l, cfg), nil
	}
	if !ap.Addr().IsLoopback() {
		return nil, errdef.Forbidden("tcp://%s without TLS would make everybody who can reach it root of this machine: add --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1", address)
	}
	s.log.Warn("every user and program of this machine, web pages included, can become its root through this address: use a unix socket, or TLS", "address", address)
	return net.Listen("tcp", address)
}

// listenUnix makes a socket at path for its owner and group. A socket nobody listens on is replaced, one of a living
// server never.
func listenUnix(path, group string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errdef.Invalid("unix://%s: the path of a socket begins with /", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	// Of two servers that find the same dead socket, one looks after the other has put its own there.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := state.Lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if err := checkStale(path); err != nil {
		return nil, err
	}
	return bind(path, group)
}

// checkStale refuses a path that is not free for a socket.
func checkStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return errdef.Conflict("%s exists and is no socket: remove it, or listen elsewhere with --host", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil { // a full backlog: somebody listens, slowly
		return errdef.Conflict("%s is served by another process already", path)
	}
	defer conn.Close()
	return errdef.Conflict("%s is served already, by process %s: end that first, or listen elsewhere with --host", path, peer(conn.(*net.UnixConn)))
}

// peer is the process at the other end, for a message.
func peer(conn *net.UnixConn) string {
	who := "unknown"
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				who = strconv.Itoa(int(cred.Pid))
			}
		})
	}
	return who
}

// bind makes the socket in place of a dead one. It is its owner's alone until it listens and has its group, so that no
// stranger finds a moment to connect.
func bind(path, group string) (_ net.Listener, err error) {
	if len(path) > maxPath {
		return nil, errdef.Invalid("%s is too long for the path of a socket: choose a shorter one with --host", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	// The mode of an unbound socket is that of the file it becomes.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, &fs.PathError{Op: "listen on", Path: path, Err: err}
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, &fs.PathError{Op: "listen on", Path: path, Err: err}
	}
	if err := give(path, group); err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return &socket{Listener: l, path: path}, nil
}

const (
	maxPath = 107 // bytes of sockaddr_un, without the end
	backlog = 1024
)

// give lets the members of a group use the socket at path.
func give(path, group string) error {
	if group == "" {
		return nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return nil // no such group: nobody but the owner
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Lchown(path, -1, gid); err != nil {
		if os.Geteuid() != 0 {
			return nil // an ordinary user who is no member: the socket stays the user's own
		}
		return err
	}
	return os.Chmod(path, 0o660)
}

// socket is a listener at a path of ours, which goes with it unless somebody has put another one there.
type socket struct {
	net.Listener
	path string
}

func (l *socket) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *socket) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if lock, err := state.Lock(ctx, filepath.Dir(l.path)); err == nil {
		defer lock.Unlock()
	}
	err := l.Listener.Close()
	if checkStale(l.path) == nil { // nobody listens there any more: it was ours
		os.Remove(l.path)
	}
	return err
}

// inherit takes over the sockets that systemd passed, all of them or those called name: see sd_listen_fds(3).
func (s *server) inherit(name string) error {
	const first = 3
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return errdef.Invalid("fd:// takes the sockets that systemd opened, and there are none (LISTEN_PID is not this process)")
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
		return errdef.Invalid("fd:// takes the sockets that systemd opened, and there are none (LISTEN_FDS)")
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		if name != "" && (i >= len(names) || names[i] != name) {
			continue
		}
		f := os.NewFile(uintptr(first+i), fmt.Sprintf("socket %d of systemd", i))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return errdef.Invalid("descriptor %d of systemd is no listening socket: %w", first+i, err)
		}
		if tcp, ok := l.(*net.TCPListener); ok {
			if l, err = s.secure(tcp); err != nil {
				return err
			}
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it is systemd's
		}
		s.listeners, s.activated = append(s.listeners, l), true
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v) // not for what we start
	}
	if !s.activated {
		return errdef.Invalid("systemd passed no socket called %q", name)
	}
	return nil
}

// secure holds a TCP socket of systemd to the rules of listenTCP.
func (s *server) secure(l *net.TCPListener) (net.Listener, error) {
	if s.o.TLS.given() {
		cfg, err := s.o.TLS.config()
		if err != nil {
			return nil, err
		}
		return tls.NewListener(l, cfg), nil
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		l.Close()
		return nil, errdef.Forbidden("the socket of systemd at %s has no TLS and is not on loopback: add --tlscacert, --tlscert and --tlskey", l.Addr())
	}
	return l, nil
}
