package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// This file writes the rules. docs/networking.md explains each of them, as nft prints it; a test compares.

var native = binary.NativeEndian

// builder adds rules to a transaction; err is the first that went wrong.
type builder struct {
	c            *nftables.Conn
	inet, bridge *nftables.Table
	err          error
	// keep is given the elements of sets instead of the transaction, if not nil.
	keep func(*nftables.Set, []nftables.SetElement)
}

// Names of sets.
const (
	bridgesSet  = "bridges"
	insideSet   = "inside"
	subnets4Set = "subnets4"
	subnets6Set = "subnets6"
)

func (b *builder) build(r *Rules) {
	b.sets(r)
	b.translate(r)
	b.filter()
	b.closed(r)
	if r.Relay {
		b.replies()
	}
	b.guard(r)
}

// set adds a set with its elements.
func (b *builder) set(s *nftables.Set, elements []nftables.SetElement) {
	if b.keep != nil {
		b.keep(s, elements)
		return
	}
	if b.err == nil {
		b.err = b.c.AddSet(s, nil)
	}
	if b.err == nil {
		b.err = add(b.c, s, elements)
	}
}

func (b *builder) sets(r *Rules) {
	var names, inside, four, six []nftables.SetElement
	for _, br := range r.Bridges {
		n := name(br.Name)
		names = append(names, nftables.SetElement{Key: n})
		inside = append(inside, nftables.SetElement{Key: append(n[:len(n):len(n)], n...)})
		for _, p := range br.Subnets {
			if p.Addr().Is4() {
				four = append(four, span(p)...)
			} else {
				six = append(six, span(p)...)
			}
		}
	}
	// Without a byte order nft prints the names of links backwards.
	b.set(&nftables.Set{Table: b.inet, Name: bridgesSet, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}, names)
	b.set(&nftables.Set{Table: b.inet, Name: insideSet, Concatenation: true, KeyType: concat(nftables.TypeIFName, nftables.TypeIFName)}, inside)
	b.set(&nftables.Set{Table: b.inet, Name: subnets4Set, KeyType: nftables.TypeIPAddr, Interval: true}, four)
	b.set(&nftables.Set{Table: b.inet, Name: subnets6Set, KeyType: nftables.TypeIP6Addr, Interval: true}, six)
	ports := byMap(r.Ports)
	for _, m := range maps {
		b.set(m.set(b.inet), ports[m])
	}
}

