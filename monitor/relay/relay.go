// Package relay holds the ports of the host that lead to a container: a bound socket is the claim of its port, and what
// reaches it is carried to the container.
//
//	r, err := relay.Listen(&cfg)     // a *BindError says which port is not to be had
//	defer r.Close()
//	r.Serve()
//	for _, p := range r.Ports() { ... }
//
// What the firewall translates on its way (network/nft) never comes here. What does: loopback addresses, containers
// asking for a published port of the host, and everything where a firewall of the host's owner decides about what
// comes in, which must see a service of the host. Then the container sees the client's own address all the same.
//
// Beware: the sockets are plain descriptors on the runtime's poller, as all in package monitor: package net would cost
// every idle monitor its name tables.
package relay

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Config is what is to be published of one container.
type Config struct {
	Ports []Wanted `json:"ports"`
	// To are the container's addresses, at most one of each family.
	To []IP `json:"to"`
	// Near are the container's own subnets: who is in them is answered directly, so a connection in his name would
	// never see the answer.
	Near []Subnet `json:"near,omitempty"`
	// Keep is a file that exists while replies to connections made in a client's name find back to us (nft.Rules.Relay).
	// Without it the container sees the host as the client.
	Keep string `json:"keep,omitempty"`
	// Mark is what those connections are marked with.
	Mark int `json:"mark,omitempty"`
}

// IP is an address of 4 or 16 bytes.
type IP []byte

// Subnet is the addresses that share the first Bits with IP.
type Subnet struct {
	IP   IP  `json:"ip"`
	Bits int `json:"bits"`
}

// Wanted asks for one port of the container to be published.
type Wanted struct {
	Proto string `json:"proto"` // "tcp" or "udp"
	To    uint16 `json:"to"`    // the container's
	On    []IP   `json:"on"`    // addresses of the host, which get the same port
	// First and Last bound the ports of the host, the lowest free one is taken. 0: one that the kernel chooses.
	First uint16 `json:"first,omitempty"`
	Last  uint16 `json:"last,omitempty"`
}

// Port is one published port.
type Port struct {
	Proto string `json:"proto"`
	To    uint16 `json:"to"`   // the container's
	On    IP     `json:"on"`   // of the host
	Port  uint16 `json:"port"` // of the host
}

// BindError says that a port of the host cannot be had. Port.Port is 0 when none of a range was free.
type BindError struct {
	Port Port
	Err  error
}

func (e *BindError) Error() string {
	return fmt.Sprintf("bind %s port %d: %v", e.Port.Proto, e.Port.Port, e.Err)
}
func (e *BindError) Unwrap() error { return e.Err }

// Relay is the listeners of one container. A nil one has none.
type Relay struct {
	cfg       *Config
	listeners []*listener
	work      sync.WaitGroup

	most int // connections that may be open

	mu     sync.Mutex // protects the following
	closed bool
	open   map[*os.File]struct{} // connections
}

// maxOpen bounds the descriptors of connections: clients are anybody. The monitor needs its own for logs and execs.
const maxOpen = 8192

// most is maxOpen, or half of what this process may open.
func most() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur/2 > maxOpen {
		return maxOpen
	}
	return int(lim.Cur / 2)
}

type listener struct {
	Port
	f *os.File
}

// Listen claims all ports of cfg, or none.
func Listen(cfg *Config) (*Relay, error) {
	r := &Relay{cfg: cfg, most: most(), open: map[*os.File]struct{}{}}
	for i := range cfg.Ports {
		ls, err := claim(&cfg.Ports[i])
		if err != nil {
			r.Close()
			return nil, err
		}
		r.listeners = append(r.listeners, ls...)
	}
	return r, nil
}

// ephemeralTries bounds how often the kernel is asked for a port that is free on every address.
const ephemeralTries = 64

// claim binds what w asks for, on all its addresses with one port.
func claim(w *Wanted) (ls []*listener, err error) {
	if w.First == 0 {
		for range ephemeralTries {
			if ls, err = bindAll(w, 0); !isBusy(err) {
				break
			}
		}
		return ls, err
	}
	for port := int(w.First); port <= max(int(w.Last), int(w.First)); port++ {
		if ls, err = bindAll(w, uint16(port)); !isBusy(err) {
			return ls, err
		}
	}
	if w.Last > w.First {
		err = &BindError{Port{Proto: w.Proto, To: w.To, On: w.On[0]}, unix.EADDRINUSE}
	}
	return nil, err
}

func isBusy(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

func bindAll(w *Wanted, port uint16) (ls []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range ls {
				l.f.Close()
			}
			ls = nil
		}
	}()
	for i, on := range w.On {
		l, err := bind(Port{w.Proto, w.To, on, port})
		if i > 0 && len(on) == 16 && isZero(on) && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue // the host has no IPv6, and nobody asked for it by name
		}
		if err != nil {
			return ls, &BindError{Port{w.Proto, w.To, on, port}, err}
		}
		ls = append(ls, l)
		port = l.Port.Port
	}
	return ls, nil
}

func isZero(ip IP) bool { return !slices.ContainsFunc(ip, func(b byte) bool { return b != 0 }) }

func bind(p Port) (*listener, error) {
	kind := unix.SOCK_STREAM
	if p.Proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := socket(p.On, kind)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "port")
	if err := setUp(fd, &p); err != nil {
		f.Close()
		return nil, err
	}
	return &listener{p, f}, nil
}

// setUp binds fd and sets p.Port to what it got.
func setUp(fd int, p *Port) error {
	set := func(level, name int) error { return unix.SetsockoptInt(fd, level, name, 1) }
	if len(p.On) == 16 {
		if err := set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil {
			return err
		}
	}
	var err error
	switch {
	case p.Proto == "tcp":
		// Connections of the last container that had the port may linger in TIME_WAIT.
		err = set(unix.SOL_SOCKET, unix.SO_REUSEADDR)
	case len(p.On) == 16:
		err = set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO)
	default:
		err = set(unix.IPPROTO_IP, unix.IP_PKTINFO)
	}
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(p.On, p.Port)); err != nil {
		return err
	}
	if p.Proto == "tcp" {
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			return err
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	_, p.Port = address(name)
	return nil
}

// Ports are all that were claimed, in the order of the configuration.
func (r *Relay) Ports() []Port {
	if r == nil {
		return nil
	}
	out := make([]Port, len(r.listeners))
	for i, l := range r.listeners {
		out[i] = l.Port
	}
	return out
}

// Serve begins to carry, in the background.
func (r *Relay) Serve() {
	if r == nil {
		return
	}
	for _, l := range r.listeners {
		if l.Proto == "udp" {
			r.work.Go(func() { r.serveUDP(l) })
		} else {
			r.work.Go(func() { r.serveTCP(l) })
		}
	}
}

// Close gives the ports back and ends every connection. It returns when nothing is left.
func (r *Relay) Close() {
	if r == nil {
		return
	}
	for _, l := range r.listeners {
		l.f.Close()
	}
	r.mu.Lock()
	r.closed = true
	for f := range r.open {
		f.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
}

// track has Close close f; false when it is too late for that.
func (r *Relay) track(f *os.File) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.open[f] = struct{}{}
	return true
}

// full reports whether a client more, and the connection to the container for him, is too much.
func (r *Relay) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)+2 > r.most
}

func (r *Relay) drop(f *os.File) {
	r.mu.Lock()
	delete(r.open, f)
	r.mu.Unlock()
	f.Close()
}
