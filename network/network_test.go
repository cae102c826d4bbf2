package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

func store(t *testing.T) (*Store, *Network) {
	t.Helper()
	dir := t.TempDir()
	s := &Store{Root: dir, Run: filepath.Join(dir, "run"), Device: "hull-test"}
	n := &Network{Name: Bridge, Device: s.Device, IPv4: subnet(netip.MustParsePrefix("172.24.0.0/29")), IPv6: subnet(netip.MustParsePrefix("fd00:1::/64"))}
	return s, n
}

// TestClaim gives every address of a small network to somebody, at once, and none twice or that is not a container's.
func TestClaim(t *testing.T) {
	s, n := store(t)
	holder := func(i int) string {
		dir := filepath.Join(s.Run, "containers", strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for i := range 5 { // .2 to .6: .0, the gateway's .1 and .7 are nobody's
		dir := holder(i)
		wg.Go(func() {
			a, _, err := s.Claim(n, dir)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[a] != "" || !n.IPv4.Prefix.Contains(a) || a == n.IPv4.Gateway {
				t.Errorf("claimed %v, %v, held by %q", a, err, seen[a])
			}
			seen[a] = dir
		})
	}
	wg.Wait()
	if _, _, err := s.Claim(n, holder(9)); err == nil {
		t.Error("a full network gives an address")
	}
	for a, dir := range seen {
		if err := s.Release(n, a, dir); err != nil {
			t.Error(err)
		}
	}
	// In turn: what was given back comes again only after all others.
	first, _, err := s.Claim(n, holder(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(n, first, holder(0)); err != nil {
		t.Fatal(err)
	}
	if next, _, err := s.Claim(n, holder(0)); err != nil || next == first {
		t.Errorf("after %v comes %v, %v", first, next, err)
	}
}

// TestStaleClaim: the address of a container that is gone is free.
func TestStaleClaim(t *testing.T) {
	s, n := store(t)
	dir := filepath.Join(s.Run, "containers", "gone")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, claim, err := s.Claim(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := s.Held(n); err != nil || held[a] != "gone" {
		t.Errorf("held: %v, %v", held, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if held, err := s.Held(n); err != nil || len(held) > 0 {
		t.Errorf("held after it has gone: %v, %v", held, err)
	}
	if err := s.Sweep(n.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(claim); !os.IsNotExist(err) {
		t.Errorf("the claim is still there: %v", err)
	}
}

func TestPool(t *testing.T) {
	var got []string
	for p := range (Pool{netip.MustParsePrefix("10.254.0.0/15"), 16}).subnets() {
		got = append(got, p.String())
	}
	if len(got) != 2 || got[0] != "10.254.0.0/16" || got[1] != "10.255.0.0/16" {
		t.Errorf("subnets: %v", got)
	}
	used := []netip.Prefix{netip.MustParsePrefix("10.254.3.0/24")}
	if !overlaps(used, netip.MustParsePrefix("10.254.0.0/16")) || overlaps(used, netip.MustParsePrefix("10.255.0.0/16")) {
		t.Error("overlaps is wrong")
	}
	for p := range (Pool{netip.MustParsePrefix("255.254.0.0/15"), 16}).subnets() {
		got = append(got, p.String()) // ends, although nothing comes behind the last address
	}
	if len(got) != 4 {
		t.Errorf("at the end of all addresses: %v", got)
	}
}

func TestIn6(t *testing.T) {
	_, n := store(t)
	if got := n.In6(netip.MustParseAddr("172.24.1.2")).String(); got != "fd00:1::ac18:102" {
		t.Errorf("got %s", got)
	}
	if got := MAC(netip.MustParseAddr("172.24.1.2")); got != [6]byte{2, 0x42, 172, 24, 1, 2} {
		t.Errorf("got %x", got)
	}
}
