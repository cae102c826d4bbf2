package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"hull/kernel/netlink"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// address of a running container.
func address(t *testing.T, h *rig.Hull, name string) string {
	t.Helper()
	return h.Must(t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)
}

// TestBridge: two containers reach each other and the host, by IPv4 and IPv6, with addresses and files of their own.
func TestBridge(t *testing.T) {
	h := rig.Engine(t)
	h.Must(t, "run", "--rm", "--network", "none", "box", "true") // which unpacks it
	h.Mark(t)
	h.Must(t, "run", "-d", "--name", "web", "box", "sh", "-c", "echo hello > /index.html; exec httpd -f -p 80 -h /")
	addr := address(t, h, "web")
	six := h.Must(t, "inspect", "-f", "{{.NetworkSettings.GlobalIPv6Address}}", "web")
	const get = `i=0; until wget -q -O - "$1"; do i=$((i+1)); [ $i -lt 100 ] || exit 1; usleep 50000; done`
	for _, url := range []string{"http://" + addr + "/", "http://[" + six + "]/"} {
		if got := h.Must(t, "run", "--rm", "box", "sh", "-c", get, "sh", url); got != "hello" {
			t.Errorf("from a container, %s: %q", url, got)
		}
	}
	gateway := h.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
	h.Must(t, "run", "--rm", "box", "ping", "-c", "1", "-W", "5", gateway)
	if out, err := exec.Command("busybox", "ping", "-c", "1", "-W", "5", addr).CombinedOutput(); err != nil {
		t.Errorf("from the host: %v\n%s", err, out)
	}
	if hosts := h.Must(t, "exec", "web", "cat", "/etc/hosts"); !strings.Contains(hosts, addr+"\t") || !strings.Contains(hosts, six+"\t") {
		t.Errorf("its hosts are\n%s", hosts)
	}
	if got := h.Must(t, "network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "bridge"); got != "web "+addr+"/16" {
		t.Errorf("in the network: %q", got)
	}
	h.Must(t, "rm", "-f", "web")
}

// TestAddressRace starts 50 containers at once: each has an address of its own, and gives it back.
func TestAddressRace(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	n := 50
	if rig.Guest() {
		n = 6
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			r := h.Run(t, "run", "--rm", "busybox", "busybox", "hostname", "-i")
			mu.Lock()
			defer mu.Unlock()
			if r.Code != 0 {
				t.Errorf("%+v", r)
			}
			seen[strings.TrimSpace(r.Stdout)]++
		})
	}
	wg.Wait()
	if len(seen) != n {
		t.Errorf("want %d addresses, got %v", n, seen)
	}
}

// TestFirewallLeftOver: the next command removes what one that was killed while it wrote about the firewall left.
func TestFirewallLeftOver(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "--rm", "busybox", "true")
	left := filepath.Join(h.RunDir, "firewall", ".tmp-left")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "ps")
	h.Check(t)
}

// TestHealing breaks the network in every way somebody with a root shell can; the next command puts it right and running
// containers reach each other again.
func TestHealing(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "target", "busybox", "sleep", "1000")
	h.Must(t, "run", "-d", "--name", "other", "busybox", "sleep", "1000")
	addr := address(t, h, "target")
	link := h.Links()[0]
	for name, harm := range map[string]func(*netlink.Batch){
		"bridge deleted": func(b *netlink.Batch) {
			b.Link("delete", unix.RTM_DELLINK, 0, netlink.Header{}).String(unix.IFLA_IFNAME, h.Bridge())
		},
		"bridge down": func(b *netlink.Batch) {
			b.Link("take down", unix.RTM_NEWLINK, 0, netlink.Header{Change: unix.IFF_UP}).String(unix.IFLA_IFNAME, h.Bridge())
		},
		"link deleted": func(b *netlink.Batch) {
			b.Link("delete", unix.RTM_DELLINK, 0, netlink.Header{}).String(unix.IFLA_IFNAME, link)
		},
		"link down": func(b *netlink.Batch) {
			b.Link("take down", unix.RTM_NEWLINK, 0, netlink.Header{Change: unix.IFF_UP}).String(unix.IFLA_IFNAME, link)
		},
		"link detached": func(b *netlink.Batch) {
			b.Link("detach", unix.RTM_NEWLINK, 0, netlink.Header{}).String(unix.IFLA_IFNAME, link).Uint32(unix.IFLA_MASTER, 0)
		},
		"address removed": func(b *netlink.Batch) {
			// Addresses belong to the link's life: all are gone when it is down for IPv6, and by request for IPv4.
			removeAddresses(t, h.Bridge(), b)
		},
	} {
		c, err := netlink.Open()
		if err != nil {
			t.Fatal(err)
		}
		var b netlink.Batch
		harm(&b)
		err = c.Do(&b)
		c.Close()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.Must(t, "ps")
		for _, to := range []string{addr, "$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')"} {
			if r := h.Run(t, "exec", "other", "sh", "-c", "ping -c 1 -W 5 "+to); r.Code != 0 {
				t.Errorf("%s: %s is not reached afterwards: %+v", name, to, r)
			}
		}
		if r := h.Run(t, "run", "--rm", "busybox", "busybox", "ping", "-c", "1", "-W", "5", addr); r.Code != 0 {
			t.Errorf("%s: a new container does not reach it afterwards: %+v", name, r)
		}
	}
	h.Must(t, "rm", "-f", "target", "other")
}

