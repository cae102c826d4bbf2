package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// healPause is the least time between two looks: others change links and rules too, many at once.
	healPause = 300 * time.Millisecond
	// healAnyway is how often one looks without having been told, for what the kernel tells nobody about.
	healAnyway = 30 * time.Second
)

// WatchNetwork puts right what somebody does to the bridge, the links and the firewall table, as soon as the kernel tells
// of it, until ctx ends. Without it the next command does. failed is told what could not be put right.
func (e *Engine) WatchNetwork(ctx context.Context, failed func(error)) error {
	if os.Geteuid() != 0 {
		return nil
	}
	links, err := listenNetlink(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	rules, err := listenNetlink(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		links.Close()
		return err
	}
	changed := make(chan struct{}, 1)
	var readers sync.WaitGroup
	readers.Go(func() { tell(links, changed, linkGone) })
	readers.Go(func() { tell(rules, changed, ruleChanged) })
	defer readers.Wait()
	defer links.Close()
	defer rules.Close()
	anyway := time.NewTicker(healAnyway)
	defer anyway.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-anyway.C:
		}
		if err := e.HealNetwork(ctx); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(healPause):
		}
	}
}

// listenNetlink opens a socket that is told what a multicast group is told. It belongs to the network namespace of the
// caller.
func listenNetlink(protocol, group int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen on netlink", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// tell reads f until it is closed, and says on changed when there is a message of interest. What the socket lost because
// there was too much of it counts as one.
func tell(f *os.File, changed chan<- struct{}, interests func(typ uint16) bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		if err == nil && !holdsAny(buf[:n], interests) {
			continue
		}
		select {
		case changed <- struct{}{}:
		default: // it is known already
		}
	}
}

// holdsAny reports whether one of the netlink messages in b is of interest.
func holdsAny(b []byte, interests func(typ uint16) bool) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(b)
		if interests(binary.NativeEndian.Uint16(b[4:])) {
			return true
		}
		size = (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		if size < unix.SizeofNlMsghdr || int(size) > len(b) {
			return false
		}
		b = b[size:]
	}
	return false
}

// linkGone is for links that were removed, changed or taken down; the last two are told as new.
func linkGone(typ uint16) bool { return typ == unix.RTM_DELLINK || typ == unix.RTM_NEWLINK }

// ruleChanged is for what a flush, a delete or somebody's restored rule set takes away, and for chains and rules that come: a
// firewall that is turned on decides about published ports from then on. Elements of sets come and go with every container
// and are not among them.
func ruleChanged(typ uint16) bool {
	if typ>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch typ & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWRULE:
		return true
	}
	return false
}
