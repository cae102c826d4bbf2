package serve

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// passed are the sockets that systemd opened for this process: see sd_listen_fds(3).
type passed struct {
	files []*os.File // nil where one was taken
	names []string
	why   string // there are none
}

// takePassed takes over what systemd passed. Nothing of it goes to what we start.
func takePassed() *passed {
	const first = 3
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if pid != strconv.Itoa(os.Getpid()) {
		return &passed{why: "LISTEN_PID is not this process"}
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return &passed{why: "LISTEN_FDS"}
	}
	p := &passed{names: strings.Split(names, ":")}
	for i := range n {
		unix.CloseOnExec(first + i)
		p.files = append(p.files, os.NewFile(uintptr(first+i), fmt.Sprintf("socket %d of systemd", i)))
	}
	return p
}

// take returns the sockets called name, or all that are left.
func (p *passed) take(name string) []*os.File {
	var out []*os.File
	for i, f := range p.files {
		if f != nil && (name == "" || i < len(p.names) && p.names[i] == name) {
			out, p.files[i] = append(out, f), nil
		}
	}
	return out
}

// close closes what nobody took. Idempotent.
func (p *passed) close() {
	for _, f := range p.take("") {
		f.Close()
	}
}

// activate listens on the sockets of systemd, all of them or those called name.
func (s *server) activate(name string) error {
	if s.passed.why != "" {
		return errdef.Invalid("fd:// takes the sockets that systemd opened, and there are none (%s)", s.passed.why)
	}
	files := s.passed.take(name)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			return errdef.Invalid("%s is no listening socket: %w", f.Name(), err)
		}
		switch of := l.(type) {
		case *net.TCPListener:
			if l, err = s.secure(of); err != nil {
				of.Close()
				return err
			}
		case *net.UnixListener:
			of.SetUnlinkOnClose(false) // it is systemd's
		}
		s.listeners, s.activated = append(s.listeners, l), true
	}
	if len(files) == 0 {
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
	a, ok := l.Addr().(*net.TCPAddr)
	return l, s.plain("the socket of systemd at "+l.Addr().String(), ok && a.IP.IsLoopback())
}
