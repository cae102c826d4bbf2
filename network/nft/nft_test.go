package nft_test

import (
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"hull/network/nft"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// inNamespace runs the rest of t in a network namespace of its own, on a thread that ends with the test.
func inNamespace(t *testing.T) {
	t.Helper()
	rig.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, name string) string {
	t.Helper()
	var out strings.Builder
	for _, family := range []string{"inet", "bridge"} {
		b, err := exec.Command(rig.Tool(t, "nft"), "list", "table", family, name).CombinedOutput()
		if err != nil {
			t.Fatalf("nft list table %s %s: %v\n%s", family, name, err, b)
		}
		out.Write(b)
	}
	return out.String()
}

func port(id, proto, host, to string) nft.Port {
	return nft.Port{ID: id, Proto: proto, Host: netip.MustParseAddrPort(host), To: netip.MustParseAddrPort(to)}
}

func sample() *nft.Rules {
	addr := netip.MustParseAddr("172.30.0.2")
	return &nft.Rules{
		Bridges: []nft.Bridge{{Name: "hull0", Ports: "hv", Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/16"), netip.MustParsePrefix("fd00:9::1/64")}}},
		Ports: []nft.Port{
			port("aaa", "tcp", "0.0.0.0:8080", "172.30.0.2:80"),
			port("aaa", "udp", "192.0.2.1:53", "172.30.0.2:5353"),
			port("bbb", "tcp", "[::]:8080", "[fd00:9::2]:80"),
			port("bbb", "tcp", "[2001:db8::1]:443", "[fd00:9::2]:443"),
			port("bbb", "tcp", "127.0.0.1:9000", "172.30.0.2:9000"), // a listener's alone
		},
		Senders: []nft.Sender{
			{MAC: [6]byte{2, 0x42, 172, 30, 0, 2}, Addr: addr, Group: addr},
			{ID: "bbb", MAC: [6]byte{2, 0x42, 172, 30, 0, 2}, Addr: netip.MustParseAddr("fd00:9::2"), Group: addr},
		},
		Relay: true,
	}
}

func TestReplaceAndRead(t *testing.T) {
	inNamespace(t)
	tab := nft.Table{Name: "hull-test"}
	if _, err := tab.Ports(); !strings.Contains(err.Error(), "no such file") {
		t.Errorf("ports of no table: %v", err)
	}
	for range 2 { // whatever was there
		if err := tab.Replace(sample()); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, tab.Name); !strings.Contains(got, `elements = { "hull0" }`) {
		t.Errorf("nft does not print the bridge:\n%s", got)
	}
	want := sample().Ports[:4]
	got, err := tab.Ports()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range want {
		if !slices.Contains(got, p) {
			t.Errorf("want %v in %v", p, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("want %d ports, got %v", len(want), got)
	}
	if err := tab.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := tab.Remove(); err != nil {
		t.Errorf("remove again: %v", err)
	}
}

func TestPublishTakesOverAndWithdrawsOwnOnly(t *testing.T) {
	inNamespace(t)
	tab := nft.Table{Name: "hull-test"}
	if err := tab.Replace(&nft.Rules{}); err != nil {
		t.Fatal(err)
	}
	old, other := port("aaa", "tcp", "0.0.0.0:80", "172.30.0.2:80"), port("aaa", "tcp", "0.0.0.0:81", "172.30.0.2:81")
	if err := tab.Publish([]nft.Port{old, other}); err != nil {
		t.Fatal(err)
	}
	taken := port("bbb", "tcp", "0.0.0.0:80", "172.30.0.3:80")
	if err := tab.Publish([]nft.Port{taken}); err != nil {
		t.Fatal(err)
	}
	gone, err := tab.Withdraw("aaa")
	if err != nil || !slices.Equal(gone, []nft.Port{other}) {
		t.Errorf("withdrew %v, %v; want the one that nobody took over", gone, err)
	}
	if got, err := tab.Ports(); err != nil || !slices.Equal(got, []nft.Port{taken}) {
		t.Errorf("left %v, %v", got, err)
	}
	if gone, err := tab.Withdraw("aaa"); err != nil || len(gone) > 0 {
		t.Errorf("withdraw again: %v, %v", gone, err)
	}
}

// rules are the chains of a listing, without the sets.
func rules(listing string) string {
	var out strings.Builder
	for block := range strings.SplitSeq(listing, "\n\n") {
		if strings.HasPrefix(strings.TrimSpace(block), "chain ") {
			out.WriteString(block + "\n")
		}
	}
	return out.String()
}

func TestThousandPorts(t *testing.T) {
	inNamespace(t)
	tab := nft.Table{Name: "hull-test"}
	if err := tab.Replace(sample()); err != nil {
		t.Fatal(err)
	}
	before := rules(list(t, tab.Name))
	var ports []nft.Port
	for i := range 1000 {
		ports = append(ports, nft.Port{ID: "ccc", Proto: "tcp", Host: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(20000+i)),
			To: netip.AddrPortFrom(netip.MustParseAddr("172.30.0.4"), uint16(i+1))})
	}
	if err := tab.Publish(ports); err != nil {
		t.Fatal(err)
	}
	got, err := tab.Ports()
	if err != nil || len(got) != 1004 {
		t.Fatalf("%d ports, %v", len(got), err)
	}
	if now := rules(list(t, tab.Name)); now != before {
		t.Errorf("a thousand ports made rules of their own:\n%s\nbefore:\n%s", now, before)
	}
	gone, err := tab.Withdraw("ccc")
	if err != nil || len(gone) != 1000 {
		t.Errorf("withdrew %d, %v", len(gone), err)
	}
}

func TestGeneration(t *testing.T) {
	inNamespace(t)
	tab := nft.Table{Name: "hull-test"}
	if err := tab.Replace(&nft.Rules{}); err != nil {
		t.Fatal(err)
	}
	a, err := nft.Generation()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := nft.Generation(); err != nil || a != b {
		t.Errorf("asking changed it: %d, %d, %v", a, b, err)
	}
	if err := tab.Publish([]nft.Port{port("aaa", "tcp", "0.0.0.0:80", "172.30.0.2:80")}); err != nil {
		t.Fatal(err)
	}
	if b, err := nft.Generation(); err != nil || b != a+1 {
		t.Errorf("after one transaction: %d, want %d, %v", b, a+1, err)
	}
}

func BenchmarkGeneration(b *testing.B) {
	for b.Loop() {
		if _, err := nft.Generation(); err != nil {
			b.Fatal(err)
		}
	}
}
