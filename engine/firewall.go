package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/monitor/relay"
	"hull/network"
	"hull/network/nft"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

// The firewall tables are written from what is on disk: the network, the claims of its addresses, and the ports that the
// monitors of running containers hold. Who changes them holds the directory of firewallFile, so that what a command read
// is still so when it writes; the kernel takes each change whole or not at all.
//
// A start needs no change: what a link may send is a fact about its address, not about its container (nft.Sender), and
// facts are written for 256 addresses at once. That nobody has touched the tables since is known from the kernel's
// count of transactions, which firewallFile remembers.

// firewall is what was done to the tables last, <run>/firewall/state.json. Lost or damaged it is zero, and everything is
// looked at.
type firewall struct {
	Epoch  string `json:"epoch"`  // boot, network namespace and generation of nftables after the last look
	Digest string `json:"digest"` // of the tables as they were written
	// Relay says that published ports are not translated: somebody filters what comes in for this host, and the monitors'
	// listeners are what he decides about.
	Relay   bool           `json:"relay,omitempty"`
	Blocked []string       `json:"blocked,omitempty"` // chains that drop what containers send outside
	Blocks  []netip.Prefix `json:"blocks,omitempty"`  // addresses whose facts are written
	Odd     []odd          `json:"odd,omitempty"`
	// Closed says which protocols this host did not forward before it had containers.
	Closed4 bool `json:"closed4,omitempty"`
	Closed6 bool `json:"closed6,omitempty"`
}

// odd is a container whose hardware address was chosen by a person.
type odd struct {
	ID   string     `json:"id"`
	Addr netip.Addr `json:"addr"`
	MAC  string     `json:"mac"`
}

const (
	firewallFile = "state.json"
	relayFile    = "relay" // exists while replies to connections in a client's name come back (relay.Config.Keep)
	blockBits    = 24
	firewallWait = 30 * time.Second
)

// firewallDir has the state of the firewall, and a file for each container that has published ports.
func (e *Engine) firewallDir() string { return filepath.Join(e.run, "firewall") }

// published marks that container id may have elements in the tables.
func (e *Engine) published(id string) string { return filepath.Join(e.firewallDir(), id) }

func (e *Engine) table() nft.Table { return nft.Table{Name: e.Instance()} }

// epoch names the state of all nftables of this network namespace: the same one twice means that nobody has changed
// anything between. step counts transactions of our own since.
func epoch(step uint32) (string, error) {
	gen, err := nft.Generation()
	if err != nil {
		return "", err
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &ns); err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", strings.TrimSpace(string(boot)), ns.Ino, gen-step), nil
}

func (e *Engine) readFirewall() *firewall {
	f := new(firewall)
	b, err := state.Read(filepath.Join(e.firewallDir(), firewallFile), maxRecord)
	if err != nil || plainjson.Unmarshal(b, f) != nil {
		return new(firewall)
	}
	return f
}

// write remembers f with the present generation.
func (f *firewall) write(e *Engine) (err error) {
	if f.Epoch, err = epoch(0); err != nil {
		return err
	}
	b, err := plainjson.Marshal(f)
	if err != nil {
		return err
	}
	return state.Write(filepath.Join(e.firewallDir(), firewallFile), b)
}

func (e *Engine) lockFirewall(ctx context.Context) (*state.Locked, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), firewallWait)
	defer cancel()
	l, err := state.Lock(ctx, e.firewallDir())
	if isMissing(err) {
		if err = os.MkdirAll(e.firewallDir(), 0o700); err == nil {
			l, err = state.Lock(ctx, e.firewallDir())
		}
	}
	return l, err
}

// permits reports whether the facts about a are written, and about its odd hardware address.
func (f *firewall) permits(a netip.Addr, o *odd) bool {
	in := slices.ContainsFunc(f.Blocks, func(p netip.Prefix) bool { return p.Contains(a) })
	return in && (o == nil || slices.Contains(f.Odd, *o))
}

