// Package network keeps the networks of one engine: what they are called, which addresses are theirs and whose those are,
// and the bridge on the host that makes a network of them. Its directories:
//
//	<root>/networks/<name>.json          what a network is, written once
//	<run>/networks/<name>/<address>      whose an address is: a symbolic link to the run directory of its container
//	/run/hull-subnets/<prefix>           which engine of this machine uses a subnet: a link to its <root>/networks
//
//	s := network.Store{Root: root, Run: run, Device: "hull0"}
//	n, err := s.Default(network.Wish{})
//	bridge, err := n.Ensure()                 // whatever happened to it since
//	addr, err := s.Claim(n, containerRunDir)  // of any number of claimers each gets another one
//
// The links of containers are made by the runtime, which is told by a runtime.Link; the firewall is package nft's.
//
// Beware: a claim counts as long as the run directory exists that it points to.
package network

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/state/plainjson"
)

// The networks every engine has. Host and None are names only: they need nothing.
const (
	Bridge = "bridge"
	Host   = "host"
	None   = "none"
)

// Network is one network, as it is on disk.
type Network struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Device  string    `json:"device"` // the bridge on the host
	MTU     int       `json:"mtu"`
	IPv4    Subnet    `json:"ipv4"`
	IPv6    Subnet    `json:"ipv6,omitzero"` // none on a host without IPv6
}

// Subnet is the addresses of a network. The gateway's is that of the bridge.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"`
}

func subnet(p netip.Prefix) Subnet { return Subnet{p, p.Addr().Next()} }

// IsZero reports whether there is none.
func (s Subnet) IsZero() bool { return !s.Prefix.IsValid() }

// Wish is what an administrator wants of the default network. The zero value leaves all to us.
type Wish struct {
	Pools   []Pool       // where its subnet comes from
	Address netip.Prefix // of the bridge, and with its length the subnet
	MTU     int
}

func (w *Wish) subnet() Subnet { return Subnet{w.Address.Masked(), w.Address.Addr()} }

func (w *Wish) mtu() int {
	if w.MTU > 0 {
		return w.MTU
	}
	return 1500
}

// Store is where the networks of one engine are.
type Store struct {
	Root, Run string // of the engine
	Device    string // name of the default network's bridge; unlike those of all other engines of the machine
}

// path of the definition of a network.
func (s *Store) path(name string) string { return filepath.Join(s.Root, "networks", name+".json") }

// Load returns the default network if this engine has made it, else ErrNotFound.
func (s *Store) Load() (*Network, error) {
	b, err := state.Read(s.path(Bridge), 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdef.NotFound("network %s not found", Bridge)
	}
	if err != nil {
		return nil, err
	}
	n := new(Network)
	if err := plainjson.Unmarshal(b, n); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("read %s: %w", s.path(Bridge), err))
	}
	if !n.IPv4.Prefix.Addr().Is4() || n.Device == "" {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s has no subnet or no device: remove it when no container runs, and another one is chosen", s.path(Bridge)))
	}
	return n, nil
}

// Default returns the default network, made on first use with a subnet that nothing on this host uses. Of any number of
// callers at once all get the same.
func (s *Store) Default(w Wish) (*Network, error) {
	n, err := s.Load()
	if !errors.Is(err, errdef.ErrNotFound) {
		return n, err
	}
	dir := filepath.Dir(s.path(Bridge))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if n, err = s.Load(); !errors.Is(err, errdef.ErrNotFound) { // somebody else was quicker
		return n, err
	}
	id := make([]byte, 32)
	rand.Read(id)
	n = &Network{Name: Bridge, ID: hex.EncodeToString(id), Created: time.Now().UTC(), Device: s.Device}
	if hasIPv6() {
		n.IPv6 = subnet(uniqueLocal(id))
	}
	return n, s.settle(n, w)
}

// Resettle gives the network another subnet if somebody else took its own while it had no bridge (an engine or a route
// that came after a reboot) or the wish has changed, and reports whether it did. No container may have a link to it.
func (s *Store) Resettle(n *Network, w Wish) (moved bool, err error) {
	if !w.Address.IsValid() || w.subnet() == n.IPv4 {
		free, err := s.free(n.IPv4.Prefix)
		if err != nil || free && n.MTU == w.mtu() {
			return false, err
		}
	}
	l, err := lock(filepath.Dir(s.path(Bridge)))
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	if err := state.Release(Claims, claimName(n.IPv4.Prefix), filepath.Dir(s.path(Bridge))); err != nil {
		return false, err
	}
	return true, s.settle(n, w)
}

// settle chooses and claims a subnet and writes the network.
func (s *Store) settle(n *Network, w Wish) (err error) {
	n.MTU = w.mtu()
	if n.IPv4, err = s.choose(w); err != nil {
		return err
	}
	b, err := plainjson.Marshal(n)
	if err != nil {
		return err
	}
	return state.WriteDurable(s.path(n.Name), b)
}

// uniqueLocal is a prefix of fd00::/8 with a random global id, RFC 4193.
func uniqueLocal(random []byte) netip.Prefix {
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:6], random)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// hasIPv6 reports whether this host speaks it.
func hasIPv6() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && len(b) > 0 && b[0] == '0'
}

// In6 is the IPv6 address that belongs to the IPv4 address a: no further claim is needed. It is invalid on a network
// without IPv6.
func (n *Network) In6(a netip.Addr) netip.Addr {
	if n.IPv6.IsZero() {
		return netip.Addr{}
	}
	b, four := n.IPv6.Prefix.Addr().As16(), a.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

// MAC is the hardware address of whoever has a, as Docker makes it: neighbours that remember the one of a container that
// was there before are not wrong.
func MAC(a netip.Addr) [6]byte {
	b := a.As4()
	return [6]byte{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// Group is the device group of a's link: firewall rules know by it who may speak there.
func Group(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}
