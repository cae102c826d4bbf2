package engine

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/monitor"
	"hull/monitor/relay"
	"hull/network"
)

// PortBinding asks for a port of the host to lead to one of the container.
type PortBinding struct {
	Port     string `json:"port"`               // of the container: "80/tcp"
	HostIP   string `json:"hostIp,omitempty"`   // "" is every address of the host, IPv4 and IPv6
	HostPort string `json:"hostPort,omitempty"` // "8080", "8000-8010" to choose from, "" or "0" for any that is free
}

// Port is a port of the host that leads to a running container.
type Port struct {
	Container uint16
	Proto     string // "tcp" or "udp"
	Host      netip.AddrPort
}

// parsePort reads "80/tcp", tcp if no protocol is named.
func parsePort(s string) (port uint16, proto string, err error) {
	number, proto, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return 0, "", errdef.Invalid("invalid port specification: %q", clip(s))
	}
	switch proto = strings.ToLower(cmp.Or(proto, "tcp")); proto {
	case "tcp", "udp":
		return uint16(n), proto, nil
	case "sctp":
		return uint16(n), proto, errdef.NotImplemented("publishing SCTP ports is not there (%s): this Hull publishes tcp and udp; with --network host a container has the host's own ports", clip(s))
	}
	return 0, "", errdef.Invalid("invalid port specification: %q: unknown protocol", clip(s))
}

// wanted translates a binding into what the monitor is asked for.
func (b *PortBinding) wanted() (w relay.Wanted, err error) {
	if w.To, w.Proto, err = parsePort(b.Port); err != nil {
		return w, err
	}
	if b.HostIP == "" {
		w.On = []relay.IP{make(relay.IP, 4), make(relay.IP, 16)}
	} else {
		a, err := netip.ParseAddr(b.HostIP)
		if err != nil || a.Zone() != "" || a.IsMulticast() {
			return w, errdef.Invalid("invalid IP address of a published port: %s", clip(b.HostIP))
		}
		w.On = []relay.IP{a.Unmap().AsSlice()}
	}
	first, last, isRange := strings.Cut(b.HostPort, "-")
	if !isRange {
		last = first
	}
	for _, x := range []struct {
		text string
		to   *uint16
	}{{first, &w.First}, {last, &w.Last}} {
		n, err := strconv.ParseUint(cmp.Or(x.text, "0"), 10, 16)
		if err != nil || isRange && n == 0 {
			return w, errdef.Invalid("invalid host port of a published port: %s", clip(b.HostPort))
		}
		*x.to = uint16(n)
	}
	if w.Last < w.First {
		return w, errdef.Invalid("invalid host port of a published port: %s", clip(b.HostPort))
	}
	return w, nil
}

