package integration

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/network/nft"
	"hull/test/rig"
)

// lan is a network beside the test's own, as a switch with two more hosts on it:
//
//	this host 192.0.2.1, 2001:db8::1 ──┬── .2, ::2
//	                                   └── .3, ::3
type lan struct{ hosts [2]*host }

// host is a network namespace, as long as its process lives.
type host struct {
	pid  int
	addr string
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := new(lan)
	run(t, "ip", "link", "add", "lan0", "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "lan0").Run() })
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "lan0")
	run(t, "ip", "addr", "add", "2001:db8::1/64", "dev", "lan0", "nodad")
	run(t, "ip", "link", "set", "lan0", "up")
	for i := range l.hosts {
		l.hosts[i] = newHost(t, i)
	}
	return l
}

func newHost(t *testing.T, i int) *host {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	h := &host{pid: cmd.Process.Pid, addr: fmt.Sprintf("192.0.2.%d", i+2)}
	own, _ := os.Readlink("/proc/self/ns/net")
	rig.Eventually(t, "the neighbour has a network", func() bool {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.pid))
		return err == nil && ns != own
	})
	run(t, "ip", "link", "add", fmt.Sprint("lan", i+1), "master", "lan0", "up", "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(h.pid))
	h.must(t, "ip", "link", "set", "lo", "up")
	h.must(t, "ip", "link", "set", "eth0", "up")
	h.must(t, "ip", "addr", "add", h.addr+"/24", "dev", "eth0")
	h.must(t, "ip", "addr", "add", fmt.Sprintf("2001:db8::%d/64", i+2), "dev", "eth0", "nodad")
	return h
}

func (h *host) command(args ...string) *exec.Cmd {
	if path, err := exec.LookPath(args[0]); err == nil {
		args = append([]string{path}, args[1:]...) // busybox's nsenter would take its own ip for a bare name
	}
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(h.pid), "--net"}, args...)...)
}

