package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	osexec "os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// syslog sends lines to a syslog server, in one of Docker's formats. A connection that breaks is made anew with the next
// line; that line is sent again.
type syslog struct {
	cfg   *SyslogConfig
	fd    int // -1: not connected
	tls   *osexec.Cmd
	until time.Time // the end of the attempt that is on its way
}

// maxRelayWords is how much is kept of what the program that speaks TLS says on its stderr, in bytes.
const maxRelayWords = 4 << 10

// localLoggers are where the loggers of hosts listen.
var localLoggers = [...]string{"/dev/log", "/var/run/syslog", "/var/run/log"}

func openSyslog(cfg *SyslogConfig) (sink, error) {
	s := &syslog{cfg: cfg, fd: -1}
	s.begin()
	if err := s.dial(); err != nil {
		return nil, errdef.Unavailable("log driver syslog: %w", err)
	}
	return s, nil
}

func (s *syslog) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
	if s.tls != nil {
		// It ends with its stdin, once the server has taken what was written.
		late := time.AfterFunc(sinkTimeout, func() { _ = s.tls.Process.Kill() })
		_ = s.tls.Wait()
		late.Stop()
		s.tls = nil
	}
}

// begin begins an attempt: a connection where there is none, and a message.
func (s *syslog) begin() {
	s.until = time.Now().Add(sinkTimeout)
	if s.cfg.Network == "tcp+tls" && s.fd < 0 {
		s.until = s.until.Add(sinkTimeout) // a program has to start, and the two agree on keys
	}
}

// bound has the kernel end the next system call on fd that waits when the attempt is over.
func (s *syslog) bound(fd, option int) error {
	left := time.Until(s.until)
	if left <= 0 {
		return unix.ETIMEDOUT
	}
	tv := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
	return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv))
}

func (s *syslog) dial() (err error) {
	switch s.cfg.Network {
	case "unix":
		return s.dialUnix(unix.SOCK_STREAM, s.cfg.Address)
	case "unixgram":
		return s.dialUnix(unix.SOCK_DGRAM, s.cfg.Address)
	case "udp":
		return s.dialIP(unix.SOCK_DGRAM)
	case "tcp":
		return s.dialIP(unix.SOCK_STREAM)
	case "tcp+tls":
		return s.dialRelay()
	}
	for _, path := range localLoggers {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			if err = s.dialUnix(kind, path); err == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("no syslog server listens on this host: start one, or name one with --log-opt syslog-address")
}

func (s *syslog) dialUnix(kind int, path string) error {
	return s.connect(unix.AF_UNIX, kind, &unix.SockaddrUnix{Name: path}, path)
}

func (s *syslog) dialIP(kind int) error {
	ap, err := netip.ParseAddrPort(s.cfg.Address)
	if err != nil {
		return err
	}
	if a := ap.Addr().Unmap(); a.Is4() {
		return s.connect(unix.AF_INET, kind, &unix.SockaddrInet4{Addr: a.As4(), Port: int(ap.Port())}, s.cfg.Address)
	}
	return s.connect(unix.AF_INET6, kind, &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}, s.cfg.Address)
}

func (s *syslog) connect(family, kind int, to unix.Sockaddr, name string) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	for {
		if err = s.bound(fd, unix.SO_SNDTIMEO); err != nil { // which bounds connect(2), too
			break
		}
		if err = unix.Connect(fd, to); err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EISCONN) {
		err = nil
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EAGAIN) {
			err = unix.ETIMEDOUT
		}
		return fmt.Errorf("dial %s %s: %w", s.cfg.Network, name, err)
	}
	s.fd = fd
	return nil
}

// dialRelay starts the program that speaks TLS, which is too heavy to be part of every monitor. It says with one byte
// that it is connected.
func (s *syslog) dialRelay() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "relay")
	defer theirs.Close()
	said := &capped{max: maxRelayWords}
	cmd := osexec.Command(s.cfg.Relay[0], s.cfg.Relay[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, said
	cmd.WaitDelay = sinkTimeout
	if err := cmd.Start(); err != nil {
		unix.Close(pair[0])
		return err
	}
	theirs.Close()
	var ready [1]byte
	for {
		err := s.bound(pair[0], unix.SO_RCVTIMEO)
		n := 0
		if err == nil {
			n, err = unix.Read(pair[0], ready[:])
		}
		if err == unix.EINTR {
			continue
		}
		if n == 1 {
			s.fd, s.tls = pair[0], cmd
			return nil
		}
		unix.Close(pair[0])
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if words := strings.TrimSpace(said.String()); words != "" {
			return errors.New(words)
		}
		return fmt.Errorf("dial tcp+tls %s: no connection within %s", s.cfg.Address, 2*sinkTimeout)
	}
}

func (s *syslog) send(e *shipped) error {
	s.begin()
	if s.fd < 0 {
		if err := s.dial(); err != nil {
			return err
		}
	}
	err := s.write(s.format(e))
	if errors.Is(err, unix.EMSGSIZE) {
		return nil // no server takes it, however often
	}
	if err != nil {
		s.close()
	}
	return err
}

// write sends a message whole, or not in time.
func (s *syslog) write(p []byte) error {
	for len(p) > 0 {
		n, err := unix.SendmsgN(s.fd, p, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch err {
		case nil:
			p = p[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.awaitRoom(); err != nil {
				return err
			}
		default:
			return err
		}
		if time.Until(s.until) <= 0 && len(p) > 0 {
			return unix.ETIMEDOUT
		}
	}
	return nil
}

// awaitRoom waits until there is room for more, or the attempt is over. SO_SNDTIMEO would not do: the kernel begins anew to
// count it with every buffer of a stream.
func (s *syslog) awaitRoom() error {
	left := max(time.Until(s.until), 0)
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
	if err == unix.EINTR {
		return nil
	}
	return err
}

// Severities of syslog, RFC 5424.
const (
	severityError = 3
	severityInfo  = 6
)

// format makes the message of a line. On a stream it ends in a newline; over TLS in RFC 5424 its length comes before it
// instead (RFC 5425).
func (s *syslog) format(e *shipped) []byte {
	c := s.cfg
	priority := c.Facility<<3 | severityInfo
	if e.stream == "stderr" {
		priority = c.Facility<<3 | severityError
	}
	text := oneLine(bytes.TrimSuffix(e.text, []byte{'\n'}))
	var b []byte
	switch c.Format {
	case "rfc5424", "rfc5424micro":
		layout := time.RFC3339
		if c.Format == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = fmt.Appendf(nil, "<%d>1 %s %s %s %d %s - %s", priority, e.at.Format(layout), c.Hostname, c.Tag, os.Getpid(), c.Tag, text)
		if c.Network == "tcp+tls" {
			return slices.Concat([]byte(strconv.Itoa(len(b))), []byte{' '}, b)
		}
	case "rfc3164":
		b = fmt.Appendf(nil, "<%d>%s %s %s[%d]: %s", priority, e.at.Format(time.Stamp), c.Hostname, c.Tag, os.Getpid(), text)
	default: // what local loggers expect, who know their host
		b = fmt.Appendf(nil, "<%d>%s %s[%d]: %s", priority, e.at.Format(time.Stamp), c.Tag, os.Getpid(), text)
	}
	return append(b, '\n')
}
