package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/kernel"
	"hull/kernel/netlink"

	"golang.org/x/sys/unix"
)

// Link is a veth pair (veth(4)) between a bridge of the host and a network namespace: the container's way out. The
// kernel removes the pair with either end, so that the end of the namespace leaves nothing on the host.
type Link struct {
	Bridge string `json:"bridge"` // device of the host that gets the host's end
	Host   string `json:"host"`   // name of the host's end, at most 15 bytes
	Group  uint32 `json:"group"`  // device group of the host's end: firewall rules know by it who may speak there
	Name   string `json:"name"`   // of the container's end
	MAC    string `json:"mac"`    // of the container's end, "02:42:ac:14:00:02"
	MTU    uint32 `json:"mtu,omitempty"`
	// Addresses of the container's end with the length of their prefix, and the gateways of the default routes. IPv6
	// addresses are written with all eight groups.
	Addresses []string `json:"addresses"`
	Gateways  []string `json:"gateways,omitempty"`
}

// Connect makes the pair and sets up the namespace ns, lo included: it is ready for use then. On failure nothing is left
// but what is set up in ns, unless ns held a pair of that name before.
func (l *Link) Connect(ns int) error {
	if err := l.make(ns); err != nil {
		return err
	}
	err := netlink.In(ns, l.configure)
	if err != nil {
		err = errors.Join(err, Disconnect(l.Host))
	}
	return err
}

// Disconnect removes the pair whose host's end has that name. None is no error.
func Disconnect(host string) error {
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	var b netlink.Batch
	b.Link("remove "+host, unix.RTM_DELLINK, 0, netlink.Header{}).String(unix.IFLA_IFNAME, host)
	if err := c.Do(&b); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// make creates the pair in one message: there is no moment in which the container's end is in the host's namespace, and a
// killed caller leaves both ends or none.
func (l *Link) make(ns int) error {
	mac, err := parseMAC(l.MAC)
	if err != nil {
		return err
	}
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	bridge, err := c.Index(l.Bridge)
	if err != nil {
		return err
	}
	var b netlink.Batch
	m := b.Link("create "+l.Host, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, netlink.Header{Flags: unix.IFF_UP, Change: unix.IFF_UP})
	m.String(unix.IFLA_IFNAME, l.Host).Uint32(unix.IFLA_GROUP, l.Group).Uint32(unix.IFLA_MASTER, uint32(bridge))
	l.size(m)
	m.Nest(unix.IFLA_LINKINFO, func() {
		m.String(unix.IFLA_INFO_KIND, "veth").Nest(unix.IFLA_INFO_DATA, func() {
			m.Nest(vethInfoPeer, func() {
				m.Header(netlink.Header{}).String(unix.IFLA_IFNAME, l.Name).Bytes(unix.IFLA_ADDRESS, mac).Uint32(unix.IFLA_NET_NS_FD, uint32(ns))
				l.size(m)
			})
		})
	})
	err = c.Do(&b)
	switch {
	case errors.Is(err, unix.EXFULL): // BR_MAX_PORTS of net/bridge/br_private.h
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("the bridge %s is full: the kernel allows 1023 containers on one: %w", l.Bridge, err))
	case errors.Is(err, unix.EOPNOTSUPP):
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("this kernel has no veth devices (CONFIG_VETH): %w", err))
	}
	return err
}

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

func (l *Link) size(m *netlink.Message) {
	if l.MTU != 0 {
		m.Uint32(unix.IFLA_MTU, l.MTU)
	}
}

