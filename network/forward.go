package network

import (
	"bytes"
	"os"
	"path/filepath"
)

const ipConf = "/proc/sys/net"

// Forward has the kernel forward packets between devices, without which nobody outside this host and no container reach
// each other. It says which of the two protocols did not before: then nobody else wants this host to be a router, and
// whoever asked has to see to it that it is none (nft.Rules.Closed).
func Forward() (opened4, opened6 bool, err error) {
	if opened4, err = enable(filepath.Join(ipConf, "ipv4/ip_forward")); err != nil {
		return false, false, err
	}
	six := filepath.Join(ipConf, "ipv6/conf/all/forwarding")
	b, err := os.ReadFile(six)
	if os.IsNotExist(err) || err == nil && !bytes.HasPrefix(b, []byte("0")) {
		return opened4, false, nil
	}
	// A host that forwards no longer listens to its routers, unless it is told to: it would lose its own addresses.
	listens, _ := filepath.Glob(filepath.Join(ipConf, "ipv6/conf/*/accept_ra"))
	for _, f := range listens {
		if b, err := os.ReadFile(f); err == nil && bytes.HasPrefix(b, []byte("1")) {
			_ = os.WriteFile(f, []byte("2"), 0) // gone with its device
		}
	}
	opened6, err = enable(six)
	return opened4, opened6, err
}

// enable writes 1 where 0 is.
func enable(file string) (changed bool, err error) {
	b, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(b, []byte("0")) {
		return false, err
	}
	return true, os.WriteFile(file, []byte("1"), 0)
}
