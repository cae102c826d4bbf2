package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Message and attribute numbers of nfnetlink_conntrack.h.
const (
	ctGet, ctDelete = 1, 2

	ctaOrig, ctaReply            = 1, 2
	ctaTupleIP, ctaTupleProto    = 1, 2
	ctaV4Src, ctaV6Src           = 1, 3
	ctaProtoNum, ctaProtoSrcPort = 1, 2
)

// Forget has the kernel forget the UDP conversations that go through ports which are no longer published. Otherwise a
// client that goes on sending keeps on reaching an address where nobody is, whoever has the port now. Connections of TCP
// end by themselves. It reads the whole table of connections, so it is not asked about other ports.
func Forget(ports []Port) error {
	udp := map[netip.AddrPort]bool{}
	families := map[uint8]bool{}
	for _, p := range ports {
		if p.Proto == "udp" {
			udp[p.To] = true
			families[familyOf(p.To.Addr())] = true
		}
	}
	if len(udp) == 0 {
		return nil
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open conntrack: %w", err)
	}
	defer c.Close()
	var errs []error
	for f := range families {
		errs = append(errs, forget(c, f, udp))
	}
	return errors.Join(errs...)
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// forget deletes the conversations of one family whose answers come from one of ports.
func forget(c *netlink.Conn, family uint8, ports map[netip.AddrPort]bool) error {
	header := []byte{family, unix.NFNETLINK_V0, 0, 0}
	all, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctGet, Flags: netlink.Request | netlink.Dump},
		Data:   header,
	})
	if err != nil {
		return fmt.Errorf("read connections: %w", err)
	}
	for _, m := range all {
		orig, ok := match(m.Data, ports)
		if !ok {
			continue
		}
		b, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: ctaOrig | netlink.Nested, Data: orig}})
		if err != nil {
			return err
		}
		_, err = c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctDelete, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(bytes.Clone(header), b...),
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // it has just timed out
			return fmt.Errorf("forget a connection: %w", err)
		}
	}
	return nil
}

// match tells whether the answers of a connection come from one of ports, and how it was begun.
func match(msg []byte, ports map[netip.AddrPort]bool) (orig []byte, ok bool) {
	if len(msg) < 4 {
		return nil, false
	}
	ad, err := netlink.NewAttributeDecoder(msg[4:])
	if err != nil {
		return nil, false
	}
	for ad.Next() {
		switch ad.Type() {
		case ctaOrig:
			orig = ad.Bytes()
		case ctaReply:
			from, proto := source(ad.Bytes())
			ok = proto == unix.IPPROTO_UDP && ports[from]
		}
	}
	return orig, ok && orig != nil
}

// source of a tuple.
func source(tuple []byte) (from netip.AddrPort, proto byte) {
	var addr netip.Addr
	var port uint16
	each(tuple, func(kind uint16, v []byte) {
		each(v, func(t uint16, v []byte) {
			switch {
			case kind == ctaTupleIP && (t == ctaV4Src || t == ctaV6Src):
				addr, _ = netip.AddrFromSlice(v)
			case kind == ctaTupleProto && t == ctaProtoNum && len(v) > 0:
				proto = v[0]
			case kind == ctaTupleProto && t == ctaProtoSrcPort && len(v) > 1:
				port = uint16(v[0])<<8 | uint16(v[1])
			}
		})
	})
	return netip.AddrPortFrom(addr, port), proto
}

func each(b []byte, f func(typ uint16, v []byte)) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return
	}
	for ad.Next() {
		f(ad.Type(), ad.Bytes())
	}
}
