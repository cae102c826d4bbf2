package cli

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// portRange is a port or several that follow each other.
type portRange struct{ first, last int }

func (r portRange) size() int { return r.last - r.first + 1 }

func parsePortRange(s string) (r portRange, ok bool) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	return portRange{int(first), int(last)}, err1 == nil && err2 == nil && first <= last
}

// published is what -p asks for: ports of a container, the address of the host and its ports.
type published struct {
	proto     string
	inside    portRange
	ip        netip.Addr // invalid: every address
	outside   portRange
	ephemeral bool // no port of the host was named
}

// parsePublish reads [[ip:][hostport[-hostport]]:]port[-port][/proto], and the long form of name=value pairs.
func parsePublish(s string) (p published, err error) {
	if strings.Contains(s, "=") {
		if s, err = shortPublish(s); err != nil {
			return p, err
		}
	}
	host, inside, ok := cutLast(s)
	if !ok {
		host, inside = "", s
	}
	ip, outside, ok := cutLast(host)
	if !ok {
		ip, outside = "", host
	}
	inside, p.proto, _ = strings.Cut(inside, "/")
	if inside == "" {
		return p, errdef.Invalid("no port specified: %s<empty>", s)
	}
	if p.proto = strings.ToLower(cmp.Or(p.proto, "tcp")); !slices.Contains([]string{"tcp", "udp", "sctp"}, p.proto) {
		return p, errdef.Invalid("invalid proto: %s", p.proto)
	}
	if ip != "" {
		if p.ip, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")); err != nil || p.ip.Zone() != "" {
			return p, errdef.Invalid("invalid IP address: %s", ip)
		}
	}
	if p.inside, ok = parsePortRange(inside); !ok {
		return p, errdef.Invalid("invalid containerPort: %s", inside)
	}
	if p.ephemeral = outside == ""; p.ephemeral {
		return p, nil
	}
	if p.outside, ok = parsePortRange(outside); !ok {
		return p, errdef.Invalid("invalid hostPort: %s", outside)
	}
	// One port inside may be given any of several outside.
	if p.inside.size() != p.outside.size() && p.inside.size() > 1 {
		return p, errdef.Invalid("invalid ranges specified for container and host Ports: %s and %s", inside, outside)
	}
	return p, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// shortPublish turns published=8080,target=80,protocol=tcp into the short form.
func shortPublish(s string) (string, error) {
	var outside, target string
	proto := "tcp"
	for field := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok || v == "" {
			return "", errdef.Invalid("invalid publish opts format (should be name=value but got '%s')", field)
		}
		switch k {
		case "published":
			outside = v
		case "target":
			target = v
		case "protocol":
			proto = v
		case "mode":
		default:
			return "", errdef.Invalid("invalid publish opts format: unknown field '%s'", k)
		}
	}
	return outside + ":" + target + "/" + proto, nil
}

// ports sets what -p, -P and --expose ask for.
func (o *options) ports(c *container.Config, h *container.HostConfig) error {
	h.PublishAllPorts = o.publishAll
	for _, s := range o.publish {
		p, err := parsePublish(s)
		if err != nil {
			return err
		}
		for i := range p.inside.size() {
			port, _ := network.PortFrom(uint16(p.inside.first+i), network.IPProtocol(p.proto))
			expose(c, port)
			if h.PortBindings == nil {
				h.PortBindings = network.PortMap{}
			}
			h.PortBindings[port] = append(h.PortBindings[port], network.PortBinding{HostIP: p.ip, HostPort: p.hostPort(i)})
		}
	}
	for _, s := range o.expose {
		if strings.Contains(s, ":") {
			return errdef.Invalid("invalid port format for --expose: %s", s)
		}
		numbers, proto, _ := strings.Cut(s, "/")
		r, ok := parsePortRange(numbers)
		if !ok {
			return errdef.Invalid("invalid range format for --expose: %s: want PORT or PORT-PORT, each up to 65535", s)
		}
		for n := r.first; n <= r.last; n++ {
			port, _ := network.PortFrom(uint16(n), network.IPProtocol(strings.ToLower(cmp.Or(proto, "tcp"))))
			expose(c, port)
		}
	}
	return nil
}

func expose(c *container.Config, p network.Port) {
	if c.ExposedPorts == nil {
		c.ExposedPorts = network.PortSet{}
	}
	c.ExposedPorts[p] = struct{}{}
}

// hostPort is what the i-th port inside gets outside: a number, a range to choose from, or "" for any.
func (p *published) hostPort(i int) string {
	switch {
	case p.ephemeral:
		return ""
	case p.inside.size() == 1 && p.outside.size() > 1:
		return strconv.Itoa(p.outside.first) + "-" + strconv.Itoa(p.outside.last)
	}
	return strconv.Itoa(p.outside.first + i)
}

// portText is the PORTS column: ports that are the same outside and inside, or only inside, are put together where
// they follow each other.
func portText(ports []container.PortSummary) string {
	ports = slices.SortedFunc(slices.Values(ports), func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), strings.Compare(addrText(a.IP), addrText(b.IP)),
			cmp.Compare(a.PublicPort, b.PublicPort), strings.Compare(a.Type, b.Type))
	})
	type place struct{ ip, proto string }
	runs := map[place]*portRange{}
	var order []place
	var folded, mapped []string
	for _, p := range ports {
		n := int(p.PrivatePort)
		ip := addrText(p.IP)
		if ip != "" && p.PublicPort != p.PrivatePort {
			mapped = append(mapped, net.JoinHostPort(ip, strconv.Itoa(int(p.PublicPort)))+"->"+strconv.Itoa(n)+"/"+p.Type)
			continue
		}
		at := place{ip, p.Type}
		run := runs[at]
		switch {
		case run == nil:
			order = append(order, at)
		case n == run.last+1:
			run.last = n
			continue
		default:
			folded = append(folded, run.text(at.ip, at.proto))
		}
		runs[at] = &portRange{n, n}
	}
	for _, at := range order {
		folded = append(folded, runs[at].text(at.ip, at.proto))
	}
	return strings.Join(append(folded, mapped...), ", ")
}

func addrText(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

func (r *portRange) text(ip, proto string) string {
	s := strconv.Itoa(r.first)
	if r.last != r.first {
		s += "-" + strconv.Itoa(r.last)
	}
	if ip != "" {
		s = net.JoinHostPort(ip, s) + "->" + s
	}
	return s + "/" + proto
}
