package network

import (
	"errors"

	"hull/kernel/netlink"

	"golang.org/x/sys/unix"
)

// Replies has what comes from the bridge device with mark delivered to the host itself, whatever address it is for, or
// no longer: connections that were made in the name of a client elsewhere. It is idempotent.
func Replies(device string, mark uint32, on bool) error {
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		errs = append(errs, replies(c, family, device, mark, on))
	}
	return errors.Join(errs...)
}

// replies does it for one family. The table has the mark's number; its route is everybody's who uses it, and stays.
func replies(c *netlink.Conn, family byte, device string, mark uint32, on bool) error {
	var route, rule netlink.Batch
	typ, flags, done := uint16(unix.RTM_DELRULE), uint16(0), error(unix.ENOENT)
	if on {
		typ, flags, done = unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.EEXIST
		route.Deliver("deliver marked packets to this host", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, family, mark)
		if err := c.Do(&route); err != nil {
			return without6(family, err)
		}
	}
	rule.Rule("route replies of containers to this host", typ, flags, family, mark).
		String(unix.FRA_IIFNAME, device).Uint32(unix.FRA_FWMARK, mark).Uint32(unix.FRA_FWMASK, 0xffffffff)
	if err := c.Do(&rule); err != nil && !errors.Is(err, done) {
		return without6(family, err)
	}
	return nil
}

// without6 is nil for the errors of a host that has no IPv6.
func without6(family byte, err error) error {
	if family == unix.AF_INET6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EACCES)) {
		return nil
	}
	return err
}