func removeAddresses(t *testing.T, device string, b *netlink.Batch) {
	t.Helper()
	c, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	index, err := c.Index(device)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Addresses(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.Index == index && len(a.IP) == 4 {
			b.Address("remove address", unix.RTM_DELADDR, 0, index, a.IP, a.Bits)
		}
	}
}

// TestMonitorOfSharedKilled: whatever of a container on the bridge dies, the next command leaves no link and no claim.
func TestMonitorOfSharedKilled(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "xx", "busybox", "sleep", "1000")
	h.Must(t, "run", "-d", "--name", "yy", "--network", "container:xx", "busybox", "sleep", "1000")
	monitor := parent(t, h, "xx")
	if err := unix.Kill(monitor, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "x is seen to have ended", func() bool {
		return h.Must(t, "inspect", "-f", "{{.State.Status}}", "xx") == "exited"
	})
	// y lives on in the network namespace of x, whose address may be somebody else's soon.
	if links := h.Links(); len(links) > 0 {
		t.Errorf("links are left: %v", links)
	}
	h.Must(t, "exec", "yy", "true")
	h.Must(t, "rm", "-f", "xx", "yy")
}

func parent(t *testing.T, h *rig.Hull, name string) int {
	t.Helper()
	pid := h.Must(t, "inspect", "-f", "{{.State.Pid}}", name)
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nPPid:\t")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSharedNetwork: a container in another's network has its name, files and user ids; it comes back when that one does,
// and says so when it does not run. Nobody gets the ids of a group that has a member.
func TestSharedNetwork(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "run", "-d", "--name", "aa", "--hostname", "alpha", "--add-host", "db:10.9.8.7", "busybox", "sleep", "1000")
	h.Must(t, "run", "-d", "--name", "bb", "--network", "container:aa", "busybox", "sleep", "1000")
	for _, what := range []string{"hostname", "cat /etc/hosts", "cat /etc/resolv.conf", "cat /proc/self/uid_map", "readlink /proc/self/ns/net", "readlink /proc/self/ns/user", "cat /sys/class/net/eth0/address"} {
		args := strings.Fields(what)
		if a, b := h.Must(t, append([]string{"exec", "aa"}, args...)...), h.Must(t, append([]string{"exec", "bb"}, args...)...); a != b {
			t.Errorf("%s: %q in a, %q in b", what, a, b)
		}
	}
	h.Must(t, "exec", "bb", "busybox", "ping", "-c", "1", "-W", "5", address(t, h, "aa"))
	if mode := h.Must(t, "inspect", "-f", "{{.HostConfig.NetworkMode}}", "bb"); !strings.HasPrefix(mode, "container:") || len(mode) != len("container:")+64 {
		t.Errorf("b is in %q", mode)
	}
	ids := strings.Fields(h.Must(t, "exec", "bb", "cat", "/proc/self/uid_map"))[1]
	h.Must(t, "stop", "-t", "0", "aa")
	h.Must(t, "exec", "bb", "true")
	for range 3 {
		if got := strings.Fields(h.Must(t, "run", "--rm", "busybox", "cat", "/proc/self/uid_map")); got[1] == ids {
			t.Errorf("a stranger has the ids of b: %v", got)
		}
	}
	h.Must(t, "stop", "-t", "0", "bb")
	r := h.Run(t, "start", "bb")
	if want := "cannot join network of a non running container: "; r.Code == 0 || !strings.Contains(r.Stderr, want) {
		t.Errorf("want %q, got %+v", want, r)
	}
	h.Must(t, "start", "aa")
	h.Must(t, "start", "bb")
	h.Must(t, "exec", "bb", "busybox", "ping", "-c", "1", "-W", "5", address(t, h, "aa"))
	h.Must(t, "rm", "-f", "aa", "bb")
}

