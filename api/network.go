package api

import (
	"encoding/hex"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"hull/engine"
	"hull/errdef"
	"hull/network"

	"github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

// endpointsFrom takes from the networking section of a create request what containers of the default network can have.
func endpointsFrom(n *wire.NetworkingConfig, h *engine.Host) error {
	if n == nil {
		return nil
	}
	for name, p := range n.EndpointsConfig {
		if !sameNetwork(name, h.Network) {
			return errdef.NotImplemented("network %q: a container is in one network so far, that of its NetworkMode %q", name, h.Network)
		}
		if p == nil {
			continue
		}
		if i := p.IPAMConfig; i != nil && (i.IPv4Address.IsValid() || i.IPv6Address.IsValid() || len(i.LinkLocalIPs) > 0) {
			return errdef.Invalid("user specified IP address is supported on user defined networks only")
		}
		if len(p.Aliases) > 0 {
			return errdef.Invalid("network-scoped alias is supported only for containers in user defined networks")
		}
		if len(p.Links) > 0 {
			return errdef.NotImplemented("links between containers are not supported")
		}
		if len(p.MacAddress) > 0 {
			h.MACAddress = p.MacAddress.String()
		}
	}
	return nil
}

// sameNetwork compares names of networks, of which the default one has three.
func sameNetwork(a, b string) bool {
	plain := func(s string) string {
		if s == "" || s == "default" {
			return network.Bridge
		}
		return s
	}
	return plain(a) == plain(b)
}

// endpoints of a container, by network.
func (s *server) endpoints(c *engine.Container) map[string]*wire.EndpointSettings {
	out := map[string]*wire.EndpointSettings{}
	for _, p := range s.engine.Endpoints(c) {
		e := &wire.EndpointSettings{
			NetworkID: p.NetworkID, EndpointID: p.ID, Gateway: p.Gateway4, IPAddress: p.IPv4.Addr(), IPPrefixLen: max(p.IPv4.Bits(), 0),
			IPv6Gateway: p.Gateway6, GlobalIPv6Address: p.IPv6.Addr(), GlobalIPv6PrefixLen: max(p.IPv6.Bits(), 0),
		}
		mac := p.MAC
		if mac == "" {
			mac = c.Host.MACAddress
		}
		e.MacAddress, _ = hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
		out[p.Network] = e
	}
	return out
}

// networkSettings are the wire's, with the fields that came before there were several networks: templates of twelve years
// look at them, though the newest API no longer has them.
type networkSettings struct {
	container.NetworkSettings
	Bridge, EndpointID, Gateway, GlobalIPv6Address, IPAddress, IPv6Gateway, MacAddress string
	GlobalIPv6PrefixLen, IPPrefixLen                                                   int
	HairpinMode                                                                        bool
	LinkLocalIPv6Address                                                               string
	LinkLocalIPv6PrefixLen                                                             int
}

func (s *server) networkSettings(c *engine.Container) *networkSettings {
	out := &networkSettings{NetworkSettings: container.NetworkSettings{Ports: portMap(c), Networks: s.endpoints(c)}}
	if c.State.Pid != 0 {
		out.SandboxID, out.SandboxKey = c.ID, s.engine.NetworkNamespace(c)
	}
	if p := out.Networks[network.Bridge]; p != nil && p.IPAddress.IsValid() {
		text := func(a netip.Addr) string {
			if !a.IsValid() {
				return ""
			}
			return a.String()
		}
		out.EndpointID, out.Gateway, out.IPAddress, out.IPPrefixLen = p.EndpointID, text(p.Gateway), text(p.IPAddress), p.IPPrefixLen
		out.IPv6Gateway, out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = text(p.IPv6Gateway), text(p.GlobalIPv6Address), p.GlobalIPv6PrefixLen
		out.MacAddress = p.MacAddress.String()
	}
	return out
}

// listNetworks is GET /networks.
func (s *server) listNetworks(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	all, err := s.engine.Networks(q.Context())
	if err != nil {
		return err
	}
	out := []wire.Summary{}
	for _, n := range all {
		keep, err := keepNetwork(n, filters)
		if err != nil {
			return err
		}
		if keep {
			out = append(out, wire.Summary{Network: wireNetwork(n)})
		}
	}
	return q.answer(http.StatusOK, out)
}

// keepNetwork applies Docker's filters.
func keepNetwork(n *engine.NetworkInfo, filters map[string][]string) (bool, error) {
	for key, values := range filters {
		var ok func(v string) bool
		switch key {
		case "name":
			ok = func(v string) bool { return strings.Contains(n.Name, v) }
		case "id":
			ok = func(v string) bool { return strings.HasPrefix(n.ID, v) }
		case "driver":
			ok = func(v string) bool { return n.Driver == v }
		case "scope":
			ok = func(v string) bool { return v == "local" }
		case "type":
			ok = func(v string) bool { return v == "builtin" }
		case "dangling", "label":
			ok = func(v string) bool { return key == "dangling" && (v == "false" || v == "0") }
		default:
			return false, errdef.Invalid("invalid filter '%s'", key)
		}
		if len(values) > 0 && !slices.ContainsFunc(values, ok) {
			return false, nil
		}
	}
	return true, nil
}

// inspectNetwork is GET /networks/{name}.
func (s *server) inspectNetwork(q *request) error {
	n, err := s.engine.Network(q.Context(), q.name)
	if err != nil {
		return err
	}
	out := wire.Inspect{Network: wireNetwork(n), Containers: map[string]wire.EndpointResource{}}
	for id, p := range n.Containers {
		r := wire.EndpointResource{Name: n.Names[id], EndpointID: p.ID, IPv4Address: p.IPv4, IPv6Address: p.IPv6}
		r.MacAddress, _ = hex.DecodeString(strings.ReplaceAll(p.MAC, ":", ""))
		out.Containers[id] = r
	}
	return q.answer(http.StatusOK, out)
}

func wireNetwork(n *engine.NetworkInfo) wire.Network {
	out := wire.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver,
		EnableIPv4: true, EnableIPv6: !n.IPv6.IsZero(),
		IPAM: wire.IPAM{Driver: "default", Config: []wire.IPAMConfig{}}, Options: map[string]string{}, Labels: map[string]string{},
	}
	for _, s := range []network.Subnet{n.IPv4, n.IPv6} {
		if !s.IsZero() {
			out.IPAM.Config = append(out.IPAM.Config, wire.IPAMConfig{Subnet: s.Prefix, Gateway: s.Gateway})
		}
	}
	if n.Driver == network.Bridge {
		// The words that tools look for in Docker's default network.
		out.Options = map[string]string{
			"com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.enable_icc": "true",
			"com.docker.network.bridge.enable_ip_masquerade": "true", "com.docker.network.bridge.name": n.Device,
		}
	}
	return out
}

// createNetwork is POST /networks/create.
func (s *server) createNetwork(*request) error { return errUserNetworks() }

// removeNetwork is DELETE /networks/{name}.
func (s *server) removeNetwork(q *request) error {
	n, err := s.engine.Network(q.Context(), q.name)
	if err != nil {
		return err
	}
	return errdef.Forbidden("%s is a pre-defined network and cannot be removed", n.Name)
}

// changeNetwork is POST /networks/{name}/connect and disconnect.
func (s *server) changeNetwork(*request) error { return errUserNetworks() }

// pruneNetworks is POST /networks/prune: the networks there are always stay.
func (s *server) pruneNetworks(q *request) error {
	return q.answer(http.StatusOK, wire.PruneReport{NetworksDeleted: []string{}})
}

func errUserNetworks() error {
	return errdef.NotImplemented("networks of your own are not there yet: this Hull has the networks bridge, host and none")
}
