package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/errdef"
	"hull/kernel/netlink"
	"hull/monitor"
	"hull/network"
	"hull/runtime"
	"hull/state"
	"hull/state/plainjson"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// nic is what a container calls its link.
const nic = "eth0"

// networks is where this engine's networks are.
func (e *Engine) networks() *network.Store {
	device := "hull0"
	if i := e.Instance(); i != "hull" {
		device = i
	}
	return &network.Store{Root: e.root, Run: e.run, Device: device}
}

// LinkPrefix begins the names of the links of this engine's containers, and of nobody else's.
func (e *Engine) LinkPrefix() string {
	if e.root == DefaultRoot {
		return "hullv"
	}
	sum := sha256.Sum256([]byte(e.root))
	return "h" + hex.EncodeToString(sum[:2])
}

// linkName is that of the host's end of a container's link: it is found by the container's id whatever else is lost.
func (e *Engine) linkName(id string) string { return e.LinkPrefix() + id[:10] }

// dropNetwork gives back the network of a container whose monitor was killed. Its link goes with its last process, unless
// other containers live on in its network namespace.
func (e *Engine) dropNetwork(id string) error {
	b, err := state.Read(filepath.Join(e.runDir(id), monitor.ConfigFile), maxRecord)
	if isMissing(err) {
		return nil // it had no start
	}
	m := new(monitor.Config)
	if err == nil {
		err = plainjson.Unmarshal(b, m)
	}
	if err != nil || m.Network == nil {
		return nil // a half-written one had no start either
	}
	if err := runtime.Disconnect(m.Network.Link.Host); err != nil {
		return err
	}
	for _, claim := range m.Claims {
		if dir := filepath.Dir(claim); filepath.Dir(dir) == filepath.Join(e.run, monitor.NetworkClaims) {
			if err := state.Release(dir, filepath.Base(claim), e.runDir(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// wish is what the configuration says of the default network.
func (e *Engine) wish() (network.Wish, error) {
	conf, err := e.Config()
	if err != nil {
		return network.Wish{}, err
	}
	w := network.Wish{Address: conf.Network.Address, MTU: conf.Network.MTU}
	for _, p := range conf.Network.Pools {
		if p.Base.Addr().Is4() {
			w.Pools = append(w.Pools, network.Pool(p))
		}
	}
	return w, nil
}

// defaultNetwork is the one named bridge, made on first use.
func (e *Engine) defaultNetwork(s *network.Store) (*network.Network, error) {
	n, err := s.Load()
	if !errors.Is(err, errdef.ErrNotFound) {
		return n, err
	}
	w, err := e.wish()
	if err != nil {
		return nil, err
	}
	n, err = s.Default(w)
	return n, e.storeError(err)
}

// endpoint is a container's place in the default network.
type endpoint struct {
	net   *network.Network
	addr  netip.Addr // IPv4
	claim string
	// warnings about what the container will not be able to do there.
	warnings []string
}

// connect gives c, whose run directory exists, an address in the network it is to be in, and makes sure that there is
// one. It is nil for the network of the host, of another container, or none. Give it back by disconnect.
func (e *Engine) connect(ctx context.Context, c *Container) (_ *endpoint, err error) {
	if c.Host.Network != network.Bridge {
		return nil, nil
	}
	s := e.networks()
	n, err := e.ensureBridge(s)
	if err != nil {
		return nil, err
	}
	p := &endpoint{net: n}
	if p.addr, p.claim, err = s.Claim(n, e.runDir(c.ID)); err != nil {
		return nil, err
	}
	if p.warnings, err = e.permit(ctx, n, c.ID, p.addr, c.Host.MACAddress); err != nil {
		return nil, errors.Join(err, e.disconnect(c.ID, p))
	}
	return p, nil
}

// disconnect gives the address back.
func (e *Engine) disconnect(id string, p *endpoint) error {
	if p == nil {
		return nil
	}
	return e.networks().Release(p.net, p.addr, e.runDir(id))
}

// ensureBridge makes sure that the default network is there and whole.
func (e *Engine) ensureBridge(s *network.Store) (*network.Network, error) {
	n, err := e.defaultNetwork(s)
	if err != nil {
		return nil, err
	}
	there, err := n.Exists()
	if err != nil {
		return nil, err
	}
	if !there {
		if err := e.reviveNetwork(s, n); err != nil {
			return nil, err
		}
	}
	_, err = n.Ensure(e.LinkPrefix())
	return n, err
}

// reviveNetwork is called before a bridge is made: for the first time, after a reboot, or because somebody removed it.
// While no container has an address in it the network may move out of the way of what has come meanwhile.
func (e *Engine) reviveNetwork(s *network.Store, n *network.Network) error {
	held, err := s.Held(n)
	if err != nil || len(held) > 0 {
		return err
	}
	w, err := e.wish()
	if err != nil {
		return err
	}
	_, err = s.Resettle(n, w)
	return err
}

// link is what the runtime makes for the endpoint.
func (e *Engine) link(c *Container, p *endpoint) (runtime.Link, error) {
	mac := network.MAC(p.addr)
	l := runtime.Link{
		Bridge: p.net.Device, Host: e.linkName(c.ID), Group: network.Group(p.addr), Name: nic, MTU: uint32(p.net.MTU),
		MAC:       fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]),
		Addresses: []string{netip.PrefixFrom(p.addr, p.net.IPv4.Prefix.Bits()).String()},
		Gateways:  []string{p.net.IPv4.Gateway.String()},
	}
	if m := c.Host.MACAddress; m != "" {
		l.MAC = m
	}
	if six := p.net.In6(p.addr); six.IsValid() {
		l.Addresses = append(l.Addresses, fmt.Sprintf("%s/%d", six.StringExpanded(), p.net.IPv6.Prefix.Bits()))
		l.Gateways = append(l.Gateways, p.net.IPv6.Gateway.StringExpanded())
	}
	return l, nil
}

// Endpoint is how a running container is connected.
type Endpoint struct {
	Network    string // its name
	NetworkID  string
	ID         string // of the endpoint
	MAC        string
	IPv4, IPv6 netip.Prefix // of the container; IPv6 may be invalid
	Gateway4   netip.Addr
	Gateway6   netip.Addr
}

// Endpoints are those of c. One that does not run has none with an address.
func (e *Engine) Endpoints(c *Container) []Endpoint {
	if _, ok := other(c.Host.Network); ok {
		return nil
	}
	p := Endpoint{Network: c.Host.Network, NetworkID: e.networkID(c.Host.Network)}
	if n := c.State.network; n != nil {
		p.fill(c.ID, &n.Link)
	}
	return []Endpoint{p}
}

func (p *Endpoint) fill(id string, l *runtime.Link) {
	sum := sha256.Sum256([]byte(p.NetworkID + id))
	p.ID, p.MAC = hex.EncodeToString(sum[:]), l.MAC
	for _, s := range l.Addresses {
		if a, err := netip.ParsePrefix(s); err == nil && a.Addr().Is4() {
			p.IPv4 = a
		} else if err == nil {
			p.IPv6 = a
		}
	}
	for _, s := range l.Gateways {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			p.Gateway4 = a
		} else if err == nil {
			p.Gateway6 = a
		}
	}
}

// NetworkNamespace is the path of a running container's network namespace, for nsenter(1) and the like.
func (e *Engine) NetworkNamespace(c *Container) string {
	return fmt.Sprintf("/proc/%d/ns/net", c.State.Pid)
}

// networkID of the networks that every engine has. Those without a definition are known by a digest of their name.
func (e *Engine) networkID(name string) string {
	if name == network.Bridge {
		if n, err := e.networks().Load(); err == nil {
			return n.ID
		}
	}
	sum := sha256.Sum256([]byte(e.root + "\x00" + name))
	return hex.EncodeToString(sum[:])
}

// NetworkInfo is one network of this engine.
type NetworkInfo struct {
	network.Network
	Driver     string              // "bridge", "host" or "null"
	Containers map[string]Endpoint // of running containers, by id
	Names      map[string]string   // of those containers
}

// Networks returns the networks of this engine: there are always the same three.
func (e *Engine) Networks(ctx context.Context) ([]*NetworkInfo, error) {
	var out []*NetworkInfo
	for _, name := range []string{network.Bridge, network.Host, network.None} {
		n, err := e.network(name)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// Network finds a network by name, id or unambiguous beginning of an id, with its containers.
func (e *Engine) Network(ctx context.Context, name string) (*NetworkInfo, error) {
	all, err := e.Networks(ctx)
	if err != nil {
		return nil, err
	}
	var found []*NetworkInfo
	for _, n := range all {
		if n.Name == name || n.ID == name {
			found = []*NetworkInfo{n}
			break
		}
		if isHex(name) && strings.HasPrefix(n.ID, name) {
			found = append(found, n)
		}
	}
	switch {
	case len(found) == 0 || name == "":
		return nil, errdef.NotFound("network %s not found", clip(name))
	case len(found) > 1:
		return nil, errdef.Invalid("network %s is ambiguous (%d matches found on ID prefix)", clip(name), len(found))
	}
	return found[0], e.members(ctx, found[0])
}

// networkDriver is Docker's word for the kind of a network.
func networkDriver(name string) string {
	if name == network.None {
		return "null"
	}
	return name
}

// network describes one; the default network is made if it was not yet.
func (e *Engine) network(name string) (*NetworkInfo, error) {
	out := &NetworkInfo{Network: network.Network{Name: name, ID: e.networkID(name)}, Driver: networkDriver(name)}
	if name == network.Bridge {
		if err := e.ready(); err != nil {
			return nil, err
		}
		n, err := e.networks().Load()
		if errors.Is(err, errdef.ErrNotFound) && os.Geteuid() == 0 {
			n, err = e.defaultNetwork(e.networks())
		}
		if errors.Is(err, errdef.ErrNotFound) { // of an ordinary user, who has none
			return out, nil
		}
		if err != nil {
			return nil, e.storeError(err)
		}
		out.Network = *n
	}
	return out, nil
}

// members finds the running containers of a network.
func (e *Engine) members(ctx context.Context, n *NetworkInfo) error {
	n.Containers, n.Names = map[string]Endpoint{}, map[string]string{}
	all, err := e.List(ctx, ListOptions{})
	if err != nil {
		return err
	}
	for _, c := range all {
		for _, p := range e.Endpoints(c) {
			if p.Network == n.Name {
				n.Containers[c.ID], n.Names[c.ID] = p, c.Name
			}
		}
	}
	return nil
}

// heal puts the network of c right if somebody removed its bridge or its link while it runs. It costs one question to the
// kernel when all is well.
func (e *Engine) heal(c *Container) error {
	n := c.State.network
	if n == nil || os.Geteuid() != 0 {
		return nil
	}
	nl, err := netlink.Open()
	if err != nil {
		return err
	}
	l, err := nl.Link(n.Link.Host)
	nl.Close()
	if err == nil && l.Master != 0 && l.Flags&unix.IFF_UP != 0 {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	gone := err != nil
	bridge, err := e.ensureBridge(e.networks())
	if err != nil {
		return err
	}
	if !gone {
		return bridge.Attach(e.LinkPrefix())
	}
	process, err := monitor.OpenProcess(e.dir(c.ID))
	if errors.Is(err, errdef.ErrConflict) {
		return nil // it has just ended
	}
	if err != nil {
		return err
	}
	defer process.Close()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.State.Pid))
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	// As long as the process lives its number is nobody else's, whose network would get the link.
	if unix.PidfdSendSignal(int(process.Fd()), 0, nil, 0) != nil {
		return nil
	}
	if err := n.Link.Connect(int(ns.Fd())); err != nil && !errors.Is(err, unix.EEXIST) { // somebody else healed it
		return fmt.Errorf("connect container %s again: %w", c.ID[:12], err)
	}
	return nil
}

// healAll is heal for those in the list, with one question to the kernel for all of them; it also looks at the bridge's
// addresses, and brings resolv.conf up to date.
func (e *Engine) healAll(all []*Container) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if !slices.ContainsFunc(all, func(c *Container) bool { return c.State.network != nil }) {
		return e.HealFirewall(context.Background())
	}
	if _, err := e.ensureBridge(e.networks()); err != nil {
		return err
	}
	nl, err := netlink.Open()
	if err != nil {
		return err
	}
	defer nl.Close()
	links, err := nl.Links()
	if err != nil {
		return err
	}
	good := make(map[string]bool, len(links))
	for _, l := range links {
		good[l.Name] = l.Master != 0 && l.Flags&unix.IFF_UP != 0
	}
	var errs []error
	for _, c := range all {
		if n := c.State.network; n != nil && !good[n.Link.Host] {
			errs = append(errs, e.heal(c))
		}
		errs = append(errs, e.followHost(c))
	}
	return errors.Join(append(errs, e.HealFirewall(context.Background()))...)
}

// HealNetwork puts right what somebody did to the bridge and to the links of running containers. Every start, every list
// and every command about a container does its part of this anyway.
func (e *Engine) HealNetwork(ctx context.Context) error {
	all, err := e.List(ctx, ListOptions{})
	if err != nil {
		return err
	}
	return e.healAll(all)
}

// checkNetwork refuses combinations of options about networks, in Docker's words. It is asked before the image fills in
// what the person left open.
func checkNetwork(c *Config, h *Host) error {
	name, joins := other(h.Network)
	switch {
	case joins && name == "":
		return errdef.Invalid("invalid network mode: invalid container format container:<name|id>")
	case joins && c.Hostname != "":
		return errdef.Invalid("conflicting options: hostname and the network mode")
	case joins && len(h.DNS) > 0:
		return errdef.Invalid("conflicting options: dns and the network mode")
	case joins && len(h.ExtraHosts) > 0:
		return errdef.Invalid("conflicting options: custom host-to-IP mapping and the network mode")
	case (joins || h.Network == modeHost) && h.MACAddress != "":
		return errdef.Invalid("conflicting options: mac-address and the network mode")
	case joins && len(c.ExposedPorts) > 0:
		return errdef.Invalid("conflicting options: port exposing and the container type network mode")
	case h.UTSMode == modeHost && c.Hostname != "":
		return errdef.Invalid("conflicting options: hostname and the UTS mode")
	}
	return checkMAC(h.MACAddress)
}

// checkMAC admits the address of one device.
func checkMAC(s string) error {
	if s == "" {
		return nil
	}
	parts := strings.Split(s, ":")
	ok := len(parts) == 6
	for _, p := range parts {
		ok = ok && len(p) == 2 && isHex(strings.ToLower(p))
	}
	if !ok {
		return errdef.Invalid("invalid MAC address %q: want six pairs of hexadecimal digits, as in 92:d0:c6:0a:29:33", clip(s))
	}
	if strings.ContainsRune("13579bdf", rune(strings.ToLower(parts[0])[1])) {
		return errdef.Invalid("invalid MAC address %q: it is that of a group (its first byte is odd)", clip(s))
	}
	return nil
}

// networkMode fills in the network of a container whose person named none. Ordinary users have none to give.
func (h *Host) networkMode() (warning string, err error) {
	root := os.Geteuid() == 0
	switch h.Network {
	case "", "default":
		if root {
			h.Network = network.Bridge
			return "", nil
		}
		h.Network = modeNone
		return "an ordinary user has no bridge network: the container gets no network (--network none); --network host shares the host's", nil
	case network.Bridge:
		if !root {
			return "", errdef.NotImplemented("an ordinary user has no bridge network, which takes rights over the host's devices: use --network host or none, or run hull as root")
		}
	case modeNone, modeHost:
	default:
		if _, joins := other(h.Network); !joins {
			// Not of kind ErrNotFound: at a create that means the image, and clients would pull it and try again.
			return "", errdef.Invalid("network %s not found: this Hull has bridge, host and none, and container:NAME", clip(h.Network))
		}
	}
	return "", nil
}

// grant is what one start holds outside the container's own directories, until its monitor gives it back.
type grant struct {
	ids      *idMap // nil without a user namespace
	endpoint *endpoint
}

// giveBack undoes a grant after a start that failed. What cannot be given back is stale soon, and swept.
func (e *Engine) giveBack(id string, g *grant) {
	if g == nil {
		return
	}
	if g.ids != nil {
		_ = e.releaseIDs(id, g.ids.uids)
	}
	_ = e.disconnect(id, g.endpoint)
}

// claims of a grant, for the monitor.
func (g *grant) claims() []string {
	var out []string
	if g.ids != nil && g.ids.claim != "" {
		out = append(out, g.ids.claim)
	}
	if g.endpoint != nil {
		out = append(out, g.endpoint.claim)
	}
	return out
}

// obtain claims what c needs for a start. Its run directory exists.
func (e *Engine) obtain(ctx context.Context, c *Container) (g *grant, sh *shared, err error) {
	g = new(grant)
	defer func() {
		if err != nil {
			e.giveBack(c.ID, g)
			g = nil
		}
	}()
	if sh, err = e.share(ctx, c); err != nil {
		return g, nil, err
	}
	switch {
	case sh != nil:
		g.ids = sh.ids
	case userNamespace(&c.Host) || os.Geteuid() != 0:
		if g.ids, err = e.claimIDs(c.ID); err != nil {
			return g, nil, err
		}
		e.opt.Trace.Step("claim ids")
	}
	if g.endpoint, err = e.connect(ctx, c); err != nil {
		return g, nil, err
	}
	if g.endpoint != nil {
		e.opt.Trace.Step("claim address")
	}
	return g, sh, nil
}

// sharesNetwork reports whether c lives in another container's network namespace.
func (s *shared) sharesNetwork() bool { return s.has(specs.NetworkNamespace) }
