package netlink

import "golang.org/x/sys/unix"

// Rule adds a message about a rule of policy routing that looks into table. Its attributes (FRA_) say for what.
func (b *Batch) Rule(what string, typ, flags uint16, family byte, table uint32) *Message {
	f := make([]byte, unix.SizeofRtMsg) // struct fib_rule_hdr is laid out like it
	f[0], f[7] = family, unix.FR_ACT_TO_TBL
	return b.add(what, typ, flags, f).Uint32(unix.FRA_TABLE, table)
}

// Deliver adds a message about the route of table that hands everything to the host itself.
func (b *Batch) Deliver(what string, typ, flags uint16, family byte, table uint32) *Message {
	f := make([]byte, unix.SizeofRtMsg)
	f[0], f[5], f[6], f[7] = family, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL
	const loopback = 1
	return b.add(what, typ, flags, f).Uint32(unix.RTA_TABLE, table).Uint32(unix.RTA_OIF, loopback)
}