// translate writes the chains of NAT: published ports, on packets from outside and from the host itself, and the
// addresses of containers on their way out. What containers send to published ports goes to the monitors' listeners,
// as everything does for loopback addresses.
func (b *builder) translate(r *Rules) {
	to := b.chain(b.inet, "published")
	b.rule(to, is4(), load(16, 1, 1), equal([]byte{127}), verdict(expr.VerdictReturn, ""))
	b.rule(to, is6(), load(24, 16, 1), equal(netip.IPv6Loopback().AsSlice()), verdict(expr.VerdictReturn, ""))
	for _, m := range []published{{at: true}, {}, {six: true, at: true}, {six: true}} {
		b.rule(to, b.dnat(m)...)
	}
	pre := b.hook(b.inet, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	b.rule(pre, meta(expr.MetaKeyIIFNAME, 1), lookup(bridgesSet, true), toHost(), equal(host32(unix.RTN_LOCAL)), verdict(expr.VerdictJump, "published"))
	out := b.hook(b.inet, "output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	b.rule(out, toHost(), equal(host32(unix.RTN_LOCAL)), verdict(expr.VerdictJump, "published"))
	post := b.hook(b.inet, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	b.rule(post, is4(), load(12, 4, 1), lookup(subnets4Set, false), meta(expr.MetaKeyOIFNAME, 1), lookup(bridgesSet, true), &expr.Masq{})
	b.rule(post, is6(), load(8, 16, 1), lookup(subnets6Set, false), meta(expr.MetaKeyOIFNAME, 1), lookup(bridgesSet, true), &expr.Masq{})
}

// dnat looks an address and port up in a map and translates to what it finds; what it does not find goes on.
func (b *builder) dnat(m published) []any {
	var out []any
	family, reg := uint32(unix.NFPROTO_IPV4), uint32(1)
	if m.six {
		family = unix.NFPROTO_IPV6
		out = append(out, is6())
	} else {
		out = append(out, is4())
	}
	// Registers of 4 bytes are numbered from 8; 1 is the same place as 8.
	addr := uint32(4)
	if m.six {
		addr = 16
	}
	if m.at {
		at := uint32(16)
		if m.six {
			at = 24
		}
		out = append(out, load(at, addr, 1))
		reg = 8 + addr/4
	}
	out = append(out, meta(expr.MetaKeyL4PROTO, reg), &expr.Payload{DestRegister: next(reg), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	out = append(out, &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m.name()})
	return append(out, &expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 8 + addr/4, Specified: true})
}

// next is the register behind a value of up to four bytes in reg.
func next(reg uint32) uint32 {
	if reg == 1 {
		return 9
	}
	return reg + 1
}

// filter writes the chains that let nobody at containers but through published ports, and nobody at loopback.
func (b *builder) filter() {
	raw := b.hook(b.inet, "loopback", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	b.rule(raw, meta(expr.MetaKeyIIFNAME, 1), differs(name("lo")), is4(), load(16, 1, 1), equal([]byte{127}), verdict(expr.VerdictDrop, ""))
	in := b.chain(b.inet, "inbound")
	b.rule(in, &expr.Ct{Key: expr.CtKeySTATE, Register: 1}, bits(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept, ""))
	b.rule(in, &expr.Ct{Key: expr.CtKeySTATUS, Register: 1}, bits(statusDNAT), verdict(expr.VerdictAccept, ""))
	b.rule(in, meta(expr.MetaKeyIIFNAME, 1), meta(expr.MetaKeyOIFNAME, 2), lookup(insideSet, false), verdict(expr.VerdictAccept, ""))
	b.rule(in, verdict(expr.VerdictDrop, ""))
	f := b.hook(b.inet, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	b.rule(f, meta(expr.MetaKeyOIFNAME, 1), lookup(bridgesSet, false), verdict(expr.VerdictJump, "inbound"))
}

// Keys of nf_tables.h for the kind of a link, as ip-link(8) calls it.
const (
	metaIIFKind expr.MetaKey = 26
	metaOIFKind expr.MetaKey = 27
)

// closed writes the chain that drops what goes from hardware to hardware. For a device without a kind, such as
// hardware, a rule that asks for it does not hold.
func (b *builder) closed(r *Rules) {
	if !r.Closed4 && !r.Closed6 {
		return
	}
	c := b.hook(b.inet, "closed", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	for _, key := range []expr.MetaKey{metaIIFKind, metaOIFKind} {
		b.rule(c, meta(key, 1), differs(name("")), verdict(expr.VerdictAccept, ""))
	}
	if r.Closed4 {
		b.rule(c, is4(), verdict(expr.VerdictDrop, ""))
	}
	if r.Closed6 {
		b.rule(c, is6(), verdict(expr.VerdictDrop, ""))
	}
}

// statusDNAT is IPS_DST_NAT of a connection: its destination was translated.
const statusDNAT = 1 << 5

// replies marks what belongs to connections of relays (see Rules.Relay).
func (b *builder) replies() {
	out := b.hook(b.inet, "relay", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityMangle)
	b.rule(out, meta(expr.MetaKeyMARK, 1), equal(host32(RelayMark)), meta(expr.MetaKeyMARK, 1), &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true})
	in := b.hook(b.inet, "replies", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	b.rule(in, meta(expr.MetaKeyIIFNAME, 1), lookup(bridgesSet, false), &expr.Ct{Key: expr.CtKeyMARK, Register: 1}, equal(host32(RelayMark)),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, &expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true})
}

// guard writes the table that holds containers to their own addresses: what a link sends must have the MAC and IP
// address that its group stands for, in ARP too. Everything that is neither IP nor ARP is dropped, and so is what would
// make a container its neighbours' router, and what a link's coming up would have every neighbour read for nothing.
func (b *builder) guard(r *Rules) {
	elements := bySet(r.Senders)
	for _, six := range []bool{false, true} {
		b.set(sendersSet(b.bridge, six), elements[six])
	}
	port := b.chain(b.bridge, "port")
	group, mac := meta(expr.MetaKeyIIFGROUP, 1), &expr.Payload{DestRegister: 9, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}
	addr := func(at, n uint32) *expr.Payload {
		return &expr.Payload{DestRegister: 11, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: n}
	}
	known := func(six bool) *expr.Lookup { return lookup(sendersSet(b.bridge, six).Name, false) }
	accept := verdict(expr.VerdictAccept, "")
	b.rule(port, ethertype(unix.ETH_P_IP), group, mac, addr(12, 4), known(false), accept)
	// The hardware address inside the ARP packet, then the one of the frame.
	arpMAC := &expr.Payload{DestRegister: 9, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 6}
	b.rule(port, ethertype(unix.ETH_P_ARP), group, arpMAC, addr(14, 4), known(false), group, mac, addr(14, 4), known(false), accept)
	for _, kind := range []byte{134, 137} { // router advertisement, redirect
		b.rule(port, ethertype(unix.ETH_P_IPV6), meta(expr.MetaKeyL4PROTO, 1), equal([]byte{unix.IPPROTO_ICMPV6}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, equal([]byte{kind}), verdict(expr.VerdictDrop, ""))
	}
	b.rule(port, joinsOnLink(), verdict(expr.VerdictDrop, ""))
	b.rule(port, ethertype(unix.ETH_P_IPV6), group, mac, addr(8, 16), known(true), accept)
	b.rule(port, verdict(expr.VerdictDrop, ""))
	pre := b.hook(b.bridge, "prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	seen := map[string]bool{}
	for _, br := range r.Bridges {
		if br.Ports != "" && !seen[br.Ports] {
			seen[br.Ports] = true
			b.rule(pre, meta(expr.MetaKeyIIFNAME, 1), equal([]byte(br.Ports)), verdict(expr.VerdictGoto, "port"))
		}
	}
}

// joinsOnLink holds for a report that somebody listens to one group of the link's scope (MLDv2, RFC 3810 section 5.2). A
// link sends four when it comes up, each to all neighbours: with a thousand of these 40 ms of processor time. No router
// forwards such groups; a bridge that snoops would want to know, and ours do not (network.Ensure).
func joinsOnLink() []any {
	const report = 143
	record := func(offset, n uint32) *expr.Payload {
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: n}
	}
	return []any{
		ethertype(unix.ETH_P_IPV6), meta(expr.MetaKeyL4PROTO, 1), equal([]byte{unix.IPPROTO_ICMPV6}),
		record(0, 1), equal([]byte{report}),
		record(6, 2), equal([]byte{0, 1}), // how many records
		record(12, 2), equal([]byte{0xff, 0x02}),
	}
}

// sendersSet is the set of who may send from which address, of one family.
func sendersSet(t *nftables.Table, six bool) *nftables.Set {
	name, addr := "senders4", nftables.TypeIPAddr
	if six {
		name, addr = "senders6", nftables.TypeIP6Addr
	}
	return &nftables.Set{Table: t, Name: name, Concatenation: true, KeyType: concat(nftables.TypeDevGroup, nftables.TypeEtherAddr, addr)}
}

// bySet sorts senders into the elements of the sets of IPv4 (false) and IPv6.
func bySet(senders []Sender) map[bool][]nftables.SetElement {
	out := map[bool][]nftables.SetElement{}
	for i := range senders {
		s := &senders[i]
		key := append(s.Group.AsSlice(), s.MAC[:]...)
		key = append(append(key, 0, 0), s.Addr.AsSlice()...)
		out[s.Addr.Is6()] = append(out[s.Addr.Is6()], nftables.SetElement{Key: key, Comment: s.ID})
	}
	return out
}

func (b *builder) chain(t *nftables.Table, name string) *nftables.Chain {
	return b.c.AddChain(&nftables.Chain{Name: name, Table: t})
}

func (b *builder) hook(t *nftables.Table, name string, kind nftables.ChainType, h *nftables.ChainHook, p *nftables.ChainPriority) *nftables.Chain {
	return b.c.AddChain(&nftables.Chain{Name: name, Table: t, Type: kind, Hooknum: h, Priority: p})
}

// rule appends a rule of expressions and lists of them.
func (b *builder) rule(c *nftables.Chain, parts ...any) {
	b.c.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: flat(nil, parts)})
}

func flat(out []expr.Any, parts []any) []expr.Any {
	for _, p := range parts {
		switch p := p.(type) {
		case expr.Any:
			out = append(out, p)
		case []any:
			out = flat(out, p)
		}
	}
	return out
}

// The words that rules are made of. Values are compared in register 1.

func meta(k expr.MetaKey, reg uint32) *expr.Meta { return &expr.Meta{Key: k, Register: reg} }
func equal(v []byte) *expr.Cmp                   { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: v} }
func differs(v []byte) *expr.Cmp                 { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: v} }
func toHost() *expr.Fib                          { return &expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true} }

func is4() []any { return []any{meta(expr.MetaKeyNFPROTO, 1), equal([]byte{unix.NFPROTO_IPV4})} }
func is6() []any { return []any{meta(expr.MetaKeyNFPROTO, 1), equal([]byte{unix.NFPROTO_IPV6})} }

func ethertype(proto uint16) []any {
	return []any{meta(expr.MetaKeyPROTOCOL, 1), equal([]byte{byte(proto >> 8), byte(proto)})}
}

// load reads n bytes of the network header.
func load(offset, n, reg uint32) *expr.Payload {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n}
}