// permit makes sure that the tables are there and that the container that has the address a of n may speak. mac is the
// hardware address that a person chose, or "". When nothing has changed it costs the question whether something has.
func (e *Engine) permit(ctx context.Context, n *network.Network, id string, a netip.Addr, mac string) (warnings []string, err error) {
	var o *odd
	if mac != "" {
		o = &odd{id, a, strings.ToLower(mac)}
	}
	now, err := epoch(0)
	if err != nil {
		return nil, noFirewall(err)
	}
	f := e.readFirewall()
	if f.Epoch != now || !f.permits(a, o) {
		l, err := e.lockFirewall(ctx)
		if err != nil {
			return nil, err
		}
		defer l.Unlock()
		f = e.readFirewall()
		if !f.permits(a, nil) {
			p, _ := a.Prefix(blockBits)
			f.Blocks = append(f.Blocks, p)
		}
		if o != nil && !slices.Contains(f.Odd, *o) {
			f.Odd = append(f.Odd, *o)
		}
		if err := e.writeRules(n, f); err != nil {
			return nil, noFirewall(err)
		}
	}
	for _, c := range f.Blocked {
		warnings = append(warnings, "chain "+c+" drops what is forwarded: the container reaches nobody outside this host; let what comes from "+n.Device+" pass there")
	}
	return warnings, nil
}

// noFirewall says what to do where there is no nftables, or no right to it.
func noFirewall(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return errdef.As(errdef.ErrUnavailable, fmt.Errorf("no firewall (nftables) to keep the container within its network: use --network host or none: %w", err))
	}
	return err
}

// HealFirewall makes the tables what they should be, whatever somebody did to them or to other tables. Every start of a
// container with a network does the same.
func (e *Engine) HealFirewall(ctx context.Context) error {
	n, err := e.networks().Load()
	if errors.Is(err, errdef.ErrNotFound) || os.Geteuid() != 0 {
		return nil // no container ever had a network
	}
	if err != nil {
		return err
	}
	names, err := readNames(e.firewallDir())
	if err == nil {
		err = e.sweepFirewall(ctx, names)
	}
	if err != nil || !slices.Contains(names, firewallFile) {
		return err // nor since the machine was booted
	}
	for _, id := range names { // who should have done it was killed
		if _, err := os.Lstat(e.runDir(id)); isID(id) && isMissing(err) {
			if err := e.unpublish(ctx, id); err != nil {
				return err
			}
		}
	}
	now, err := epoch(0)
	if err != nil {
		return err
	}
	if e.readFirewall().Epoch == now {
		return nil
	}
	l, err := e.lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return e.writeRules(n, e.readFirewall())
}

// sweepFirewall removes the files of names that writers who were killed left half done: every writer has the lock.
func (e *Engine) sweepFirewall(ctx context.Context, names []string) error {
	half := func(name string) bool { return strings.HasPrefix(name, state.TempPrefix) }
	if !slices.ContainsFunc(names, half) {
		return nil
	}
	l, err := e.lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	for _, name := range names {
		if !half(name) {
			continue
		}
		if err := os.Remove(filepath.Join(e.firewallDir(), name)); err != nil && !isMissing(err) {
			return err
		}
	}
	return nil
}

// writeRules makes the tables what f and the disk say, and remembers it. The firewall is locked.
func (e *Engine) writeRules(n *network.Network, f *firewall) error {
	want, err := e.rules(n, f)
	if err != nil {
		return err
	}
	others, err := e.table().Foreign()
	if err != nil {
		return err
	}
	f.Blocked = nil
	for _, c := range others.Blocked() {
		f.Blocked = append(f.Blocked, c.String())
	}
	was := f.Relay
	if f.Relay = len(others.Input) > 0 || len(f.Blocked) > 0; f.Relay {
		want.Relay, want.Ports = true, nil
	}
	if err := e.keepClients(n, f.Relay); err != nil {
		return err
	}
	four, six, err := network.Forward()
	if err != nil {
		return fmt.Errorf("let the kernel forward packets of containers: %w", err)
	}
	if f.Relay != was || four || six {
		f.Digest = ""
	}
	f.Closed4, f.Closed6 = f.Closed4 || four, f.Closed6 || six
	want.Closed4, want.Closed6 = f.Closed4, f.Closed6
	if err := e.settleTable(f, want); err != nil {
		return err
	}
	for _, h := range others.Hooks {
		if _, err := e.table().Admit(h, []string{n.Device}); err != nil {
			return err
		}
	}
	return f.write(e)
}

