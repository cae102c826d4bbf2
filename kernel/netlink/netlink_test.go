package netlink

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLoopback asks for what every namespace has.
func TestLoopback(t *testing.T) {
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Link("lo")
	if err != nil || l.Name != "lo" || l.Index == 0 || l.Flags&unix.IFF_LOOPBACK == 0 {
		t.Errorf("lo is %+v, %v", l, err)
	}
	all, err := c.Links()
	if err != nil || len(all) == 0 {
		t.Errorf("links: %v, %v", all, err)
	}
	if _, err := c.Link("nosuch0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a missing link: %v", err)
	}
	// The answers of a refused request are not taken for those of the next one.
	if l, err := c.Link("lo"); err != nil || l.Name != "lo" {
		t.Errorf("after a refusal: %+v, %v", l, err)
	}
}

// TestBatch: the first refusal is the error, the messages behind it are carried out, and nothing is left to read.
func TestBatch(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, err := newNet(t)
	if err != nil {
		t.Fatal(err)
	}
	err = In(int(ns.Fd()), func() error {
		c, err := Open()
		if err != nil {
			return err
		}
		defer c.Close()
		var b Batch
		b.Link("take nosuch0 up", unix.RTM_NEWLINK, 0, Header{Index: 4711, Flags: unix.IFF_UP, Change: unix.IFF_UP})
		b.Link("take lo up", unix.RTM_NEWLINK, 0, Header{Index: 1, Flags: unix.IFF_UP, Change: unix.IFF_UP})
		var refused *Error
		if err := c.Do(&b); !errors.As(err, &refused) || refused.What != "take nosuch0 up" {
			t.Errorf("the error is %v", err)
		}
		if l, err := c.Link("lo"); err != nil || l.Flags&unix.IFF_UP == 0 {
			t.Errorf("lo is %+v, %v", l, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// newNet is a network namespace, made by a thread that ends in it.
func newNet(t *testing.T) (*os.File, error) {
	t.Helper()
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	var ns *os.File
	err = In(int(home.Fd()), func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if ns != nil {
		t.Cleanup(func() { ns.Close() })
	}
	return ns, err
}

// FuzzAttributes reads what no kernel sends.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 3, 0, 'l', 'o', 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		Attributes(p, func(_ uint16, v []byte) { Text(v) })
		readLink(p)
	})
}