// wanted are the ports to publish of the container. Those with a number come first, or another one of the same container
// might be given theirs.
func (c *Container) wanted() (out []relay.Wanted, err error) {
	bound := map[string]bool{}
	for i := range c.Host.Ports {
		b := c.Host.Ports[i]
		b.HostIP = cmp.Or(b.HostIP, c.Host.PublishIP)
		w, err := b.wanted()
		if err != nil {
			return nil, err
		}
		bound[portName(w.To, w.Proto)] = true
		out = append(out, w)
	}
	if c.Host.PublishAll {
		for _, p := range c.Config.ExposedPorts {
			to, proto, err := parsePort(p)
			if errors.Is(err, errdef.ErrNotImplemented) {
				continue // the image has it, and nobody named it: see checkPorts
			}
			if err != nil {
				return nil, err
			}
			if !bound[portName(to, proto)] {
				w, _ := (&PortBinding{Port: p, HostIP: c.Host.PublishIP}).wanted()
				out = append(out, w)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b relay.Wanted) int { return cmp.Compare(min(b.First, 1), min(a.First, 1)) })
	return out, nil
}

func portName(port uint16, proto string) string { return strconv.Itoa(int(port)) + "/" + proto }

// publishes reports whether the container has ports to publish.
func (c *Container) publishes() bool {
	return bridged(&c.Host) && (len(c.Host.Ports) > 0 || c.Host.PublishAll && len(c.Config.ExposedPorts) > 0)
}

// bridged reports whether the container has an address of its own.
func bridged(h *Host) bool { return h.Network == network.Bridge }

// checkPorts refuses what cannot be published, in Docker's words, and says what is left out.
func checkPorts(c *Config, h *Host) (warnings []string, err error) {
	box := &Container{Config: *c, Host: *h}
	if _, err := box.wanted(); err != nil {
		return nil, err
	}
	if len(h.Ports) == 0 && !h.PublishAll || bridged(h) {
		if h.PublishAll {
			warnings = unpublishable(c)
		}
		return warnings, nil
	}
	if strings.HasPrefix(h.Network, "container:") {
		return nil, errdef.Invalid("conflicting options: port publishing and the container type network mode")
	}
	return []string{"Published ports are discarded when using " + h.Network + " network mode"}, nil
}

// unpublishable says which of the ports that c exposes --publish-all leaves out.
func unpublishable(c *Config) (warnings []string) {
	for _, p := range c.ExposedPorts {
		if _, _, err := parsePort(p); errors.Is(err, errdef.ErrNotImplemented) {
			warnings = append(warnings, "Port "+p+" is exposed, but not published: this Hull publishes tcp and udp")
		}
	}
	return warnings
}

// portsOf are the ports that the monitor says it holds.
func portsOf(ports []relay.Port) (out []Port) {
	for _, p := range ports {
		if a, ok := netip.AddrFromSlice(p.On); ok {
			out = append(out, Port{p.To, p.Proto, netip.AddrPortFrom(a, p.Port)})
		}
	}
	return out
}

// bindError says why the start of c failed that could not have the port p of the host, and who has it. The words are
// Docker's as far as it has any.
func (e *Engine) bindError(c *Container, p *relay.Port, cause error) error {
	a, _ := netip.AddrFromSlice(p.On)
	what := fmt.Sprintf("driver failed programming external connectivity on endpoint %s (%s): ", c.Name, c.ID)
	if !strings.HasSuffix(cause.Error(), "address already in use") {
		_, reason, _ := strings.Cut(cause.Error(), ": ")
		return fmt.Errorf("%sBind for %s failed: %s%s", what, netip.AddrPortFrom(a, p.Port), reason, bindHint(reason))
	}
	if p.Port == 0 {
		return fmt.Errorf("%sBind for %s failed: all ports are allocated: none of those for %s is free", what, a, portName(p.To, p.Proto))
	}
	s := fmt.Sprintf("%sBind for %s failed: port is already allocated", what, netip.AddrPortFrom(a, p.Port))
	if who := e.holder(p); who != "" {
		s += " by " + who
	}
	return fmt.Errorf("%s", s)
}

func bindHint(reason string) string {
	switch {
	case strings.Contains(reason, "cannot assign"):
		return ": no interface of this host has the address"
	case strings.Contains(reason, "permission denied"):
		return ": only root may have ports this low"
	}
	return ""
}

// holder names who has a port of the host: a container or a process. "" when that cannot be found out.
func (e *Engine) holder(p *relay.Port) string {
	for _, inode := range sockets(p) {
		pid := owner(inode)
		if pid == 0 {
			continue
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if len(argv) == 3 && filepath.Base(argv[0]) == "hull-runtime" && argv[1] == "monitor" {
			return e.ofMonitor(argv[2])
		}
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return fmt.Sprintf("process %s (pid %d)", clip(strings.TrimSpace(string(name))), pid)
	}
	return ""
}

// ofMonitor names the container of a run directory.
func (e *Engine) ofMonitor(dir string) string {
	id := filepath.Base(dir)
	if !isID(id) {
		return "a container of Hull"
	}
	if filepath.Dir(dir) != filepath.Dir(e.runDir(id)) {
		return "container " + id[:12] + " of another Hull, which runs in " + filepath.Dir(filepath.Dir(dir))
	}
	if c, err := e.load(id); err == nil && c.known() {
		return "container " + c.Name + " (" + id[:12] + ")"
	}
	return "container " + id[:12]
}

// sockets finds the inodes of sockets that are in the way of p, those on the very address first.
func sockets(p *relay.Port) (inodes []string) {
	for _, file := range []string{p.Proto, p.Proto + "6"} {
		b, err := os.ReadFile("/proc/net/" + file)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			// sl local_address rem_address st queues timer retrnsmt uid timeout inode
			f := strings.Fields(s.Text())
			if len(f) < 10 || p.Proto == "tcp" && f[3] != "0A" { // TCP_LISTEN
				continue
			}
			addr, port, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(port, 16, 16); err != nil || uint16(n) != p.Port {
				continue
			}
			switch ip := procAddr(addr); {
			case bytes.Equal(ip, p.On):
				inodes = slices.Insert(inodes, 0, f[9])
			case isUnspecified(ip) || isUnspecified(p.On):
				inodes = append(inodes, f[9])
			}
		}
	}
	return inodes
}

func isUnspecified(ip []byte) bool {
	return !slices.ContainsFunc(ip, func(b byte) bool { return b != 0 })
}

// procAddr reads an address of /proc/net: words of four bytes, each printed as a number of this machine.
func procAddr(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil || len(b)%4 != 0 {
		return nil
	}
	out := make([]byte, 0, len(b))
	for ; len(b) > 0; b = b[4:] {
		out = binary.NativeEndian.AppendUint32(out, binary.BigEndian.Uint32(b))
	}
	return out
}

// owner is a process that has the socket open, 0 when none can be seen.
func owner(inode string) int {
	want := "socket:[" + inode + "]"
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == want {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
			return pid
		}
	}
	return 0
}

// loadPorts adds to the state of c what its monitor wrote.
func (c *Container) loadPorts(s *monitor.State) {
	if c.Running() || c.State.Status == StatusPaused {
		c.State.Ports = portsOf(s.Ports)
	}
}

// portTest is the filter publish or expose: of the ports of containers, not of the host, as in Docker. A value is
// PORT[/PROTO] or FIRST-LAST[/PROTO].
func portTest(publish bool, values []string) (func(*Container) bool, error) {
	wanted := map[string]bool{}
	for _, v := range values {
		numbers, proto, _ := strings.Cut(v, "/")
		first, last, isRange := strings.Cut(numbers, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return nil, errdef.Invalid("invalid filter: port %s", clip(v))
		}
		for n := a; n <= b; n++ {
			wanted[portName(uint16(n), strings.ToLower(cmp.Or(proto, "tcp")))] = true
		}
	}
	return func(c *Container) bool {
		if !publish {
			return slices.ContainsFunc(c.Config.ExposedPorts, func(p string) bool { return wanted[p] })
		}
		return slices.ContainsFunc(c.Host.Ports, func(b PortBinding) bool { return wanted[b.Port] })
	}, nil
}
