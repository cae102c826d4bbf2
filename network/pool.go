package network

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hull/errdef"
	"hull/kernel/netlink"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Pool is a range of addresses of which networks get subnets with prefixes of Size bits.
type Pool struct {
	Base netip.Prefix
	Size int
}

// Pools are what subnets are taken from when nobody says otherwise: the upper part of what Docker uses, so that both can
// be installed on one host, then addresses that few companies use.
func Pools() []Pool {
	return []Pool{
		{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 24, 0, 0}), 13), 16},
		{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 208, 0, 0}), 12), 16},
		{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 112, 0, 0}), 12), 16},
	}
}

// Claims is where all engines of the machine claim subnets: one may not have made its bridge yet, or may be in another
// network namespace that gets connected later.
const Claims = "/run/hull-subnets"

// claimName of a subnet; a slash is no part of a file's name.
func claimName(p netip.Prefix) string { return strings.ReplaceAll(p.String(), "/", "-") }

// choose claims the first subnet that overlaps no route, address or claim, or the one that is wished for.
func (s *Store) choose(w Wish) (Subnet, error) {
	used, err := inUse()
	if err != nil {
		return Subnet{}, err
	}
	if w.Address.IsValid() {
		n := w.subnet()
		if overlaps(used, n.Prefix) {
			return Subnet{}, errdef.Conflict("the subnet %s that the configuration gives the default network overlaps a route or address of this host", n.Prefix)
		}
		if err := s.claim(n.Prefix); errors.As(err, new(*state.Taken)) {
			return Subnet{}, errdef.Conflict("the subnet %s that the configuration gives the default network belongs to another engine: %w", n.Prefix, err)
		} else if err != nil {
			return Subnet{}, err
		}
		return n, nil
	}
	pools := w.Pools
	if len(pools) == 0 {
		pools = Pools()
	}
	for _, pool := range pools {
		for p := range pool.subnets() {
			if overlaps(used, p) {
				continue
			}
			switch err := s.claim(p); {
			case err == nil:
				return subnet(p), nil
			case !errors.As(err, new(*state.Taken)):
				return Subnet{}, err
			}
		}
	}
	return Subnet{}, errdef.Unavailable("no subnet is left for the default network: every one of the address pools overlaps a route or address of this host, or belongs to another engine")
}

// free reports whether nobody else uses p, and claims it.
func (s *Store) free(p netip.Prefix) (bool, error) {
	used, err := inUse()
	if err != nil {
		return false, err
	}
	if overlaps(used, p) {
		return false, nil
	}
	err = s.claim(p)
	if errors.As(err, new(*state.Taken)) {
		return false, nil
	}
	return err == nil, err
}

func (s *Store) claim(p netip.Prefix) error {
	target := filepath.Dir(s.path(Bridge)) // with the store goes the claim
	err := state.Claim(Claims, claimName(p), target)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(Claims, 0o755); err == nil {
			err = state.Claim(Claims, claimName(p), target)
		}
	}
	return err
}

// subnets are the parts of the pool.
func (p Pool) subnets() func(yield func(netip.Prefix) bool) {
	return func(yield func(netip.Prefix) bool) {
		if !p.Base.IsValid() || !p.Base.Addr().Is4() || p.Size < p.Base.Bits() || p.Size > 30 {
			return
		}
		for a := p.Base.Masked().Addr(); p.Base.Contains(a); a = add4(a, 1<<(32-p.Size)) {
			if !yield(netip.PrefixFrom(a, p.Size)) {
				return
			}
		}
	}
}

// add4 is the IPv4 address n behind a; past the end of all addresses it is 0.0.0.0, which no pool contains.
func add4(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if v += n; v < n {
		return netip.IPv4Unspecified()
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// inUse is where this host can send to without its default routes, and what its own addresses are next to.
func inUse() ([]netip.Prefix, error) {
	c, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	routes, err := c.Routes(unix.AF_INET)
	if err != nil {
		return nil, err
	}
	addresses, err := c.Addresses(0)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range append(routes, addresses...) {
		if a, ok := netip.AddrFromSlice(r.IP); ok && a.Is4() && r.Bits > 1 { // 0/1 and 128/1 stand for everything, as VPNs write it
			out = append(out, netip.PrefixFrom(a, r.Bits).Masked())
		}
	}
	return out, nil
}

func overlaps(used []netip.Prefix, p netip.Prefix) bool {
	for _, u := range used {
		if u.Overlaps(p) {
			return true
		}
	}
	return false
}

// lock keeps two makers of networks apart.
func lock(dir string) (*state.Locked, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return state.Lock(ctx, dir)
}
