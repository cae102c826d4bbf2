// Package netlink speaks rtnetlink(7) to the kernel: links, addresses, routes. It is what a container's start needs of
// it and little more, without package initialisation, because the monitor of each container links it.
//
//	c, err := netlink.Open()
//	defer c.Close()
//	var b netlink.Batch
//	m := b.Link("bring lo up", unix.RTM_NEWLINK, 0, netlink.Header{Index: 1, Flags: unix.IFF_UP, Change: unix.IFF_UP})
//	err = c.Do(&b)
//
// All messages of a Batch travel in one system call and are carried out in order. One that fails does not stop those
// behind it: a caller that cannot use the half closes the namespace, or undoes it by name.
//
// Beware: a Conn is for one goroutine.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a socket in one network namespace.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// patience bounds the wait for an answer, in seconds. The kernel answers before sendto(2) returns, so it is only for
// answers that got lost.
const patience = 10

// Open opens a socket in the network namespace of the caller.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conn{fd: fd, buf: make([]byte, 32<<10)}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1))
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

// In calls f in the network namespace ns, with the calling thread there for that long. A thread that does not come back
// ends with its goroutine, so f's caller has to be a goroutine of its own that may end then: In makes it.
func In(ns int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- &os.PathError{Op: "open", Path: "/proc/thread-self/ns/net", Err: err}
			return
		}
		defer unix.Close(home)
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = f()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread() // else the thread ends with us
		}
		done <- err
	}()
	return <-done
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Error is the refusal of one message.
type Error struct {
	What  string // what the message was to do
	Errno syscall.Errno
	Hint  string // the kernel's own words, or ""
}

func (e *Error) Error() string {
	if e.Hint != "" {
		return e.What + ": " + e.Errno.Error() + " (" + e.Hint + ")"
	}
	return e.What + ": " + e.Errno.Error()
}

// Unwrap returns the errno, so that errors.Is(err, unix.EEXIST) works.
func (e *Error) Unwrap() error { return e.Errno }

// Header is struct ifinfomsg, the beginning of a message about a link.
type Header struct {
	Index         int32
	Flags, Change uint32
}

// Batch collects messages. The zero value is empty.
type Batch struct {
	buf  []byte
	what []string
}

// Message is the last one of a Batch, to which attributes are added.
type Message struct {
	b  *Batch
	at int
}

// add begins a message with nlmsghdr and the fixed part of its type.
func (b *Batch) add(what string, typ, flags uint16, fixed []byte) *Message {
	m := &Message{b, len(b.buf)}
	b.what = append(b.what, what)
	b.buf = append(b.buf, make([]byte, unix.NLMSG_HDRLEN)...)
	binary.NativeEndian.PutUint16(b.buf[m.at+4:], typ)
	binary.NativeEndian.PutUint16(b.buf[m.at+6:], flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, fixed...)
	m.grow()
	return m
}

// Link begins a message RTM_*LINK; what names it in errors.
func (b *Batch) Link(what string, typ, flags uint16, h Header) *Message {
	f := make([]byte, unix.SizeofIfInfomsg)
	putHeader(f, h)
	return b.add(what, typ, flags, f)
}

func putHeader(f []byte, h Header) {
	binary.NativeEndian.PutUint32(f[4:], uint32(h.Index))
	binary.NativeEndian.PutUint32(f[8:], h.Flags)
	binary.NativeEndian.PutUint32(f[12:], h.Change)
}

// Address begins a message RTM_*ADDR about an address with a prefix of bits on the link index; its family is that of ip,
// or family when ip is nil.
func (b *Batch) Address(what string, typ, flags uint16, index int, ip []byte, bits int) *Message {
	f := make([]byte, unix.SizeofIfAddrmsg)
	f[0], f[1] = family(ip), byte(bits)
	binary.NativeEndian.PutUint32(f[4:], uint32(index))
	m := b.add(what, typ, flags, f)
	if ip != nil {
		m.Bytes(unix.IFA_LOCAL, ip).Bytes(unix.IFA_ADDRESS, ip)
	}
	return m
}

// Route begins a message RTM_*ROUTE of the main table to the network to/bits, nil for the default one of family.
func (b *Batch) Route(what string, typ, flags uint16, family byte, to []byte, bits int) *Message {
	f := make([]byte, unix.SizeofRtMsg)
	f[0], f[1] = family, byte(bits)
	if typ != unix.RTM_GETROUTE {
		f[4], f[5], f[6], f[7] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	}
	m := b.add(what, typ, flags, f)
	if to != nil {
		m.Bytes(unix.RTA_DST, to)
	}
	return m
}

func family(ip []byte) byte {
	switch len(ip) {
	case 4:
		return unix.AF_INET
	case 16:
		return unix.AF_INET6
	}
	return unix.AF_UNSPEC
}

// Bytes adds an attribute.
func (m *Message) Bytes(typ uint16, v []byte) *Message {
	var h [unix.SizeofRtAttr]byte
	binary.NativeEndian.PutUint16(h[0:], uint16(len(h)+len(v)))
	binary.NativeEndian.PutUint16(h[2:], typ)
	m.b.buf = append(append(m.b.buf, h[:]...), v...)
	return m.grow()
}

// String adds an attribute that ends in NUL.
func (m *Message) String(typ uint16, v string) *Message { return m.Bytes(typ, append([]byte(v), 0)) }

