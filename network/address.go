package network

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Claims is the directory of claimed addresses of the network.
func (s *Store) Claims(n *Network) string { return filepath.Join(s.Run, "networks", n.Name) }

// lastFile remembers the address claimed last. It is a hint: the claims are what counts.
const lastFile = ".last"

// Claim gives whoever has the run directory an address of its own, and the path of the claim. They go round: an address
// given back comes again only after all others, for neighbours and clients may still think of who had it.
func (s *Store) Claim(n *Network, runDir string) (a netip.Addr, claim string, err error) {
	dir := s.Claims(n)
	last, err := openLast(dir)
	if err != nil {
		return a, "", err
	}
	defer last.Close()
	start := n.after(last.read())
	for a = start; ; {
		err := state.Claim(dir, a.String(), runDir)
		if err == nil {
			last.write(a)
			return a, filepath.Join(dir, a.String()), nil
		}
		if !errors.As(err, new(*state.Taken)) {
			return a, "", err
		}
		if a = n.after(a); a == start {
			return a, "", errdef.Unavailable("all addresses of the network %s (%s) are in use", n.Name, n.IPv4.Prefix)
		}
	}
}

// Release gives the address back if the run directory holds it.
func (s *Store) Release(n *Network, a netip.Addr, runDir string) error {
	return state.Release(s.Claims(n), a.String(), runDir)
}

// Held are the claimed addresses with the names of the directories that hold them, the ids of containers. It reads all.
func (s *Store) Held(n *Network) (map[netip.Addr]string, error) {
	dir := s.Claims(n)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[netip.Addr]string, len(entries))
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		if target, alive, err := state.Holder(dir, e.Name()); err == nil && alive {
			out[a] = filepath.Base(target)
		}
	}
	return out, nil
}

// Sweep gives back the addresses of the network with that name whose containers are gone.
func (s *Store) Sweep(name string) error {
	return state.SweepClaims(filepath.Join(s.Run, "networks", name))
}

// after is the address behind a that a container may have; the first one behind the last.
func (n *Network) after(a netip.Addr) netip.Addr {
	p := n.IPv4.Prefix
	a = a.Next()
	if a == broadcast(p) || !p.Contains(a) {
		a = p.Masked().Addr().Next()
	}
	if a == n.IPv4.Gateway {
		return n.after(a)
	}
	return a
}

// hint is an open lastFile.
type hint struct{ fd int }

func openLast(dir string) (hint, error) {
	path := filepath.Join(dir, lastFile)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return hint{}, err
		}
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return hint{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return hint{fd}, nil
}

func (h hint) Close() { unix.Close(h.fd) }

// read returns the address, or one of no network.
func (h hint) read() netip.Addr {
	b := make([]byte, 32)
	n, _ := unix.Pread(h.fd, b, 0)
	a, err := netip.ParseAddr(strings.TrimSpace(string(b[:max(n, 0)])))
	if err != nil || !a.Is4() {
		return netip.IPv4Unspecified()
	}
	return a
}

// write is of one length, so that no reader sees an end of the text before.
func (h hint) write(a netip.Addr) {
	b := []byte(a.String())
	for len(b) < len("255.255.255.255") {
		b = append(b, ' ')
	}
	_, _ = unix.Pwrite(h.fd, b, 0)
}
