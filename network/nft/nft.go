// Package nft keeps the firewall tables of one engine: what its containers publish, what of them may be reached, as
// whom they may speak, and the addresses they use outside. It speaks netlink; no nft program is needed.
//
//	t := nft.Table{Name: "hull"}
//	err := t.Replace(&nft.Rules{Bridges: bridges, Ports: ports})   // whatever was there before
//	err = t.Publish(ports)                                         // some more
//	gone, err := t.Withdraw(id)                                    // all of one container
//
// Every call is one transaction of the kernel: packets see the rules before or after it, never half of it, and a
// refused one changes nothing. There are two tables of that name, of the families inet and bridge, and nothing of
// anybody else's is touched but for the rules of Hook.
//
// Beware: the kernel takes some 30 ms to close a netlink socket after a transaction that removed something (it waits for
// readers), also when a process ends. Calls that only add take a tenth of a millisecond.
package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Table names the two tables of an engine.
type Table struct{ Name string }

// Rules are everything the tables hold.
type Rules struct {
	Bridges []Bridge
	Ports   []Port
	Senders []Sender
	// Relay lets replies to connections that were made with a client's own address find back to who made them: packets
	// from a bridge that belong to a connection marked RelayMark get that mark, for a routing rule to look at.
	Relay bool
	// Closed4 and Closed6 keep the host from being a router between its hardware, which it was not before containers made
	// it forward. Traffic of virtual devices is their owners' business.
	Closed4, Closed6 bool
}

// RelayMark is on connections that a relay makes in the name of a client: "hull".
const RelayMark = 0x6c6c7568

// Bridge is a network of containers.
type Bridge struct {
	Name    string // of the bridge's link
	Ports   string // what the names of its containers' links begin with; nobody else's may
	Subnets []netip.Prefix
}

// Port is one published port of a container.
type Port struct {
	ID    string         // of the container
	Proto string         // "tcp", "udp" or "sctp"
	Host  netip.AddrPort // what clients connect to; the unspecified address is every one of the host
	To    netip.AddrPort // of the container, of the same family as Host
}

// Sender is who may send from an address: links of the group that Group makes of it, with a MAC address of their own.
type Sender struct {
	ID   string // of the container; "" for what holds whoever has the address
	MAC  [6]byte
	Addr netip.Addr
	// Group is the address that the group of the link was made of, IPv4.
	Group netip.Addr
}

// Group is the link group (IFLA_GROUP) of the container that has the address: its four bytes in memory. A link says
// with it, from its creation on, who may speak there, so that starting a container changes no rule.
func Group(a netip.Addr) uint32 {
	b := a.As4()
	return native.Uint32(b[:])
}

// chunk is how many elements go into one netlink message, whose attributes end at 64 KiB.
const chunk = 400

// Replace makes the tables what r says.
func (t Table) Replace(r *Rules) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	for _, tab := range t.both() {
		c.AddTable(tab) // or there is nothing to delete
		c.DelTable(tab)
		c.AddTable(tab)
	}
	b := &builder{c: c, inet: t.inet(), bridge: t.bridge()}
	b.build(r)
	if b.err != nil {
		return b.err
	}
	return t.flush(c)
}

// Remove removes the tables. That there are none is no error.
func (t Table) Remove() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	for _, tab := range t.both() {
		c.AddTable(tab)
		c.DelTable(tab)
	}
	return t.flush(c)
}

// Publish adds ports. What the same address and port led to before, it no longer does.
func (t Table) Publish(ports []Port) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	have, err := t.ports(c)
	if err != nil {
		return err
	}
	for m, elements := range byMap(ports) {
		set := m.set(t.inet())
		var old []nftables.SetElement
		for _, e := range elements {
			if _, ok := have[m][string(e.Key)]; ok {
				old = append(old, nftables.SetElement{Key: e.Key})
			}
		}
		if err := errors.Join(remove(c, set, old), add(c, set, elements)); err != nil {
			return err
		}
	}
	return t.flush(c)
}

// Withdraw removes what container id has published and says what that was.
func (t Table) Withdraw(id string) (gone []Port, err error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	// Closing waits until the kernel has freed what was removed, a grace period of some 30 ms, which is nobody's business.
	defer func() { go c.CloseLasting() }()
	have, err := t.ports(c)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // no table
	}
	if err != nil {
		return nil, err
	}
	for m, elements := range have {
		var old []nftables.SetElement
		for _, e := range elements {
			if e.Comment != id {
				continue
			}
			p, err := m.port(&e)
			if err != nil {
				return nil, err
			}
			gone = append(gone, p)
			old = append(old, nftables.SetElement{Key: e.Key})
		}
		if err := remove(c, m.set(t.inet()), old); err != nil {
			return nil, err
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, t.flush(c)
}

// Permit adds senders; those that are there already stay.
func (t Table) Permit(senders []Sender) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	for six, elements := range bySet(senders) {
		if err := add(c, sendersSet(t.bridge(), six), elements); err != nil {
			return err
		}
	}
	return t.flush(c)
}

// Ports are the published ports that the table holds now. The error is ErrNotExist when there is no table.
func (t Table) Ports() ([]Port, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.CloseLasting()
	have, err := t.ports(c)
	if err != nil {
		return nil, err
	}
	var out []Port
	for m, elements := range have {
		for _, e := range elements {
			p, err := m.port(&e)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func (t Table) inet() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: t.Name}
}
func (t Table) bridge() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyBridge, Name: t.Name}
}
func (t Table) both() []*nftables.Table { return []*nftables.Table{t.inet(), t.bridge()} }

