package nft

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Generation numbers the transactions of the whole network namespace, anybody's: as long as it is the same, nothing
// in any table has changed. It costs some microseconds, and is not part of a transaction.
func Generation() (uint32, error) {
	n, err := generation()
	if err != nil {
		return 0, fmt.Errorf("ask nftables for its generation: %w", err)
	}
	return n, nil
}

func generation() (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req := make([]byte, 20) // struct nlmsghdr, struct nfgenmsg
	native.PutUint32(req, uint32(len(req)))
	native.PutUint16(req[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	native.PutUint16(req[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	buf := make([]byte, 512)
	n, _, err := unix.Recvfrom(fd, buf, 0) // answered before sendto has returned
	if err != nil {
		return 0, err
	}
	// The number is the first attribute, in network byte order.
	if n < 28 || native.Uint16(buf[4:]) != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || native.Uint16(buf[22:]) != unix.NFTA_GEN_ID {
		return 0, fmt.Errorf("unexpected answer of type %#x", native.Uint16(buf[4:]))
	}
	return uint32(buf[24])<<24 | uint32(buf[25])<<16 | uint32(buf[26])<<8 | uint32(buf[27]), nil
}