// Uint32 adds an attribute of the host's byte order.
func (m *Message) Uint32(typ uint16, v uint32) *Message {
	return m.Bytes(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// Byte adds an attribute of one byte.
func (m *Message) Byte(typ uint16, v byte) *Message { return m.Bytes(typ, []byte{v}) }

// Nest adds an attribute that holds those which f adds.
func (m *Message) Nest(typ uint16, f func()) *Message {
	at := len(m.b.buf)
	m.Bytes(typ, nil)
	f()
	binary.NativeEndian.PutUint16(m.b.buf[at:], uint16(len(m.b.buf)-at))
	return m.grow()
}

// Header adds a struct ifinfomsg, for the peer of a link.
func (m *Message) Header(h Header) *Message {
	f := make([]byte, unix.SizeofIfInfomsg)
	putHeader(f, h)
	m.b.buf = append(m.b.buf, f...)
	return m.grow()
}

// grow pads the message and corrects its length.
func (m *Message) grow() *Message {
	for len(m.b.buf)%unix.NLMSG_ALIGNTO != 0 {
		m.b.buf = append(m.b.buf, 0)
	}
	binary.NativeEndian.PutUint32(m.b.buf[m.at:], uint32(len(m.b.buf)-m.at))
	return m
}

// Do has the kernel carry the batch out. The error is that of the first message which failed, an *Error.
func (c *Conn) Do(b *Batch) error {
	if len(b.what) == 0 {
		return nil
	}
	first := c.number(b, unix.NLM_F_ACK)
	if err := unix.Sendto(c.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: send to netlink: %w", b.what[0], err)
	}
	var failed error
	answered := 0
	for answered < len(b.what) {
		err := c.receive(func(h *unix.NlMsghdr, body []byte) error {
			i := int(h.Seq - first)
			if i < 0 || i >= len(b.what) || h.Type != unix.NLMSG_ERROR {
				return nil // of an earlier request that was given up
			}
			answered++
			if err := refusal(b.what[i], h, body); err != nil && failed == nil {
				failed = err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", b.what[0], err)
		}
	}
	return failed
}

// Query sends the batch, one request for information, and calls f for each object of the answer with its fixed part and
// attributes. With NLM_F_DUMP there may be any number of them.
func (c *Conn) Query(b *Batch, f func(typ uint16, body []byte) error) error {
	dump := binary.NativeEndian.Uint16(b.buf[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	first := c.number(b, 0)
	if err := unix.Sendto(c.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: send to netlink: %w", b.what[0], err)
	}
	var failed error
	for done := false; !done; {
		err := c.receive(func(h *unix.NlMsghdr, body []byte) error {
			switch {
			case h.Seq != first:
				return nil
			case h.Type == unix.NLMSG_DONE:
				done = true
				return nil
			case h.Type == unix.NLMSG_ERROR:
				done = true
				return refusal(b.what[0], h, body)
			}
			done = done || !dump
			if failed == nil { // the rest is read, or it would be taken for the next answer
				failed = f(h.Type, body)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return failed
}

// number gives the messages of b their sequence numbers and returns the first.
func (c *Conn) number(b *Batch, flags uint16) uint32 {
	first := c.seq + 1
	for at := 0; at < len(b.buf); {
		c.seq++
		binary.NativeEndian.PutUint16(b.buf[at+6:], binary.NativeEndian.Uint16(b.buf[at+6:])|flags)
		binary.NativeEndian.PutUint32(b.buf[at+8:], c.seq)
		at += int(binary.NativeEndian.Uint32(b.buf[at:]))
	}
	return first
}

// receive reads one packet and calls f for each message in it.
func (c *Conn) receive(f func(h *unix.NlMsghdr, body []byte) error) error {
	n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buf, 0)
	}
	if err != nil {
		return fmt.Errorf("receive from netlink: %w", err)
	}
	for p := c.buf[:n]; len(p) >= unix.NLMSG_HDRLEN; {
		h := unix.NlMsghdr{
			Len: binary.NativeEndian.Uint32(p), Type: binary.NativeEndian.Uint16(p[4:]),
			Flags: binary.NativeEndian.Uint16(p[6:]), Seq: binary.NativeEndian.Uint32(p[8:]),
		}
		if h.Len < unix.NLMSG_HDRLEN || int(h.Len) > len(p) {
			return errors.New("receive from netlink: a message is longer than its packet")
		}
		if err := f(&h, p[unix.NLMSG_HDRLEN:h.Len]); err != nil {
			return err
		}
		p = p[min(align(int(h.Len)), len(p)):]
	}
	return nil
}

// refusal reads struct nlmsgerr; nil for an acknowledgement.
func refusal(what string, h *unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("%s: the kernel's answer is cut off", what)
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	e := &Error{What: what, Errno: syscall.Errno(-code)}
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > 4+unix.NLMSG_HDRLEN {
		Attributes(body[4+unix.NLMSG_HDRLEN:], func(typ uint16, v []byte) {
			if typ == nlmsgerrAttrMsg {
				e.Hint = Text(v)
			}
		})
	}
	return e
}

// nlmsgerrAttrMsg is NLMSGERR_ATTR_MSG of linux/netlink.h.
const nlmsgerrAttrMsg = 1

// Attributes calls f for each attribute in p, as it lies behind the fixed part of a message.
func Attributes(p []byte, f func(typ uint16, v []byte)) {
	for len(p) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(p))
		if n < unix.SizeofRtAttr || n > len(p) {
			return
		}
		f(binary.NativeEndian.Uint16(p[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), p[unix.SizeofRtAttr:n])
		p = p[min(align(n), len(p)):]
	}
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// Text is an attribute that ends in NUL.
func Text(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

// Index is the number of the link with that name.
func (c *Conn) Index(name string) (int, error) {
	l, err := c.Link(name)
	return l.Index, err
}