// flush sends the transaction and names the table in its error.
func (t Table) flush(c *nftables.Conn) error {
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change nftables table %s: %w", t.Name, err)
	}
	return nil
}

// buffer is room for a transaction of ten thousand ports, which travels in one piece, and for its answers.
const buffer = 8 << 20

// dial opens a connection.
func dial() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(buffer), c.SetWriteBuffer(buffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

func add(c *nftables.Conn, s *nftables.Set, elements []nftables.SetElement) error {
	for len(elements) > 0 {
		n := min(chunk, len(elements))
		if err := c.SetAddElements(s, elements[:n]); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
}

func remove(c *nftables.Conn, s *nftables.Set, elements []nftables.SetElement) error {
	for len(elements) > 0 {
		n := min(chunk, len(elements))
		if err := c.SetDeleteElements(s, elements[:n]); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
}

// protocols of published ports.
var protocols = [...]struct {
	name   string
	number byte
}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}, {"sctp", unix.IPPROTO_SCTP}}

func protocol(name string) (byte, error) {
	for _, p := range protocols {
		if p.name == name {
			return p.number, nil
		}
	}
	return 0, fmt.Errorf("unknown protocol %q", name)
}

// published is one of the four maps of published ports.
type published struct {
	six bool // of IPv6
	at  bool // on one address, which is part of the key
}

func (m published) name() string {
	name := "published"
	if m.at {
		name += "_at"
	}
	if m.six {
		return name + "6"
	}
	return name + "4"
}

func (m published) set(t *nftables.Table) *nftables.Set {
	addr := nftables.TypeIPAddr
	if m.six {
		addr = nftables.TypeIP6Addr
	}
	key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if m.at {
		key = append([]nftables.SetDatatype{addr}, key...)
	}
	return &nftables.Set{
		Table: t, Name: m.name(), IsMap: true, Concatenation: true,
		KeyType: concat(key...), DataType: concat(addr, nftables.TypeInetService),
	}
}

// maps are all four.
var maps = [...]published{{}, {at: true}, {six: true}, {six: true, at: true}}

// element of p in its map. Parts of keys and values begin on multiples of four bytes.
func (m published) element(p *Port) (nftables.SetElement, error) {
	proto, err := protocol(p.Proto)
	if err != nil {
		return nftables.SetElement{}, err
	}
	if p.Host.Addr().Is6() != p.To.Addr().Is6() {
		return nftables.SetElement{}, fmt.Errorf("port %s cannot lead to %s", p.Host, p.To)
	}
	e := nftables.SetElement{Comment: p.ID}
	if m.at {
		e.Key = p.Host.Addr().AsSlice()
	}
	e.Key = append(e.Key, proto, 0, 0, 0)
	e.Key = append(e.Key, service(p.Host.Port())...)
	e.Val = append(p.To.Addr().AsSlice(), service(p.To.Port())...)
	return e, nil
}

func service(port uint16) []byte { return []byte{byte(port >> 8), byte(port), 0, 0} }

// port is the inverse of element.
func (m published) port(e *nftables.SetElement) (p Port, err error) {
	key, size := e.Key, 4
	host := netip.IPv4Unspecified()
	if m.six {
		size, host = 16, netip.IPv6Unspecified()
	}
	if m.at && len(key) == size+8 {
		host, _ = netip.AddrFromSlice(key[:size])
		key = key[size:]
	}
	if len(key) != 8 || len(e.Val) != size+4 {
		return p, fmt.Errorf("map %s has an element that is not ours", m.name())
	}
	for _, x := range protocols {
		if x.number == key[0] {
			p.Proto = x.name
		}
	}
	to, _ := netip.AddrFromSlice(e.Val[:size])
	p.ID = e.Comment
	p.Host = netip.AddrPortFrom(host, uint16(key[4])<<8|uint16(key[5]))
	p.To = netip.AddrPortFrom(to, uint16(e.Val[size])<<8|uint16(e.Val[size+1]))
	return p, nil
}

// byMap sorts ports into the maps' elements. Ports nobody could reach by an address of the host are left out.
func byMap(ports []Port) map[published][]nftables.SetElement {
	out := map[published][]nftables.SetElement{}
	for i := range ports {
		p := &ports[i]
		if p.Host.Addr().IsLoopback() {
			continue
		}
		m := published{six: p.Host.Addr().Is6(), at: !p.Host.Addr().IsUnspecified()}
		if e, err := m.element(p); err == nil {
			out[m] = append(out[m], e)
		}
	}
	return out
}

// ports reads the maps.
func (t Table) ports(c *nftables.Conn) (map[published]map[string]nftables.SetElement, error) {
	out := map[published]map[string]nftables.SetElement{}
	for _, m := range maps {
		list, err := c.GetSetElements(m.set(t.inet()))
		if err != nil {
			return nil, notExist(err)
		}
		of := make(map[string]nftables.SetElement, len(list))
		for _, e := range list {
			of[string(e.Key)] = e
		}
		out[m] = of
	}
	return out, nil
}

// notExist makes of the library's text, which has lost the number, an error that can be tested.
func notExist(err error) error {
	if errors.Is(err, unix.ENOENT) || strings.Contains(err.Error(), unix.ENOENT.Error()) {
		return fmt.Errorf("%w: %w", unix.ENOENT, err)
	}
	return err
}
