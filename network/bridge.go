package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"hull/errdef"
	"hull/kernel/netlink"

	"golang.org/x/sys/unix"
)

// Exists reports whether the network has a bridge on this host.
func (n *Network) Exists() (bool, error) {
	c, err := netlink.Open()
	if err != nil {
		return false, err
	}
	defer c.Close()
	_, err = c.Link(n.Device)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return err == nil, err
}

// Ensure makes sure that the bridge is there, up and has its addresses, and says whether something had to be done. It is
// idempotent, and two callers at once do not disturb each other. When all is well it costs two questions to the kernel.
//
// Links of containers that were ports of a deleted bridge, those whose names begin with ports, become ports again.
func (n *Network) Ensure(ports string) (healed bool, err error) {
	c, err := netlink.Open()
	if err != nil {
		return false, err
	}
	defer c.Close()
	l, err := c.Link(n.Device)
	switch {
	case errors.Is(err, unix.ENODEV):
		if err = n.make(c); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, err
		}
		healed = true
		if l, err = c.Link(n.Device); err != nil {
			return false, err
		}
	case err != nil:
		return false, err
	}
	if l.Kind != Bridge {
		return false, errdef.Conflict("a device %s that is no bridge is in the way of the network %s: remove or rename it", n.Device, n.Name)
	}
	have, err := c.Addresses(l.Index)
	if err != nil {
		return false, err
	}
	var b netlink.Batch
	added := 0
	for _, s := range []Subnet{n.IPv4, n.IPv6} {
		if s.IsZero() || slices.ContainsFunc(have, func(p netlink.Prefix) bool { return slices.Equal(p.IP, s.Gateway.AsSlice()) }) {
			continue
		}
		added++
		n.address(&b, l.Index, s)
	}
	if l.Snoops {
		added++
		dumb(b.Link("have "+n.Device+" send multicasts to all", unix.RTM_NEWLINK, 0, netlink.Header{Index: int32(l.Index)}))
	}
	if l.Flags&unix.IFF_UP == 0 {
		added++
		b.Link("bring "+n.Device+" up", unix.RTM_NEWLINK, 0, netlink.Header{Index: int32(l.Index), Flags: unix.IFF_UP, Change: unix.IFF_UP})
	}
	if added > 0 {
		healed = true
		if err := c.Do(&b); err != nil {
			return false, err
		}
	}
	if healed {
		return true, adopt(c, l.Index, ports)
	}
	return false, nil
}

// make creates the bridge. Its hardware address is fixed: otherwise it would be the lowest of its ports', and the
// containers' gateway would change its address as they come and go.
func (n *Network) make(c *netlink.Conn) error {
	mac := MAC(n.IPv4.Gateway)
	var b netlink.Batch
	m := b.Link("create bridge "+n.Device, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, netlink.Header{})
	m.String(unix.IFLA_IFNAME, n.Device).Bytes(unix.IFLA_ADDRESS, mac[:]).Uint32(unix.IFLA_MTU, uint32(n.MTU))
	dumb(m)
	err := c.Do(&b)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("this kernel has no bridges (CONFIG_BRIDGE): use --network host or none: %w", err))
	}
	if errors.Is(err, unix.EPERM) {
		return errdef.As(errdef.ErrForbidden, fmt.Errorf("this process may not make network devices: use --network host or none: %w", err))
	}
	if err == nil {
		n.deafen()
	}
	return err
}

// dumb makes a bridge that sends multicasts to all its ports. By default one listens to what its ports report, and as soon
// as anybody asks for reports, as every container may, it believes only these: our firewall drops most of them
// (nft.Rules), and IPv6 would cease to find neighbours.
func dumb(m *netlink.Message) {
	m.Nest(unix.IFLA_LINKINFO, func() {
		m.String(unix.IFLA_INFO_KIND, Bridge).Nest(unix.IFLA_INFO_DATA, func() { m.Byte(unix.IFLA_BR_MCAST_SNOOPING, 0) })
	})
}

// deafen keeps the host from taking routers and redirects from its containers (CVE-2020-13401). There are no duplicates of
// the bridge's addresses to look for either, which would take a second.
func (n *Network) deafen() {
	for _, f := range []string{"accept_ra", "accept_redirects", "accept_dad"} {
		// Without IPv6 there is no such file.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+n.Device+"/"+f, []byte("0"), 0)
	}
}

func (n *Network) address(b *netlink.Batch, index int, s Subnet) {
	ip := s.Gateway.AsSlice()
	m := b.Address("give "+n.Device+" the address "+s.Gateway.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, ip, s.Prefix.Bits())
	if s.Gateway.Is4() {
		m.Bytes(unix.IFA_BROADCAST, broadcast(s.Prefix).AsSlice())
	} else {
		m.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
}

func broadcast(p netip.Prefix) netip.Addr { return add4(p.Masked().Addr(), 1<<(32-p.Bits())-1) }

// Attach makes the links of containers, those whose names begin with ports, ports of the bridge again, and takes them up.
func (n *Network) Attach(ports string) error {
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	bridge, err := c.Index(n.Device)
	if err != nil {
		return err
	}
	return adopt(c, bridge, ports)
}

// adopt makes links of containers ports of the bridge again.
func adopt(c *netlink.Conn, bridge int, ports string) error {
	links, err := c.Links()
	if err != nil {
		return err
	}
	var b netlink.Batch
	for _, l := range links {
		if l.Kind == "veth" && strings.HasPrefix(l.Name, ports) && (l.Master != bridge || l.Flags&unix.IFF_UP == 0) {
			b.Link("attach "+l.Name, unix.RTM_NEWLINK, 0, netlink.Header{Index: int32(l.Index), Flags: unix.IFF_UP, Change: unix.IFF_UP}).
				Uint32(unix.IFLA_MASTER, uint32(bridge))
		}
	}
	if err := c.Do(&b); !errors.Is(err, unix.ENODEV) { // else its container has just ended
		return err
	}
	return nil
}