// settleTable changes as little as it can: taking something away costs a wait.
func (e *Engine) settleTable(f *firewall, want *nft.Rules) error {
	t := e.table()
	digest, err := t.Digest()
	if err != nil {
		return err
	}
	if f.Digest != "" && digest == f.Digest {
		if whole, err := e.complete(want); err != nil || whole {
			return err
		}
	}
	if err := t.Replace(want); err != nil {
		return err
	}
	f.Digest, err = t.Digest()
	return err
}

// complete adds what is missing in tables whose rules are in order; false when something is in them that should not be.
func (e *Engine) complete(want *nft.Rules) (bool, error) {
	t := e.table()
	have, err := t.Ports()
	if err != nil {
		return false, err
	}
	var missing []nft.Port
	for _, p := range want.Ports {
		if i := slices.Index(have, p); i >= 0 {
			have = slices.Delete(have, i, i+1)
		} else {
			missing = append(missing, p)
		}
	}
	if len(have) > 0 {
		return false, nil
	}
	if whole, err := t.Holds(want); err != nil || whole {
		return whole && err == nil && len(missing) == 0 || whole && t.Publish(missing) == nil, err
	}
	if err := t.Permit(want.Senders); err != nil {
		return false, err
	}
	whole, err := t.Holds(want)
	return whole && t.Publish(missing) == nil, err
}

