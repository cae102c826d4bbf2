package integration

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"hull/kernel/netlink"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// inside calls f in the network namespace of a running container.
func inside(t *testing.T, h *rig.Hull, name string, f func() error) {
	t.Helper()
	ns, err := os.Open("/proc/" + h.Must(t, "inspect", "-f", "{{.State.Pid}}", name) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netlink.In(int(ns.Fd()), f); err != nil {
		t.Fatal(err)
	}
}

// two is an engine with two containers on its bridge, "aa" and "bb".
func two(t *testing.T) *rig.Hull {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	for _, name := range []string{"aa", "bb"} {
		h.Must(t, "run", "-d", "--name", name, "busybox", "sleep", "1000")
	}
	return h
}

// TestMulticast: what a container sends to many arrives at its neighbours, whoever has made the bridge look for listeners.
func TestMulticast(t *testing.T) {
	h := two(t)
	c, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b netlink.Batch
	m := b.Link("snoop", unix.RTM_NEWLINK, 0, netlink.Header{}).String(unix.IFLA_IFNAME, h.Bridge())
	m.Nest(unix.IFLA_LINKINFO, func() {
		m.String(unix.IFLA_INFO_KIND, "bridge").Nest(unix.IFLA_INFO_DATA, func() {
			m.Byte(unix.IFLA_BR_MCAST_SNOOPING, 1).Byte(unix.IFLA_BR_MCAST_QUERIER, 1)
		})
	})
	if err := c.Do(&b); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Link(h.Bridge()); err != nil || !l.Snoops {
		t.Fatalf("the bridge was made to snoop: %+v, %v", l, err)
	}
	h.Must(t, "ps")
	if l, err := c.Link(h.Bridge()); err != nil || l.Snoops {
		t.Errorf("after the next command the bridge still snoops: %+v, %v", l, err)
	}

	bb, err := netip.ParsePrefix(address(t, h, "bb") + "/16")
	if err != nil {
		t.Fatal(err)
	}
	last := bb.Masked().Addr().As4()
	last[2], last[3] = 255, 255
	for name, to := range map[string]netip.Addr{
		"to everybody":             netip.MustParseAddr("255.255.255.255"),
		"to everybody in its net":  netip.AddrFrom4(last),
		"multicast on the link":    netip.MustParseAddr("224.0.0.251"),
		"multicast":                netip.MustParseAddr("239.1.2.3"),
		"IPv6 to everybody":        netip.MustParseAddr("ff02::1"),
		"IPv6 multicast on a link": netip.MustParseAddr("ff02::fb"),
		"IPv6 multicast":           netip.MustParseAddr("ff05::1234"),
	} {
		var ear, mouth *net.UDPConn
		inside(t, h, "bb", func() (err error) {
			ear, err = listen(to)
			return err
		})
		defer ear.Close()
		var zone string
		inside(t, h, "aa", func() error {
			eth0, err := net.InterfaceByName("eth0")
			if err == nil {
				zone = strconv.Itoa(eth0.Index)
				mouth, err = net.ListenUDP(family(to), nil)
			}
			return err
		})
		defer mouth.Close()
		dest := &net.UDPAddr{IP: to.AsSlice(), Port: ear.LocalAddr().(*net.UDPAddr).Port}
		if to.Is6() {
			dest.Zone = zone
		}
		rig.Eventually(t, name+" arrives", func() bool {
			if _, err := mouth.WriteTo([]byte(name), dest); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			ear.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			got := make([]byte, 100)
			n, _, err := ear.ReadFrom(got)
			return err == nil && string(got[:n]) == name
		})
	}
	h.Must(t, "rm", "-f", "aa", "bb")
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "udp4"
	}
	return "udp6"
}

// listen hears what is sent to a group, or to everybody.
func listen(to netip.Addr) (*net.UDPConn, error) {
	if !to.IsMulticast() {
		return net.ListenUDP(family(to), nil)
	}
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return nil, err
	}
	return net.ListenMulticastUDP(family(to), eth0, &net.UDPAddr{IP: to.AsSlice()})
}

// TestReportsStayAtHome: a thousand neighbours do not read that a container listens to a group of the link, which every
// start says several times over; groups that routers forward are told as ever.
func TestReportsStayAtHome(t *testing.T) {
	h := two(t)
	var said, heard int
	for name, fd := range map[string]*int{"aa": &said, "bb": &heard} {
		inside(t, h, name, func() (err error) {
			all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
			*fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
			return err
		})
		defer unix.Close(*fd)
	}
	join := func(group string) {
		var c *net.UDPConn
		inside(t, h, "aa", func() (err error) {
			c, err = listen(netip.MustParseAddr(group))
			return err
		})
		t.Cleanup(func() { c.Close() }) // to the last, or it is told that nobody listens any more
	}
	var mine, theirs []string
	join("ff02::77")
	rig.Eventually(t, "a report of ff02::77 is sent", func() bool {
		mine = append(mine, reports(t, said)...)
		return slices.Contains(mine, "ff02::77")
	})
	join("ff05::77")
	// The kernel may tell of both at once, once more.
	rig.Eventually(t, "a report of ff05::77 arrives", func() bool {
		theirs = append(theirs, reports(t, heard)...)
		return slices.Contains(theirs, "ff05::77") || slices.Contains(theirs, "ff05::77 ff02::77") || slices.Contains(theirs, "ff02::77 ff05::77")
	})
	if slices.Contains(theirs, "ff02::77") {
		t.Errorf("a neighbour reads of groups of the link: %q", theirs)
	}
	h.Must(t, "rm", "-f", "aa", "bb")
}

// reports reads the MLDv2 reports (RFC 3810) that a packet socket has seen: the groups of each, separated by spaces.
func reports(t *testing.T, fd int) (all []string) {
	t.Helper()
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		// An IPv6 header, eight bytes of options that every report has, and ICMPv6.
		if n < 56 || b[0]>>4 != 6 || b[6] != 0 || b[40] != unix.IPPROTO_ICMPV6 || b[48] != 143 {
			continue
		}
		var groups string
		for rest := b[56:n]; len(rest) >= 20; rest = rest[20:] { // none of these names a source
			if groups != "" {
				groups += " "
			}
			groups += netip.AddrFrom16([16]byte(rest[4:20])).String()
		}
		all = append(all, groups)
	}
}