func (h *host) must(t *testing.T, args ...string) {
	t.Helper()
	if out, err := h.command(args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// ask sends a line to a port, from here or from a neighbour, and returns what comes back: the address that the service
// sees. "" when nothing does.
func ask(from *host, proto, addr string, port int) string {
	script := "exec 3<>/dev/" + proto + "/" + addr + "/" + strconv.Itoa(port) + " && echo hi >&3 && timeout 2 head -n 1 <&3"
	cmd := exec.Command("timeout", "3", "bash", "-c", script)
	if from != nil {
		cmd = from.command(cmd.Args...)
	}
	out, _ := cmd.Output()
	return strings.TrimSpace(string(out))
}

// expect asks until the answer is want; for nothing it asks once.
func expect(t *testing.T, from *host, proto, addr string, port int, want string) {
	t.Helper()
	got := ask(from, proto, addr, port)
	for end := time.Now().Add(rig.Patience(5 * time.Second)); want != "" && got != want && time.Now().Before(end); {
		got = ask(from, proto, addr, port)
	}
	if got != want {
		who := "this host"
		if from != nil {
			who = from.addr
		}
		t.Errorf("%s asks %s port %d of %s: the container sees %q, want %q", who, proto, port, addr, got, want)
	}
}

// echo is the path of the service, built once; test/vm/run brings it built.
var echo = sync.OnceValues(func() (string, error) {
	if path, err := filepath.Abs("echo.bin"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	dir, err := os.MkdirTemp("", "echo-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/echo", "./echo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir + "/echo", nil
})

// boxed is an engine that has made the image box and its network.
func boxed(t *testing.T) *rig.Hull {
	t.Helper()
	h := rig.Engine(t)
	h.Must(t, "run", "--rm", "box", "true")
	h.Mark(t)
	return h
}

// serve runs the service in a container called name, with the ports 80 and 81.
func serve(t *testing.T, h *rig.Hull, name string, options ...string) {
	t.Helper()
	path, err := echo()
	if err != nil {
		t.Skipf("no service to publish: %v", err)
	}
	args := append([]string{"run", "-d", "--name", name, "-v", path + ":/echo:ro"}, options...)
	h.Must(t, append(args, "box", "/echo", "80", "81")...)
}

func TestPublishedPorts(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	serve(t, h, "web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "127.0.0.1:9000:80", "-p", "192.0.2.1:9001:80", "-p", "[2001:db8::1]:9002:80")
	near := l.hosts[0]
	for _, proto := range []string{"tcp", "udp"} {
		expect(t, near, proto, "192.0.2.1", 8080, near.addr)
		expect(t, near, proto, "2001:db8::1", 8080, "2001:db8::2")
		expect(t, nil, proto, "192.0.2.1", 8080, "192.0.2.1")
		for _, loopback := range []string{"127.0.0.1", "::1"} {
			if got := ask(nil, proto, loopback, 8080); got == "" {
				t.Errorf("%s %s is not answered", proto, loopback)
			}
		}
	}
	expect(t, near, "tcp", "192.0.2.1", 9001, near.addr)
	expect(t, near, "tcp", "2001:db8::1", 9002, "2001:db8::2")
	if got := ask(nil, "tcp", "127.0.0.1", 9000); got == "" {
		t.Error("127.0.0.1:9000 is not answered")
	}
	expect(t, near, "tcp", "192.0.2.1", 9000, "")   // published for this host alone
	expect(t, near, "tcp", "192.0.2.1", 81, "")     // not published
	expect(t, nil, "tcp", "127.0.0.1", 9001, "")    // on another address
	expect(t, near, "tcp", "2001:db8::1", 9001, "") // on another family
	// Another container, and the container itself, by the host's address.
	for _, c := range []string{"exec", "run"} {
		args := []string{"exec", "web"}
		if c == "run" {
			args = []string{"run", "--rm", "box"}
		}
		if got := h.Must(t, append(args, "sh", "-c", "echo hi | nc -w 3 192.0.2.1 8080")...); got == "" {
			t.Errorf("%s: the published port is not answered in a container", c)
		}
	}
	h.Must(t, "rm", "-f", "web")
	expect(t, near, "tcp", "192.0.2.1", 8080, "")
}

// TestLANReachesNothingElse: a neighbour that routes to containers' addresses, or speaks to loopback ones.
func TestLANReachesNothingElse(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	serve(t, h, "web", "-p", "127.0.0.1:9000:80", "-p", "8080:80")
	near := l.hosts[0]
	expect(t, near, "tcp", "192.0.2.1", 8080, near.addr) // it serves
	addr := inspect(t, h, "web", "{{(index .NetworkSettings.Networks \"bridge\").IPAddress}}")
	near.must(t, "ip", "route", "add", addr, "via", "192.0.2.1")
	expect(t, near, "tcp", addr, 80, "")
	expect(t, near, "udp", addr, 81, "")
	h.Must(t, "rm", "-f", "web")
}

// TestLoopbackIsLocal: with somebody's route_localnet a neighbour reaches what listens on 127.0.0.1, but not beside us.
func TestLoopbackIsLocal(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	near := l.hosts[0]
	near.must(t, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
	near.must(t, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
	near.must(t, "ip", "route", "add", "127.0.0.0/8", "via", "192.0.2.1", "dev", "eth0", "src", near.addr)
	run(t, "sysctl", "-qw", "net.ipv4.conf.lan0.route_localnet=1")
	service, err := net.Listen("tcp", "127.0.0.1:9001")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go func() {
		for {
			c, err := service.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("open\n"))
			c.Close()
		}
	}()
	if got := ask(near, "tcp", "127.0.0.1", 9001); got != "open" {
		t.Skipf("the attack does not work here without us either: %q", got)
	}
	serve(t, h, "web", "-p", "127.0.0.1:9000:80")
	if ask(nil, "tcp", "127.0.0.1", 9000) == "" {
		t.Error("this host is not answered")
	}
	expect(t, near, "tcp", "127.0.0.1", 9000, "")
	expect(t, near, "tcp", "127.0.0.1", 9001, "")
	h.Must(t, "rm", "-f", "web")
}

func TestPortInUse(t *testing.T) {
	h := boxed(t)
	serve(t, h, "first", "-p", "8080:80")
	r := h.Run(t, "run", "-d", "--name", "second", "-p", "8080:80", "box", "true")
	for _, want := range []string{"driver failed programming external connectivity on endpoint second", "Bind for 0.0.0.0:8080 failed: port is already allocated", "by container first"} {
		if r.Code != 125 || !strings.Contains(r.Stderr, want) {
			t.Errorf("want 125 and %q, got %d and %s", want, r.Code, r.Stderr)
		}
	}
	if got := inspect(t, h, "second", "{{.State.Status}} {{.NetworkSettings.Ports}}"); got != "created map[]" {
		t.Errorf("the refused one is %s", got)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).Port
	r = h.Run(t, "run", "--rm", "-p", fmt.Sprint(port, ":80"), "box", "true")
	if want := fmt.Sprintf("port is already allocated by process exe (pid %d)", os.Getpid()); r.Code != 125 || !strings.Contains(r.Stderr, want) {
		t.Errorf("want %q, got %d and %s", want, r.Code, r.Stderr)
	}
	r = h.Run(t, "run", "--rm", "-p", "203.0.113.9:80:80", "box", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, "no interface of this host has the address") {
		t.Errorf("got %d and %s", r.Code, r.Stderr)
	}
	h.Must(t, "rm", "-f", "first", "second")
}

func TestOneOfManyGetsThePort(t *testing.T) {
	h := boxed(t)
	var work sync.WaitGroup
	var mu sync.Mutex
	won := 0
	n := 50
	if rig.Guest() {
		n = 10
	}
	for range n {
		work.Go(func() {
			r := h.Run(t, "run", "-d", "-p", "8080:80", "-p", "81", "box", "sleep", "1000")
			mu.Lock()
			defer mu.Unlock()
			if r.Code == 0 {
				won++
			} else if !strings.Contains(r.Stderr, "port is already allocated by container") {
				t.Errorf("exit status %d: %s", r.Code, r.Stderr)
			}
		})
	}
	work.Wait()
	if won != 1 {
		t.Errorf("%d got the port", won)
	}
	if n := len(elements(t, h)); n != 4 { // 8080 and a free one, IPv4 and IPv6
		t.Errorf("%d elements: %v", n, elements(t, h))
	}
	h.Must(t, append([]string{"rm", "-f"}, strings.Fields(h.Must(t, "ps", "-aq"))...)...)
}

// elements are the published ports in the engine's tables.
func elements(t *testing.T, h *rig.Hull) []nft.Port {
	t.Helper()
	ports, err := nft.Table{Name: h.Instance()}.Ports()
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// TestHostFirewallDecides: where somebody filters what comes in, published ports obey him, and the container still sees
// its clients.
func TestHostFirewallDecides(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	serve(t, h, "web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "8081:80")
	expect(t, l.hosts[1], "tcp", "192.0.2.1", 8081, l.hosts[1].addr)
	ruleset(t, `table inet strict { chain input { type filter hook input priority 0; policy drop;
		iif lo accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;
		ip saddr 192.0.2.2 tcp dport 8080 accept; ip6 saddr 2001:db8::2 tcp dport 8080 accept; udp dport 8080 accept
	} }`)
	h.Must(t, "ps") // the next command
	near, far := l.hosts[0], l.hosts[1]
	expect(t, near, "tcp", "192.0.2.1", 8080, near.addr)
	expect(t, near, "tcp", "2001:db8::1", 8080, "2001:db8::2")
	expect(t, far, "udp", "192.0.2.1", 8080, far.addr)
	expect(t, far, "tcp", "192.0.2.1", 8080, "")
	expect(t, near, "tcp", "192.0.2.1", 8081, "")
	serve(t, h, "later", "-p", "8082:80")
	expect(t, near, "tcp", "192.0.2.1", 8082, "")
	run(t, "nft", "delete", "table", "inet", "strict")
	h.Must(t, "ps")
	expect(t, far, "tcp", "192.0.2.1", 8080, far.addr)
	expect(t, far, "tcp", "192.0.2.1", 8082, far.addr)
	if out := run(t, "ip", "rule"); strings.Contains(out, h.Bridge()) {
		t.Errorf("a routing rule is left:\n%s", out)
	}
	h.Must(t, "rm", "-f", "web", "later")
}

// ruleset loads rules of somebody else, which end with the test.
func ruleset(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.Command(rig.Tool(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(rules, "} }", "}\n}\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	name := strings.Fields(rules)[2]
	t.Cleanup(func() { exec.Command("nft", "delete", "table", strings.Fields(rules)[1], name).Run() })
}

// TestForwardDropped: a drop in somebody else's chain is final. Docker keeps a chain for others' rules; where there is
// none, published ports work all the same and the person is told what does not.
func TestForwardDropped(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	near := l.hosts[0]
	ipt := rig.Tool(t, "iptables")
	for _, line := range []string{"-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER"} {
		run(t, append([]string{ipt}, strings.Fields(line)...)...)
	}
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "ip", "filter").Run() })
	serve(t, h, "web", "-p", "8080:80")
	expect(t, near, "tcp", "192.0.2.1", 8080, near.addr)
	if len(elements(t, h)) == 0 {
		t.Error("the port is not translated")
	}
	h.Must(t, "exec", "web", "ping", "-c", "1", "-W", "5", near.addr)
	if out := run(t, ipt, "-S", "DOCKER-USER"); strings.Count(out, "-j ACCEPT") != 2 {
		t.Errorf("rules of Docker's chain:\n%s", out)
	}
	h.Must(t, "ps")
	if out := run(t, ipt, "-S", "DOCKER-USER"); strings.Count(out, "-j ACCEPT") != 2 {
		t.Errorf("after another command:\n%s", out)
	}
	h.Must(t, "rm", "-f", "web")
	run(t, "nft", "delete", "table", "ip", "filter")

	ruleset(t, "table inet strict { chain nothing { type filter hook forward priority 0; policy drop; } }")
	path, err := echo()
	if err != nil {
		t.Fatal(err)
	}
	r := h.Run(t, "run", "-d", "--name", "web", "-v", path+":/echo:ro", "-p", "8080:80", "box", "/echo", "80")
	if r.Code != 0 || !strings.Contains(r.Stderr, "chain inet strict nothing drops what is forwarded") {
		t.Errorf("exit status %d, %s", r.Code, r.Stderr)
	}
	expect(t, near, "tcp", "192.0.2.1", 8080, near.addr)
	h.Must(t, "rm", "-f", "web")
}

// TestContainerSpeaksAsItselfOnly: threats A76, A77 and A86.
func TestContainerSpeaksAsItselfOnly(t *testing.T) {
	h := boxed(t)
	serve(t, h, "victim")
	h.Must(t, "run", "-d", "--name", "thief", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "box", "sleep", "1000")
	format := "{{(index .NetworkSettings.Networks \"bridge\").IPAddress}} {{(index .NetworkSettings.Networks \"bridge\").Gateway}}"
	victim, _, _ := strings.Cut(inspect(t, h, "victim", format), " ")
	own, gateway, _ := strings.Cut(inspect(t, h, "thief", format), " ")
	in := func(command string) error {
		r := h.Run(t, "exec", "thief", "sh", "-c", command)
		if r.Code != 0 {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		return nil
	}
	if err := in("ping -c 1 -W 5 " + gateway + " && ping -c 1 -W 5 " + victim); err != nil {
		t.Fatalf("speaking as itself: %v", err)
	}
	mac := func() string { return run(t, "ip", "neigh", "show", victim) }
	expect(t, nil, "tcp", victim, 80, gateway)
	before := mac()
	if err := in("ip addr add " + victim + "/32 dev eth0 && arping -c 2 -w 3 -A -I eth0 " + victim + "; arping -c 2 -w 3 -U -I eth0 " + victim + "; true"); err != nil {
		t.Fatal(err)
	}
	if after := mac(); strings.Fields(after)[4] != strings.Fields(before)[4] {
		t.Errorf("the host believes the thief: %s, before %s", after, before)
	}
	if in("ping -c 1 -W 1 -I "+victim+" "+gateway) == nil {
		t.Error("a packet with the victim's address was answered")
	}
	if in("ip addr del "+victim+"/32 dev eth0; ip addr add 10.99.0.1/32 dev eth0; ping -c 1 -W 1 -I 10.99.0.1 "+gateway) == nil {
		t.Error("a packet with a foreign address was answered")
	}
	if in("ip link set eth0 down; ip link set eth0 address 02:42:01:02:03:04; ip link set eth0 up; ip route add default via "+gateway+"; ping -c 1 -W 1 "+gateway) == nil {
		t.Errorf("%s was answered at a foreign hardware address", own)
	}
	h.Must(t, "rm", "-f", "victim", "thief")
}

// TestTablesHeal: what somebody does to our tables the next command undoes; what a killed monitor held is gone.
func TestTablesHeal(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	near := l.hosts[0]
	serve(t, h, "web", "-p", "8080:80")
	expect(t, near, "tcp", "192.0.2.1", 8080, near.addr)
	for _, damage := range []string{
		"flush ruleset", "delete table inet " + h.Instance(), "delete table bridge " + h.Instance(), "flush chain inet " + h.Instance() + " inbound",
		"flush map inet " + h.Instance() + " published4", "flush set bridge " + h.Instance() + " senders4", "flush set inet " + h.Instance() + " bridges",
		"insert rule inet " + h.Instance() + " inbound accept",
	} {
		before := strings.Count(run(t, "nft", "list", "ruleset"), "\n")
		run(t, append([]string{"nft"}, strings.Fields(damage)...)...)
		h.Must(t, "ps")
		expect(t, near, "tcp", "192.0.2.1", 8080, near.addr)
		if after := strings.Count(run(t, "nft", "list", "ruleset"), "\n"); after != before {
			t.Errorf("after %s: %d lines of rules, %d before", damage, after, before)
		}
	}
	killMonitor(t, monitorOf(t, h, "web"))
	h.Must(t, "ps")
	if e := elements(t, h); len(e) > 0 {
		t.Errorf("left of a killed monitor: %v", e)
	}
	h.Must(t, "rm", "-f", "web")
}

func TestThousandPorts(t *testing.T) {
	h := boxed(t)
	serve(t, h, "many", "-p", "20000-20999:20000-20999")
	// The kernel's hash grows behind our back after so many, and a list taken meanwhile passes over some of them.
	rig.Eventually(t, "all ports are in the table", func() bool { return len(elements(t, h)) == 2000 })
	if got := h.Must(t, "ps", "--format", "{{.Ports}}"); got != "0.0.0.0:20000-20999->20000-20999/tcp, [::]:20000-20999->20000-20999/tcp" {
		t.Errorf("ps: %s", got)
	}
	h.Must(t, "rm", "-f", "many")
	if e := elements(t, h); len(e) > 0 { // of what is removed nothing is listed, however the hash shrinks
		t.Errorf("%d are left", len(e))
	}
}

// TestUDPClientsFollow: a client that goes on sending from one port reaches the next container that has the port.
func TestUDPClientsFollow(t *testing.T) {
	h := boxed(t)
	l := newLAN(t)
	serve(t, h, "one", "-p", "8080:80/udp")
	expect(t, l.hosts[0], "udp", "192.0.2.1", 8080, l.hosts[0].addr)
	script := `exec 3<>/dev/udp/192.0.2.1/8080; n=0; while [ $n -lt 400 ]; do echo hi >&3; if timeout 0.2 head -n 1 <&3 >/dev/null; then echo got; fi; n=$((n+1)); sleep 0.05; done`
	client := l.hosts[0].command("timeout", "60", "bash", "-c", script)
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { client.Process.Kill(); client.Wait() }()
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "rm", "-f", "one")
	for { // what was answered before
		out.(*os.File).SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := lines.ReadString('\n'); err != nil {
			break
		}
	}
	serve(t, h, "two", "-p", "8080:80/udp")
	out.(*os.File).SetReadDeadline(time.Now().Add(rig.Patience(5 * time.Second)))
	if _, err := lines.ReadString('\n'); err != nil {
		t.Errorf("the client that went on sending is not answered: %v", err)
	}
	h.Must(t, "rm", "-f", "two")
}
