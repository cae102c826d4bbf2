package relay

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds on what clients of a UDP port can make us keep, whose addresses may be forged.
const (
	maxFlows = 1024             // of one port; then the one that was silent for longest goes
	flowIdle = 90 * time.Second // without a packet either way
)

// flow is a client's conversation with the container.
type flow struct {
	conn *os.File // connected to the container
	last time.Time
}

// peer names a flow: who sent to which of the host's addresses.
type peer struct {
	from, at [16]byte
	port     int
	zone     uint32
}

// flows of one listener.
type flows struct {
	mu sync.Mutex // protects the following
	of map[peer]*flow
}

// serveUDP takes what clients send to l. The answers go back in a goroutine for each flow.
func (r *Relay) serveUDP(l *listener) {
	fs := &flows{of: map[peer]*flow{}}
	for readable(l.f) == nil {
		r.receive(l, fs)
	}
}

// receive takes the packets that are there.
func (r *Relay) receive(l *listener, fs *flows) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var oob [128]byte
	for {
		var n, oobn int
		var from unix.Sockaddr
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, from, failed = unix.Recvmsg(int(fd), buf[:], oob[:], unix.MSG_DONTWAIT)
			return true
		}); err != nil || errors.Is(failed, unix.EAGAIN) {
			return
		}
		if failed != nil {
			if !errors.Is(failed, unix.ECONNREFUSED) { // that is an ICMP error of a client who does not listen any more
				time.Sleep(10 * time.Millisecond) // out of memory: others may give some back
			}
			continue
		}
		if f := r.flow(l, fs, from, oob[:oobn]); f != nil {
			control(f.conn, func(fd int) { unix.Send(fd, buf[:n], unix.MSG_DONTWAIT) }) // lost as any packet may be
		}
	}
}

// flow finds the conversation that a packet belongs to, or begins it.
func (r *Relay) flow(l *listener, fs *flows, from unix.Sockaddr, oob []byte) *flow {
	ip, port := address(from)
	p := peer{port: int(port)}
	copy(p.from[:], ip)
	if six, ok := from.(*unix.SockaddrInet6); ok {
		p.zone = six.ZoneId
	}
	at := arrivedAt(oob)
	copy(p.at[:], at)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	now := time.Now()
	if f := fs.of[p]; f != nil {
		f.last = now
		return f
	}
	if len(fs.of) >= maxFlows {
		fs.evict()
	}
	fd, err := r.connect(unix.SOCK_DGRAM, ip, l.To)
	if err != nil {
		return nil
	}
	f := &flow{os.NewFile(uintptr(fd), "container"), now}
	if !r.track(f.conn) {
		f.conn.Close()
		return nil
	}
	fs.of[p] = f
	r.work.Go(func() {
		defer r.drop(f.conn)
		f.answer(l, fs, from, reply(at))
		fs.forget(p, f)
	})
	return f
}

// evict ends the flow that was silent for longest. The lock is held.
func (fs *flows) evict() {
	var oldest peer
	var f *flow
	for p, g := range fs.of {
		if f == nil || g.last.Before(f.last) {
			oldest, f = p, g
		}
	}
	delete(fs.of, oldest)
	f.conn.SetReadDeadline(time.Unix(1, 0))
}

func (fs *flows) forget(p peer, f *flow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.of[p] == f {
		delete(fs.of, p)
	}
}

// silentUntil is when the flow will have been idle for too long.
func (fs *flows) silentUntil(f *flow) time.Time {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return f.last.Add(flowIdle)
}

// answer sends what the container says to the client, from the address that he spoke to, until the flow is silent for
// too long, evicted or closed.
func (f *flow) answer(l *listener, fs *flows, to unix.Sockaddr, oob []byte) {
	raw, err := f.conn.SyscallConn()
	if err != nil {
		return
	}
	f.conn.SetReadDeadline(time.Now().Add(flowIdle))
	for {
		if err := readable(f.conn); err != nil {
			until := fs.silentUntil(f)
			if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(until) || !fs.holds(f) {
				return
			}
			f.conn.SetReadDeadline(until)
			continue
		}
		if f.passOn(raw, l, to, oob) {
			fs.touch(f)
		}
	}
}

func (fs *flows) holds(f *flow) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, g := range fs.of {
		if g == f {
			return true
		}
	}
	return false
}

func (fs *flows) touch(f *flow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.last = time.Now()
}

// passOn sends one packet of the container to the client. It reports whether there was one.
func (f *flow) passOn(raw syscall.RawConn, l *listener, to unix.Sockaddr, oob []byte) bool {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	n := -1
	if err := raw.Read(func(fd uintptr) bool {
		var err error
		if n, _, err = unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT); err != nil {
			n = -1 // the container does not listen: that is between it and its clients
		}
		return true
	}); err != nil || n < 0 {
		return false
	}
	control(l.f, func(fd int) { unix.SendmsgN(fd, buf[:n], oob, to, unix.MSG_DONTWAIT) })
	return true
}

// arrivedAt reads which of the host's addresses a packet was sent to.
func arrivedAt(oob []byte) IP {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			return append(IP(nil), m.Data[4:8]...) // ipi_spec_dst
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return append(IP(nil), m.Data[:16]...)
		}
	}
	return nil
}

// reply has a packet sent from the address at.
func reply(at IP) []byte {
	switch len(at) {
	case 4:
		info := new(unix.Inet4Pktinfo)
		copy(info.Spec_dst[:], at)
		return unix.PktInfo4(info)
	case 16:
		info := new(unix.Inet6Pktinfo)
		copy(info.Addr[:], at)
		return unix.PktInfo6(info)
	}
	return nil
}
