package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Link is what the kernel tells of one link.
type Link struct {
	Index  int
	Name   string
	Flags  uint32 // IFF_*
	Master int    // index of the bridge it is a port of
	Kind   string // "bridge", "veth", ...
	Group  uint32
	MAC    []byte
	Snoops bool // of a bridge: it sends multicasts only where it has seen somebody ask for them
}

// Link returns the link with that name; the error of a missing one is ENODEV.
func (c *Conn) Link(name string) (Link, error) {
	var l Link
	var b Batch
	b.Link("look for link "+name, unix.RTM_GETLINK, 0, Header{}).String(unix.IFLA_IFNAME, name)
	err := c.Query(&b, func(_ uint16, body []byte) error {
		l = readLink(body)
		return nil
	})
	return l, err
}

// Links returns all links of the namespace.
func (c *Conn) Links() ([]Link, error) {
	var all []Link
	var b Batch
	b.Link("list links", unix.RTM_GETLINK, unix.NLM_F_DUMP, Header{})
	err := c.Query(&b, func(_ uint16, body []byte) error {
		all = append(all, readLink(body))
		return nil
	})
	return all, err
}

func readLink(body []byte) Link {
	l := Link{}
	if len(body) < unix.SizeofIfInfomsg {
		return l
	}
	l.Index = int(int32(binary.NativeEndian.Uint32(body[4:])))
	l.Flags = binary.NativeEndian.Uint32(body[8:])
	Attributes(body[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = Text(v)
		case unix.IFLA_ADDRESS:
			l.MAC = append([]byte(nil), v...)
		case unix.IFLA_MASTER:
			l.Master = int(number(v))
		case unix.IFLA_GROUP:
			l.Group = number(v)
		case unix.IFLA_LINKINFO:
			Attributes(v, func(typ uint16, v []byte) {
				switch typ {
				case unix.IFLA_INFO_KIND:
					l.Kind = Text(v)
				case unix.IFLA_INFO_DATA: // its attributes have another meaning for each kind, which comes first
					l.Snoops = l.Kind == "bridge" && snoops(v)
				}
			})
		}
	})
	return l
}

func snoops(data []byte) (on bool) {
	Attributes(data, func(typ uint16, v []byte) {
		if typ == unix.IFLA_BR_MCAST_SNOOPING {
			on = len(v) > 0 && v[0] != 0
		}
	})
	return on
}

func number(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

// Prefix is an address with the length of its network's prefix, or the destination of a route.
type Prefix struct {
	IP    []byte // 4 or 16 bytes
	Bits  int
	Index int // of the link
}

// Addresses returns the addresses of the link index, or of all links when it is 0.
func (c *Conn) Addresses(index int) ([]Prefix, error) {
	var all []Prefix
	var b Batch
	b.Address("list addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP, index, nil, 0)
	err := c.Query(&b, func(_ uint16, body []byte) error {
		if len(body) < unix.SizeofIfAddrmsg {
			return nil
		}
		p := Prefix{Bits: int(body[1]), Index: int(binary.NativeEndian.Uint32(body[4:]))}
		Attributes(body[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
			// The local end of a point-to-point link is in IFA_LOCAL; IPv6 has IFA_ADDRESS only.
			if typ == unix.IFA_LOCAL || typ == unix.IFA_ADDRESS && p.IP == nil {
				p.IP = append([]byte(nil), v...)
			}
		})
		all = append(all, p)
		return nil
	})
	return all, err
}

// Routes returns the destinations of all routes of the family in all tables; a default route has no bits.
func (c *Conn) Routes(family byte) ([]Prefix, error) {
	var all []Prefix
	var b Batch
	b.Route("list routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP, family, nil, 0)
	err := c.Query(&b, func(_ uint16, body []byte) error {
		if len(body) < unix.SizeofRtMsg {
			return nil
		}
		p := Prefix{Bits: int(body[1])}
		Attributes(body[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.RTA_DST:
				p.IP = append([]byte(nil), v...)
			case unix.RTA_OIF:
				p.Index = int(number(v))
			}
		})
		all = append(all, p)
		return nil
	})
	return all, err
}