// keepClients arranges for replies to connections in a client's name, and tells the monitors.
func (e *Engine) keepClients(n *network.Network, on bool) error {
	file := filepath.Join(e.firewallDir(), relayFile)
	_, err := os.Lstat(file)
	if !on && isMissing(err) {
		return nil
	}
	if !on {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	if err := network.Replies(n.Device, nft.RelayMark, on); err != nil {
		return err
	}
	if on && isMissing(err) {
		return state.Write(file, nil)
	}
	return nil
}

// rules are what the disk says: the addresses of f, and the ports of all containers that have a monitor.
func (e *Engine) rules(n *network.Network, f *firewall) (*nft.Rules, error) {
	r := &nft.Rules{Bridges: []nft.Bridge{{Name: n.Device, Ports: e.LinkPrefix(), Subnets: subnets(n)}}}
	held, err := e.networks().Held(n)
	if err != nil {
		return nil, err
	}
	f.Odd = slices.DeleteFunc(f.Odd, func(o odd) bool { return held[o.Addr] != o.ID })
	for _, b := range f.Blocks {
		for a := b.Masked().Addr(); b.Contains(a); a = a.Next() {
			r.Senders = append(r.Senders, senders(n, "", a, network.MAC(a))...)
		}
	}
	for _, o := range f.Odd {
		mac, err := hex.DecodeString(strings.ReplaceAll(o.MAC, ":", ""))
		if err == nil && len(mac) == 6 {
			r.Senders = append(r.Senders, senders(n, o.ID, o.Addr, [6]byte(mac))...)
		}
	}
	for a, id := range held {
		if _, err := os.Lstat(e.published(id)); err != nil {
			continue
		}
		if _, alive := monitor.Alive(e.runDir(id)); !alive {
			continue
		}
		if s, err := monitor.ReadState(e.dir(id)); err == nil {
			r.Ports = append(r.Ports, translated(n, id, a, s.Ports)...)
		}
	}
	return r, nil
}

func subnets(n *network.Network) (out []netip.Prefix) {
	for _, s := range []network.Subnet{n.IPv4, n.IPv6} {
		if !s.IsZero() {
			out = append(out, s.Prefix)
		}
	}
	return out
}

// senders are the addresses that the link of a may send from: a, the IPv6 address that belongs to it, and the one that
// the kernel makes of the hardware address for the link alone.
func senders(n *network.Network, id string, a netip.Addr, mac [6]byte) []nft.Sender {
	local := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	out := []nft.Sender{{ID: id, MAC: mac, Addr: a, Group: a}}
	if six := n.In6(a); six.IsValid() {
		out = append(out, nft.Sender{ID: id, MAC: mac, Addr: six, Group: a}, nft.Sender{ID: id, MAC: mac, Addr: local, Group: a})
	}
	return out
}

// translated are the ports of container id, which has the address a, that the kernel can lead there by itself. IPv6
// clients of a container without IPv6 are the listener's.
func translated(n *network.Network, id string, a netip.Addr, ports []relay.Port) (out []nft.Port) {
	for _, p := range ports {
		to := a
		if len(p.On) == 16 {
			to = n.In6(a)
		}
		if host, ok := netip.AddrFromSlice(p.On); ok && to.IsValid() {
			out = append(out, nft.Port{ID: id, Proto: p.Proto, Host: netip.AddrPortFrom(host, p.Port), To: netip.AddrPortFrom(to, p.To)})
		}
	}
	return out
}

// publication is what the monitor of c is to listen on.
func (e *Engine) publication(c *Container, n *network.Network, a netip.Addr) (*relay.Config, error) {
	ports, err := c.wanted()
	if err != nil {
		return nil, err
	}
	r := &relay.Config{Ports: ports, To: []relay.IP{a.AsSlice()}, Keep: filepath.Join(e.firewallDir(), relayFile), Mark: nft.RelayMark}
	if six := n.In6(a); six.IsValid() {
		r.To = append(r.To, six.AsSlice())
	}
	for _, p := range subnets(n) {
		r.Near = append(r.Near, relay.Subnet{IP: p.Addr().AsSlice(), Bits: p.Bits()})
	}
	return r, nil
}

// publish has the kernel lead the ports, which the monitor of container id holds, to its address a. Until then, and where
// somebody else decides about what comes in, the monitor carries what reaches them.
func (e *Engine) publish(ctx context.Context, n *network.Network, id string, a netip.Addr, ports []relay.Port) error {
	if len(ports) == 0 {
		return nil
	}
	l, err := e.lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if err := state.Write(e.published(id), nil); err != nil {
		return err
	}
	f := e.readFirewall()
	now, err := epoch(0)
	if err != nil {
		return err
	}
	if f.Epoch != now {
		return e.writeRules(n, f) // all at once
	}
	if f.Relay {
		return nil
	}
	if err := e.table().Publish(translated(n, id, a, ports)); err != nil {
		return err
	}
	return f.follow(e)
}

// follow remembers the generation after a transaction of our own, unless there was somebody else's too: then the next
// command has a look.
func (f *firewall) follow(e *Engine) error {
	before, err := epoch(1)
	if err != nil || before != f.Epoch {
		return err
	}
	return f.write(e)
}

// unpublish removes all ports of container id, which has ended, from the tables. When it has none it costs a look for a
// file.
func (e *Engine) unpublish(ctx context.Context, id string) error {
	if _, err := os.Lstat(e.published(id)); err != nil {
		return nil
	}
	l, err := e.lockFirewall(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	f := e.readFirewall()
	gone, err := e.table().Withdraw(id)
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		err = f.follow(e)
		_ = nft.Forget(gone) // the ports are gone; what is remembered ends by itself, only later
	}
	if err != nil {
		return err
	}
	if err := os.Remove(e.published(id)); !isMissing(err) {
		return err
	}
	return nil
}
