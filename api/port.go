package api

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"hull/engine"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// bindingsFrom keeps the order of the bindings of a port; ports come in their own.
func bindingsFrom(m network.PortMap) (out []engine.PortBinding) {
	for p, list := range m {
		for _, b := range list {
			e := engine.PortBinding{Port: p.String(), HostPort: b.HostPort}
			if b.HostIP.IsValid() {
				e.HostIP = b.HostIP.String()
			}
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b engine.PortBinding) int {
		return cmp.Or(cmp.Compare(len(a.Port), len(b.Port)), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// wireBindings is the inverse of bindingsFrom.
func wireBindings(list []engine.PortBinding) network.PortMap {
	out := network.PortMap{}
	for _, b := range list {
		p, err := network.ParsePort(b.Port)
		if err != nil {
			continue // checked at create; a damaged definition shows none
		}
		ip, _ := netip.ParseAddr(b.HostIP)
		out[p] = append(out[p], network.PortBinding{HostIP: ip, HostPort: b.HostPort})
	}
	return out
}

// portMap is what leads to a running container, with the ports it exposes beside. It is empty while the container does
// not run.
func portMap(c *engine.Container) network.PortMap {
	out := network.PortMap{}
	if !c.Running() {
		return out
	}
	for _, s := range c.Config.ExposedPorts {
		if p, err := network.ParsePort(s); err == nil {
			out[p] = nil
		}
	}
	for _, p := range c.State.Ports {
		inside, _ := network.PortFrom(p.Container, network.IPProtocol(p.Proto))
		out[inside] = append(out[inside], network.PortBinding{HostIP: p.Host.Addr(), HostPort: strconv.Itoa(int(p.Host.Port()))})
	}
	return out
}

// portList is portMap as lists of containers have it.
func portList(c *engine.Container) []container.PortSummary {
	out := []container.PortSummary{}
	for p, list := range portMap(c) {
		if len(list) == 0 {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range list {
			n, _ := strconv.ParseUint(b.HostPort, 10, 16)
			out = append(out, container.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(n), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return out
}
