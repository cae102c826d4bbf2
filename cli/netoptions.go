package cli

import (
	"net/netip"
	"slices"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// netOptions are the flags of run and create about the network, but for ports.
type netOptions struct {
	networks                            listFlag
	addHost, dns, dnsSearch, dnsOptions listFlag
	aliases, links, linkLocal           listFlag
	mac, ip, ip6                        string
}

func (o *netOptions) add(f *pflag.FlagSet) {
	f.Var(&o.networks, "network", "Network of the container: bridge, host, none or container:NAME")
	f.Var(&o.networks, "net", "Same as --network")
	f.Lookup("net").Hidden = true
	f.Var(&o.addHost, "add-host", "Add a line to /etc/hosts: name:address, or name:host-gateway for this host")
	f.Var(&o.dns, "dns", "Name servers instead of those of the host")
	f.Var(&o.dnsSearch, "dns-search", "Domains to look short names up in instead of those of the host")
	f.Var(&o.dnsOptions, "dns-option", "Options of the resolver instead of those of the host")
	f.Var(&o.dnsOptions, "dns-opt", "Same as --dns-option")
	f.Lookup("dns-opt").Hidden = true
	f.StringVar(&o.mac, "mac-address", "", "MAC address of its network device")
	f.Var(&o.aliases, "network-alias", "Further names in a user-defined network")
	f.Var(&o.aliases, "net-alias", "Same as --network-alias")
	f.Lookup("net-alias").Hidden = true
	f.StringVar(&o.ip, "ip", "", "IPv4 address in a user-defined network")
	f.StringVar(&o.ip6, "ip6", "", "IPv6 address in a user-defined network")
	f.Var(&o.links, "link", "Refused: the old way for containers to know each other")
	f.Lookup("link").Hidden = true
	f.Var(&o.linkLocal, "link-local-ip", "Further addresses in a user-defined network")
	f.Lookup("link-local-ip").Hidden = true
}

// into fills in what the flags say about the network.
func (o *netOptions) into(h *container.HostConfig, n *network.NetworkingConfig) error {
	if len(o.links) > 0 {
		return hint(errdef.NotImplemented("--link is not supported: it copies names and variables between containers and keeps neither up to date"),
			"Containers reach each other by address; --add-host gives one a name.")
	}
	mode := "default"
	for i, s := range o.networks {
		name, err := o.network(s)
		if err != nil {
			return err
		}
		if i > 0 && name != mode {
			return errdef.NotImplemented("--network %s and --network %s: a container is in one network so far", mode, name)
		}
		mode = name
	}
	h.NetworkMode = container.NetworkMode(mode)
	for _, s := range o.addHost {
		x, err := extraHost(s)
		if err != nil {
			return err
		}
		h.ExtraHosts = append(h.ExtraHosts, x)
	}
	for _, s := range o.dns {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return errdef.Invalid("invalid argument %q for \"--dns\" flag: invalid IP address: %s", s, s)
		}
		h.DNS = append(h.DNS, a)
	}
	h.DNSSearch, h.DNSOptions = o.dnsSearch, o.dnsOptions
	return o.endpoint(mode, n)
}

// network reads one --network: a name, or name=NAME,alias=...,ip=...,mac-address=...
func (o *netOptions) network(s string) (name string, err error) {
	if !strings.Contains(s, "=") {
		return s, nil
	}
	for f := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return "", errdef.Invalid("invalid argument %q for \"--network\" flag: invalid field %s", s, f)
		}
		switch key {
		case "name":
			name = value
		case "alias":
			o.aliases = append(o.aliases, value)
		case "ip":
			o.ip = value
		case "ip6":
			o.ip6 = value
		case "mac-address":
			o.mac = value
		case "link-local-ip":
			o.linkLocal = append(o.linkLocal, value)
		case "driver-opt", "gw-priority":
			return "", errdef.NotImplemented("--network %s=: %s", key, notYetNetworks)
		default:
			return "", errdef.Invalid("invalid argument %q for \"--network\" flag: invalid field key %s", s, key)
		}
	}
	if name == "" {
		return "", errdef.Invalid("invalid argument %q for \"--network\" flag: network name is missing", s)
	}
	return name, nil
}

const notYetNetworks = "user-defined networks are not in this version yet"

// endpoint says what is special about the container in the network.
func (o *netOptions) endpoint(mode string, n *network.NetworkingConfig) error {
	if o.mac == "" && o.ip == "" && o.ip6 == "" && len(o.aliases)+len(o.linkLocal) == 0 {
		return nil
	}
	e := &network.EndpointSettings{Aliases: slices.Clone(o.aliases)}
	if o.mac != "" {
		if e.MacAddress.UnmarshalText([]byte(strings.TrimSpace(o.mac))) != nil || len(e.MacAddress) != 6 {
			return errdef.Invalid("%s is not a valid mac address", o.mac)
		}
	}
	ipam := new(network.EndpointIPAMConfig)
	for _, a := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"ip", o.ip, &ipam.IPv4Address}, {"ip6", o.ip6, &ipam.IPv6Address}} {
		if a.text == "" {
			continue
		}
		ip, err := netip.ParseAddr(a.text)
		if err != nil {
			return errdef.Invalid("invalid argument %q for \"--%s\" flag: it is no IP address", a.text, a.flag)
		}
		*a.to, e.IPAMConfig = ip, ipam
	}
	for _, s := range o.linkLocal {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return errdef.Invalid("invalid argument %q for \"--link-local-ip\" flag: it is no IP address", s)
		}
		ipam.LinkLocalIPs, e.IPAMConfig = append(ipam.LinkLocalIPs, ip), ipam
	}
	n.EndpointsConfig = map[string]*network.EndpointSettings{mode: e}
	return nil
}

// extraHost checks NAME:ADDRESS, also written with an equals sign or the address in brackets, and returns the first form.
func extraHost(s string) (string, error) {
	bad := func() (string, error) { return "", errdef.Invalid("bad format for add-host: %q", s) }
	name, addr, ok := strings.Cut(s, "=")
	if !ok {
		name, addr, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" || addr == "" {
		return bad()
	}
	if strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]") {
		addr = addr[1 : len(addr)-1]
	}
	if addr != "host-gateway" {
		if _, err := netip.ParseAddr(addr); err != nil {
			return "", errdef.Invalid("invalid IP address in add-host: %q", addr)
		}
	}
	return name + ":" + addr, nil
}
