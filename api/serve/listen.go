package serve

import (
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
		return s.activate(rest)
	default:
		err = errdef.Invalid("%q: it is unix://, fd:// or tcp://", host)
	}
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, l)
	return nil
}

// listenTCP listens on an address. Without certificates that is one of loopback, and a person said so.
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
	if err := s.plain("tcp://"+address, ap.Addr().IsLoopback()); err != nil {
		return nil, err
	}
	return net.Listen("tcp", address)
}

// plain refuses a TCP socket without TLS, unless a person said that it is to be had and only this machine reaches it. Not
// every program on it is root: a web page in its browser, a user, a container with the host's network.
func (s *server) plain(where string, loopback bool) error {
	switch {
	case !loopback:
		return errdef.Forbidden("%s without TLS would make everybody who can reach it root of this machine: add --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1", where)
	case !s.o.Plain:
		return errdef.Forbidden("%s without TLS would let every user and program of this machine become its root: use a unix socket, add --tlscacert, --tlscert and --tlskey, or accept that with --tls=false", where)
	}
	s.log.Warn("every user and program of this machine, web pages included, can become its root through this address: use a unix socket, or TLS", "address", where)
	return nil
}

// listenUnix makes a socket at path for its owner and group. A socket nobody listens on is replaced, one of a living
// server never.
func listenUnix(path, group string) (_ net.Listener, err error) {
	if !filepath.IsAbs(path) {
		return nil, errdef.Invalid("unix://%s: the path of a socket begins with /", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	// Of two servers that find the same dead socket, one looks after the other has put its own there.
	lock, err := lockSocket(path)
	if err != nil {
		if served := checkStale(path); served != nil {
			err = served // which says by whom
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.release()
		}
	}()
	if err := checkStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path, group)
	if err != nil {
		return nil, err
	}
	return &socket{Listener: l, path: path, lock: lock}, nil
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
	return net.FileListener(f)
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
	// By descriptor: whoever may write to the directory may put something else at path at any moment.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode != unix.S_IFSOCK|0o600 || int(st.Uid) != os.Geteuid() {
		return errdef.Conflict("somebody has put something else in place of the socket %s: listen in a directory that is yours alone", path)
	}
	if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		if os.Geteuid() != 0 {
			return nil // an ordinary user who is no member: the socket stays the user's own
		}
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o660)
}

// socket is a listener at a path of ours, which goes with it unless somebody has put another one there.
type socket struct {
	net.Listener
	path string
	lock *socketLock
}

func (l *socket) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *socket) Close() error {
	err := l.Listener.Close()
	if checkStale(l.path) == nil { // nobody listens there any more: it was ours
		os.Remove(l.path)
	}
	l.lock.release()
	return err
}