func lookup(set string, not bool) *expr.Lookup {
	return &expr.Lookup{SourceRegister: 1, SetName: set, Invert: not}
}

// bits holds when one of mask is set.
func bits(mask uint32) []any {
	return []any{
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: host32(mask), Xor: host32(0)},
		differs(host32(0)),
	}
}

func verdict(k expr.VerdictKind, chain string) *expr.Verdict {
	return &expr.Verdict{Kind: k, Chain: chain}
}

func host32(n uint32) []byte { return native.AppendUint32(nil, n) }

// name of a link as the kernel compares it whole.
func name(s string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, s)
	return out
}

// span is a prefix as the two elements of an interval.
func span(p netip.Prefix) []nftables.SetElement {
	p = p.Masked()
	out := []nftables.SetElement{{Key: p.Addr().AsSlice()}}
	end := p.Addr().AsSlice() // the first address behind it
	for i := p.Bits() - 1; i >= 0; i-- {
		if end[i/8] ^= 1 << (7 - i%8); end[i/8]&(1<<(7-i%8)) != 0 {
			return append(out, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	return out // it ends where the addresses do
}

// concat is a type of several, at most five.
func concat(types ...nftables.SetDatatype) nftables.SetDatatype {
	t, _ := nftables.ConcatSetType(types...)
	return t
}