// TestResolvConf follows the host's file until the container changes its own. It runs hull where /etc is a copy.
func TestResolvConf(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	etc := filepath.Join(h.Dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(etc, "resolv.conf")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(host, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	unshare := rig.Tool(t, "unshare")
	h.Through = []string{unshare, "-m", "sh", "-c", "mount --bind " + host + ` /etc/resolv.conf; exec "$@"`, "sh"}
	seen := func() string {
		return strings.ReplaceAll(h.Must(t, "exec", "cc", "grep", "-v", "^#", "/etc/resolv.conf"), "\n", ";")
	}
	write("nameserver 127.0.0.1\nnameserver 10.1.1.1\nsearch a.example b.example\noptions ndots:2\n")
	h.Must(t, "run", "-d", "--name", "cc", "busybox", "sleep", "1000")
	if got, want := seen(), "nameserver 10.1.1.1;search a.example b.example;options ndots:2"; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	write("nameserver 10.2.2.2\n")
	if got, want := seen(), "nameserver 10.2.2.2"; got != want {
		t.Errorf("while it runs: want %q, got %q", want, got)
	}
	h.Must(t, "exec", "cc", "sh", "-c", "echo nameserver 10.3.3.3 > /etc/resolv.conf")
	write("nameserver 10.4.4.4\n")
	if got, want := seen(), "nameserver 10.3.3.3"; got != want {
		t.Errorf("changed by the container: want %q, got %q", want, got)
	}
	h.Must(t, "restart", "-t", "0", "cc")
	if got, want := seen(), "nameserver 10.3.3.3"; got != want {
		t.Errorf("and restarted: want %q, got %q", want, got)
	}
	h.Must(t, "rm", "-f", "cc")
	write("nameserver 127.0.0.1\n")
	if got, want := h.Must(t, "run", "--rm", "busybox", "grep", "-c", "^nameserver 8.8", "/etc/resolv.conf"), "2"; got != want {
		t.Errorf("with nobody to ask: want %s public servers, got %s", want, got)
	}
}

// TestSubnets: engines of one machine have different subnets, and none that the host has a route to.
func TestSubnets(t *testing.T) {
	a, b := rig.Engine(t), rig.Engine(t)
	var subnets []string
	for _, h := range []*rig.Hull{a, b} {
		h.Load(t, rig.Busybox(t))
		h.Must(t, "run", "--rm", "busybox", "true")
		subnets = append(subnets, h.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge"))
	}
	if subnets[0] == subnets[1] {
		t.Errorf("two engines use %s", subnets[0])
	}
	// What b uses is taken while b has no bridge, too; what the host takes meanwhile is given up.
	b.RemoveBridge(t)
	c, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var batch netlink.Batch
	octets := strings.Split(subnets[1], ".")
	second, _ := strconv.Atoi(octets[1])
	first, _ := strconv.Atoi(octets[0])
	batch.Route("route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE, unix.AF_INET, []byte{byte(first), byte(second), 7, 0}, 24).Uint32(unix.RTA_OIF, 1)
	if err := c.Do(&batch); err != nil {
		t.Fatal(err)
	}
	defer func() {
		var undo netlink.Batch
		undo.Route("undo", unix.RTM_DELROUTE, 0, unix.AF_INET, []byte{byte(first), byte(second), 7, 0}, 24).Uint32(unix.RTA_OIF, 1)
		if err := c.Do(&undo); err != nil {
			t.Error(err)
		}
	}()
	b.Must(t, "run", "--rm", "busybox", "true")
	if now := b.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge"); slices.Contains(subnets, now) {
		t.Errorf("it still uses %s, which shadows a route of the host", now)
	}
}

// TestLinkIsolation: a container hears no routers, and its veth's other end is nobody's to move.
func TestLinkIsolation(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	for _, f := range []string{"accept_ra", "accept_redirects"} {
		for _, dev := range []string{"eth0", "all", "default"} {
			path := fmt.Sprintf("/proc/sys/net/ipv6/conf/%s/%s", dev, f)
			if got := h.Must(t, "run", "--rm", "busybox", "cat", path); got != "0" {
				t.Errorf("%s in a container is %s", path, got)
			}
		}
		path := fmt.Sprintf("/proc/sys/net/ipv6/conf/%s/%s", h.Bridge(), f)
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) != "0" {
			t.Errorf("%s of the host is %s", path, b)
		}
	}
	// Without CAP_NET_ADMIN root in the container changes nothing of its link.
	for _, line := range []string{"ip link set eth0 down", "ip addr add 10.0.0.1/8 dev eth0", "ip link set eth0 address 02:00:00:00:00:01", "ip link del eth0"} {
		if r := h.Run(t, "run", "--rm", "busybox", "sh", "-c", line); r.Code == 0 {
			t.Errorf("%s succeeds", line)
		}
	}
}
