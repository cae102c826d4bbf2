package relay

import (
	"bytes"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// socket of the family of ip, on the poller once it is an os.File.
func socket(ip IP, kind int) (int, error) {
	family := unix.AF_INET
	if len(ip) == 16 {
		family = unix.AF_INET6
	}
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

func sockaddr(ip IP, port uint16) unix.Sockaddr {
	if len(ip) == 16 {
		sa := &unix.SockaddrInet6{Port: int(port)}
		copy(sa.Addr[:], ip)
		return sa
	}
	sa := &unix.SockaddrInet4{Port: int(port)}
	copy(sa.Addr[:], ip)
	return sa
}

// address is the inverse of sockaddr.
func address(sa unix.Sockaddr) (IP, uint16) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return bytes.Clone(sa.Addr[:]), uint16(sa.Port)
	case *unix.SockaddrInet6:
		return bytes.Clone(sa.Addr[:]), uint16(sa.Port)
	}
	return nil, 0
}

func isLoopback(ip IP) bool {
	if len(ip) == 4 {
		return ip[0] == 127
	}
	return isZero(ip[:15]) && ip[15] == 1
}

// has tells whether ip is in the subnet.
func (s *Subnet) has(ip IP) bool {
	if len(s.IP) != len(ip) {
		return false
	}
	for i := range s.Bits {
		if (s.IP[i/8]^ip[i/8])&(1<<(7-i%8)) != 0 {
			return false
		}
	}
	return true
}

// target is the container's address for a client: of his family when there is one.
func (r *Relay) target(client IP) IP {
	for _, to := range r.cfg.To {
		if len(to) == len(client) {
			return to
		}
	}
	if len(r.cfg.To) == 0 {
		return nil
	}
	return r.cfg.To[0]
}

// connect begins a connection to the container's port, in the name of client where that can work.
func (r *Relay) connect(kind int, client IP, port uint16) (int, error) {
	to := r.target(client)
	if to == nil {
		return -1, unix.EHOSTUNREACH
	}
	fd, err := socket(to, kind)
	if err != nil {
		return -1, err
	}
	r.speakAs(fd, client, to)
	if err := unix.Connect(fd, sockaddr(to, port)); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// speakAs gives fd the client's address. Where that is not possible fd keeps the host's own: the container is reached
// all the same.
func (r *Relay) speakAs(fd int, client, to IP) {
	if len(client) != len(to) || isLoopback(client) {
		return
	}
	for i := range r.cfg.Near {
		if r.cfg.Near[i].has(client) {
			return
		}
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if unix.Bind(fd, sockaddr(client, 0)) == nil {
		return // an address of the host
	}
	if _, err := os.Lstat(r.cfg.Keep); r.cfg.Keep == "" || err != nil {
		return
	}
	level, transparent := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if len(client) == 16 {
		level, transparent = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	if unix.SetsockoptInt(fd, level, transparent, 1) != nil || unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, r.cfg.Mark) != nil {
		return
	}
	_ = unix.Bind(fd, sockaddr(client, 0))
}

// readable waits until there is something to read from f, also its end. No buffer is held meanwhile: there may be
// thousands of idle connections.
func readable(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	})
}

// established waits until the connection that f began is made.
func established(f *os.File, d time.Duration) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	f.SetWriteDeadline(time.Now().Add(d))
	defer f.SetWriteDeadline(time.Time{})
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 0); err != nil || n == 0 {
			return false
		}
		if code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			failed = err
		} else if code != 0 {
			failed = unix.Errno(code)
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// control runs fn on the descriptor of f, which stays open and on the poller.
func control(f *os.File, fn func(fd int)) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { fn(int(fd)) })
	}
}