// configure sets up the namespace it is called in.
func (l *Link) configure() error {
	ipv6 := refuseRouters()
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := c.Index(l.Name)
	if err != nil {
		return err
	}
	const up = unix.IFF_UP
	var b netlink.Batch
	b.Link("bring lo up", unix.RTM_NEWLINK, 0, netlink.Header{Index: 1, Flags: up, Change: up})
	b.Link("bring "+l.Name+" up", unix.RTM_NEWLINK, 0, netlink.Header{Index: int32(index), Flags: up, Change: up})
	for _, a := range l.Addresses {
		ip, bits, err := parseAddress(a)
		if err != nil {
			return err
		}
		if len(ip) == 16 && !ipv6 {
			continue
		}
		m := b.Address("add address "+a, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, ip, bits)
		if len(ip) == 4 {
			m.Bytes(unix.IFA_BROADCAST, lastOf(ip, bits))
		} else {
			// The address is ours alone: detection of duplicates would keep it useless for a second.
			m.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
		}
	}
	for _, g := range l.Gateways {
		ip, _, err := parseAddress(g)
		if err != nil {
			return err
		}
		family := byte(unix.AF_INET)
		if len(ip) == 16 {
			if !ipv6 {
				continue
			}
			family = unix.AF_INET6
		}
		b.Route("add default route by "+g, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, family, nil, 0).
			Bytes(unix.RTA_GATEWAY, ip).Uint32(unix.RTA_OIF, uint32(index))
	}
	return c.Do(&b)
}

// refuseRouters makes the namespace it is called in, before its links come up, deaf to routers that announce themselves
// and to redirects: any neighbour can send those (CVE-2020-13401). It reports whether there is IPv6. /proc/sys/net shows
// the namespace of who opens it.
func refuseRouters() (ipv6 bool) {
	proc, err := ownProc()
	if err != nil {
		return false
	}
	defer unix.Close(proc)
	const conf = "sys/net/ipv6/conf/"
	for _, dir := range []string{conf + "all/", conf + "default/", conf + "eth0/"} {
		for _, f := range []string{"accept_ra", "accept_redirects", "accept_dad"} {
			fd, err := unix.Openat(proc, dir+f, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue // no such link yet, or no IPv6
			}
			unix.Write(fd, []byte("0"))
			unix.Close(fd)
			ipv6 = true
		}
	}
	return ipv6
}

// ownProc opens a /proc that nobody else uses. In one that all share the settings of all network namespaces lie in one
// chain of names (proc_sys_compare in the kernel), and to look up those of a new namespace is to go along it: 4 ms of
// processor time behind 950 containers.
func ownProc() (int, error) {
	proc, err := kernel.Mount("proc", "proc", nil)
	if err != nil { // where no new one may be mounted
		return unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return proc, nil
}

// parseAddress reads "172.20.0.2/16" and "fd00:1:2:3:0:0:0:2/64", the prefix being optional. It does without net/netip,
// whose initialisation every monitor would pay.
func parseAddress(s string) (ip []byte, bits int, err error) {
	addr, prefix, hasPrefix := strings.Cut(s, "/")
	sep, base, width, size := ".", 10, 8, 4
	if strings.Contains(addr, ":") {
		sep, base, width, size = ":", 16, 16, 16
	}
	for part := range strings.SplitSeq(addr, sep) {
		n, err := strconv.ParseUint(part, base, width)
		if err != nil {
			return nil, 0, errdef.Invalid("%q is no address", s)
		}
		if width == 16 {
			ip = binary.BigEndian.AppendUint16(ip, uint16(n))
		} else {
			ip = append(ip, byte(n))
		}
	}
	bits = 8 * size
	if hasPrefix {
		bits, err = strconv.Atoi(prefix)
	}
	if err != nil || len(ip) != size || bits < 0 || bits > 8*size {
		return nil, 0, errdef.Invalid("%q is no address", s)
	}
	return ip, bits, nil
}

// lastOf is the highest address of the network of ip, IPv4's broadcast address.
func lastOf(ip []byte, bits int) []byte {
	n := binary.BigEndian.Uint32(ip) | uint32(1<<(32-bits)-1)
	return binary.BigEndian.AppendUint32(nil, n)
}

func parseMAC(s string) ([]byte, error) {
	var mac []byte
	for part := range strings.SplitSeq(s, ":") {
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil {
			return nil, errdef.Invalid("%q is no MAC address", s)
		}
		mac = append(mac, byte(n))
	}
	if len(mac) != 6 {
		return nil, errdef.Invalid("%q is no MAC address", s)
	}
	return mac, nil
}
