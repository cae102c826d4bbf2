// Package ssh reaches programs on other machines through the system's OpenSSH client, so that a person's keys, agent,
// configuration and known hosts are what they are for ssh itself.
//
//	a, rest, err := ssh.Parse("ssh://ann@build.example:2222/app:1")
//	conn, err := ssh.Dial(ctx, a, ssh.Options{Command: "hull registry serve --stdio", Begins: "\x00"})
//	defer conn.Close()
//	...
//	err = conn.Explain(err)
//
// The connection is the stdin and stdout of the command on the other side. ssh asks its questions (a passphrase, an unknown
// host) on the terminal itself.
//
// Beware: what is in an address reaches the command line of ssh, and a host or user that begins with "-" would be an option
// there (CVE-2017-1000117): only what Parse or Valid let pass is dialed.
package ssh

import (
	"net/netip"
	"strconv"
	"strings"

	"hull/errdef"
)

// Scheme is what addresses begin with.
const Scheme = "ssh://"

// Address is where ssh goes. User and Port are "" for what ssh's own configuration says.
type Address struct {
	User, Host, Port string
}

// Parse reads ssh://[user@]host[:port] and returns what follows, without the slash between them.
func Parse(s string) (a Address, rest string, err error) {
	after, ok := strings.CutPrefix(s, Scheme)
	if !ok {
		return Address{}, "", errdef.Invalid("%q does not begin with %s", s, Scheme)
	}
	where, rest, _ := strings.Cut(after, "/")
	if i := strings.LastIndexByte(where, '@'); i >= 0 {
		a.User, where = where[:i], where[i+1:]
		if name, _, secret := strings.Cut(a.User, ":"); secret {
			// The password is not repeated: errors end up in logs.
			return Address{}, "", errdef.Invalid("the address of %s@%s has a password in it: ssh takes none from there, use a key", name, where)
		}
		if a.User == "" {
			return Address{}, "", errdef.Invalid("%s: no user stands before the @", s)
		}
	}
	a.Host = where
	if inner, ok := strings.CutPrefix(where, "["); ok {
		host, port, closed := strings.Cut(inner, "]")
		addr, err := netip.ParseAddr(host)
		if !closed || err != nil || !addr.Is6() || port != "" && port[0] != ':' {
			return Address{}, "", errdef.Invalid("%s: what stands in brackets has to be an IPv6 address", s)
		}
		a.Host, a.Port = host, strings.TrimPrefix(port, ":")
		if port == ":" {
			return Address{}, "", badPort(s)
		}
	} else if host, port, has := strings.Cut(where, ":"); has {
		if a.Host, a.Port = host, port; port == "" {
			return Address{}, "", badPort(s)
		}
	}
	if err := a.Valid(); err != nil {
		return Address{}, "", errdef.Invalid("%s: %w", s, err)
	}
	return a, rest, nil
}

func badPort(s string) error { return errdef.Invalid("%s: a port is a number from 1 to 65535", s) }

// Valid says what cannot be given to ssh. Names of hosts may be those of a person's configuration.
func (a Address) Valid() error {
	addr, err := netip.ParseAddr(a.Host)
	switch {
	case a.Host == "":
		return errdef.Invalid("no host is named: ssh://[USER@]HOST[:PORT]")
	case err == nil && addr.Is6() && isName(strings.ReplaceAll(a.Host, ":", "")):
	case !isName(a.Host):
		return errdef.Invalid("%q is no name of a host", a.Host)
	}
	if a.User != "" && !isName(strings.ReplaceAll(a.User, "@", "")) {
		return errdef.Invalid("%q is no name of a user", a.User)
	}
	if a.Port != "" {
		if n, err := strconv.ParseUint(a.Port, 10, 16); err != nil || n == 0 || a.Port[0] == '0' || a.Port[0] == '+' {
			return errdef.Invalid("%q is no port: it is a number from 1 to 65535", a.Port)
		}
	}
	return nil
}

// isName holds names to what no shell, no configuration of ssh (%h in a ProxyCommand, CVE-2023-51385) and no option parser
// reads as something else.
func isName(s string) bool {
	if s == "" || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-+%", c) >= 0) {
			return false
		}
	}
	return true
}

// String is the address as Parse reads it.
func (a Address) String() string {
	s := a.Host
	if strings.Contains(s, ":") {
		s = "[" + s + "]"
	}
	if a.User != "" {
		s = a.User + "@" + s
	}
	if a.Port != "" {
		s += ":" + a.Port
	}
	return Scheme + s
}

// Host as ssh's own command line takes it, for what people are told to try.
func (a Address) command() string {
	s := "ssh "
	if a.Port != "" {
		s += "-p " + a.Port + " "
	}
	if a.User != "" {
		s += a.User + "@"
	}
	return s + a.Host
}
