package cgroup

import (
	"fmt"
	"os"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rule allows or denies access to devices. Later rules win, for each kind of access by itself.
type rule struct {
	allow        bool
	kind         byte   // 'b', 'c' or 'a' for both
	major, minor uint32 // wild: all of them
	access       access
}

const wild = ^uint32(0)

// access is a set of read, write and mknod.
type access uint8

const (
	accMknod access = 1 << iota // the bits of BPF_DEVCG_ACC_*
	accRead
	accWrite

	accAll = accMknod | accRead | accWrite
)

func (a access) String() string {
	s := ""
	for _, c := range []struct {
		a access
		s string
	}{{accRead, "r"}, {accWrite, "w"}, {accMknod, "m"}} {
		if a&c.a != 0 {
			s += c.s
		}
	}
	return s
}

// defaultDevices are those that runtime-spec makes every container have, and the making of any node: mknod alone
// gives no access, and unpacking archives does it. They come after the caller's rules, as runc has it.
func defaultDevices() []rule {
	return []rule{
		{true, 'c', wild, wild, accMknod},
		{true, 'b', wild, wild, accMknod},
		{true, 'c', 1, 3, accAll},      // null
		{true, 'c', 1, 5, accAll},      // zero
		{true, 'c', 1, 7, accAll},      // full
		{true, 'c', 1, 8, accAll},      // random
		{true, 'c', 1, 9, accAll},      // urandom
		{true, 'c', 5, 0, accAll},      // tty
		{true, 'c', 5, 1, accAll},      // console
		{true, 'c', 5, 2, accAll},      // ptmx
		{true, 'c', 136, wild, accAll}, // pts/*
	}
}

// parseRules converts runtime-spec's list: nothing is allowed before it, the default devices after it.
func parseRules(list []specs.LinuxDeviceCgroup) ([]rule, error) {
	rules := make([]rule, 0, len(list)+12)
	for _, d := range list {
		r := rule{allow: d.Allow, kind: 'a', access: 0}
		switch d.Type {
		case "", "a":
		case "b", "c":
			r.kind = d.Type[0]
		case "u":
			r.kind = 'c'
		default:
			return nil, errdef.Invalid("invalid device type %q", d.Type)
		}
		var err error
		if r.major, err = deviceNumber(d.Major); err != nil {
			return nil, err
		}
		if r.minor, err = deviceNumber(d.Minor); err != nil {
			return nil, err
		}
		for _, c := range d.Access {
			switch c {
			case 'r':
				r.access |= accRead
			case 'w':
				r.access |= accWrite
			case 'm':
				r.access |= accMknod
			default:
				return nil, errdef.Invalid("invalid device access %q", d.Access)
			}
		}
		if d.Access == "" {
			r.access = accAll
		}
		rules = append(rules, r)
	}
	return append(rules, defaultDevices()...), nil
}

func deviceNumber(n *int64) (uint32, error) {
	switch {
	case n == nil || *n == -1:
		return wild, nil
	case *n < 0 || *n >= int64(wild):
		return 0, errdef.Invalid("invalid device number %d", *n)
	}
	return uint32(*n), nil
}

// setDevices restricts the group to rules. Without any way to do it the caller is warned: then whatever restricts
// the caller itself (the container it runs in, its lack of mknod) restricts the group.
func (g *Group) setDevices(list []specs.LinuxDeviceCgroup) (warnings []string, err error) {
	rules, err := parseRules(list)
	if err != nil {
		return nil, err
	}
	if dir := g.dir("devices"); dir != "" {
		return nil, writeDevices(dir, rules)
	}
	dir := g.unified()
	if dir == "" {
		return []string{"Your kernel does not support device rules or the cgroup is not mounted. Access to devices is not restricted."}, nil
	}
	if allowsAll(rules) {
		rules = nil
	}
	err = attachDevices(dir, rules)
	if err != nil && os.Geteuid() != 0 {
		return nil, nil // no right to load programs, and none to make device nodes either
	}
	return nil, err
}

// allowsAll reports whether rules restrict nothing: everything is allowed at some point and nothing denied after.
func allowsAll(rules []rule) bool {
	whole := false
	for _, r := range rules {
		switch {
		case !r.allow:
			whole = false
		case r.kind == 'a' && r.major == wild && r.minor == wild && r.access == accAll:
			whole = true
		}
	}
	return whole
}

// v1 keeps a default and a list of exceptions from it. Exceptions are added and removed; a hole in an exception
// cannot be expressed, and the kernel silently leaves the exception whole, so such rules are refused here.
type deviceList struct {
	allow      bool // what is not excepted
	exceptions []rule
}

func (l *deviceList) apply(r rule) error {
	if r.major == wild && r.minor == wild && r.kind == 'a' && r.access == accAll {
		*l = deviceList{allow: r.allow}
		return nil
	}
	if r.kind == 'a' { // the kernel takes "a" for everything whatever follows it
		for _, kind := range []byte("bc") {
			r.kind = kind
			if err := l.apply(r); err != nil {
				return err
			}
		}
		return nil
	}
	if r.allow != l.allow {
		l.except(r)
		return nil
	}
	kept := l.exceptions[:0]
	for _, e := range l.exceptions {
		if overlap(e, r) {
			if !covers(r, e) {
				return errdef.Invalid("device rule %s cannot be made an exception of %s with cgroup v1", r, e)
			}
			if e.access &^= r.access; e.access == 0 {
				continue
			}
		}
		kept = append(kept, e)
	}
	l.exceptions = kept
	return nil
}

// except adds r to the exceptions, joined with one of the same devices: the kernel wants one exception to grant
// all of an access.
func (l *deviceList) except(r rule) {
	for i := range l.exceptions {
		e := &l.exceptions[i]
		if e.kind == r.kind && e.major == r.major && e.minor == r.minor {
			e.access |= r.access
			return
		}
	}
	l.exceptions = append(l.exceptions, r)
}

func overlap(a, b rule) bool {
	same := func(x, y uint32) bool { return x == y || x == wild || y == wild }
	return a.kind == b.kind && same(a.major, b.major) && same(a.minor, b.minor) && a.access&b.access != 0
}

// covers reports whether every device of e is one of r.
func covers(r, e rule) bool {
	return (r.major == wild || r.major == e.major) && (r.minor == wild || r.minor == e.minor)
}

// String returns the rule as the v1 files take it.
func (r rule) String() string {
	n := func(v uint32) string {
		if v == wild {
			return "*"
		}
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%c %s:%s %s", r.kind, n(r.major), n(r.minor), r.access)
}

func writeDevices(dir string, rules []rule) error {
	l := deviceList{}
	for _, r := range rules {
		if err := l.apply(r); err != nil {
			return err
		}
	}
	base, exceptions := "/devices.deny", "/devices.allow"
	if l.allow {
		base, exceptions = exceptions, base
	}
	if err := put(dir+base, "a"); err != nil {
		if l.allow && strings.HasSuffix(base, "allow") && isPerm(err) {
			return nil // inside a restricted group: all that the parent has is there already
		}
		return err
	}
	fd, err := open(dir+exceptions, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, e := range l.exceptions {
		if _, err := unix.Write(fd, []byte(e.String())); err != nil {
			return &os.PathError{Op: "write " + quoteShort(e.String()) + " to", Path: dir + exceptions, Err: err}
		}
	}
	return nil
}

func isPerm(err error) bool { return plain(err) == unix.EPERM }
