package config

import (
	"cmp"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/ref"
)

// logDrivers are those the monitor writes to.
var logDrivers = [...]string{"json-file", "local", "none", "journald", "syslog"}

// Each of these reads a value of one kind.

func (v *value) str(to *string) error {
	if v.kind != isString {
		return mistakeAt(v, "want a text in quotes, not %s", v)
	}
	*to = v.text
	return nil
}

// checked is str of what the check takes.
func (v *value) checked(to *string, check func(string) error) error {
	var s string
	if err := v.str(&s); err != nil {
		return err
	}
	if err := check(s); err != nil {
		return mistakeAt(v, "%v", err)
	}
	*to = s
	return nil
}

func (v *value) oneOf(to *string, words []string) error {
	return v.checked(to, func(s string) error {
		if !slices.Contains(words, s) {
			return mistake("want one of %s, not %q", strings.Join(words, ", "), s)
		}
		return nil
	})
}

func (v *value) flag(to *bool) error {
	if v.kind != isBool {
		return mistakeAt(v, "want true or false, not %s", v)
	}
	*to = v.text == "true"
	return nil
}

// number reads a whole number within bounds, which is not 0.
func number[T int | int64](v *value, to *T, least, most int64) error {
	n, err := strconv.ParseInt(v.text, 0, 64)
	if v.kind != isInt || err != nil || n < least || n > most || n == 0 {
		return mistakeAt(v, "want a whole number from %d to %d, not %s", least, most, v)
	}
	*to = T(n)
	return nil
}

// strings reads a list of texts that the check takes.
func (v *value) strings(to *[]string, check func(string) error) error {
	if v.kind != isList {
		return mistakeAt(v, "want a list of texts, not %s", v)
	}
	out := []string{}
	for _, x := range v.list {
		var s string
		if err := x.checked(&s, check); err != nil {
			return err
		}
		out = append(out, s)
	}
	*to = out
	return nil
}

// texts reads a table of texts; numbers and booleans are taken for their texts.
func (v *value) texts(to *map[string]string) error {
	if v.kind != isTable {
		return mistakeAt(v, "want a table of texts, not %s", v)
	}
	out := map[string]string{}
	for _, m := range v.members {
		if m.value.kind > isBool {
			return mistakeAt(m.value, "%s: want a text in quotes, not %s", m.name, m.value)
		}
		out[m.name] = m.value.text
	}
	*to = out
	return nil
}

// fields reads a table with these members and no others; names are compared without regard to case, as Docker does.
func (v *value) fields(want ...string) ([]*value, error) {
	if v.kind != isTable {
		return nil, mistakeAt(v, "want {%s}, not %s", strings.Join(want, ", "), v)
	}
	out := make([]*value, len(want))
	for _, m := range v.members {
		i := slices.IndexFunc(want, func(w string) bool { return strings.EqualFold(w, m.name) })
		if i < 0 {
			return nil, mistakeAt(m.value, "unknown key %s: want {%s}", m.name, strings.Join(want, ", "))
		}
		out[i] = m.value
	}
	return out, nil
}

func (v *value) address(to *netip.Prefix) error {
	p, err := netip.ParsePrefix(v.text)
	if v.kind != isString || err != nil || !p.Addr().Is4() || p.Addr() == p.Masked().Addr() || p.Addr().IsMulticast() {
		return mistakeAt(v, "want the IPv4 address of a host in its network, as 172.30.0.1/16, not %s", v)
	}
	*to = p
	return nil
}

func (v *value) addr(to *netip.Addr) error {
	a, err := netip.ParseAddr(v.text)
	if v.kind != isString || err != nil || a.Zone() != "" {
		return mistakeAt(v, "want an address, not %s", v)
	}
	*to = a
	return nil
}

func (v *value) pools(to *[]Pool) error {
	if v.kind != isList {
		return mistakeAt(v, "want a list of {base, size}, not %s", v)
	}
	var out []Pool
	for _, x := range v.list {
		f, err := x.fields("base", "size")
		if err != nil {
			return err
		}
		if f[0] == nil || f[1] == nil {
			return mistakeAt(x, "a pool needs base and size")
		}
		p := Pool{}
		base, err := netip.ParsePrefix(f[0].text)
		if f[0].kind != isString || err != nil {
			return mistakeAt(f[0], "base: want a range of addresses, as 172.30.0.0/16, not %s", f[0])
		}
		if p.Base = base.Masked(); p.Base != base {
			return mistakeAt(f[0], "base: %s has bits behind its length: did you mean %s?", base, p.Base)
		}
		if err := number(f[1], &p.Size, int64(base.Bits()), int64(base.Addr().BitLen())-2); err != nil {
			return say("size", err)
		}
		for _, o := range out {
			if o.Base.Overlaps(p.Base) {
				return mistakeAt(x, "%s overlaps %s", p.Base, o.Base)
			}
		}
		out = append(out, p)
	}
	*to = out
	return nil
}

// ulimits reads a table by name.
func (v *value) ulimits(to *[]Ulimit) error {
	if v.kind != isTable {
		return mistakeAt(v, "want a table of limits, not %s", v)
	}
	var out []Ulimit
	for _, m := range v.members {
		if !slices.Contains(LimitNames[:], m.name) {
			return mistakeAt(m.value, "there is no limit %s: want one of %s", m.name, strings.Join(LimitNames[:], ", "))
		}
		u, err := m.value.ulimit(m.name)
		if err != nil {
			return say(m.name, err)
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b Ulimit) int { return cmp.Compare(a.Name, b.Name) })
	*to = out
	return nil
}

func (v *value) ulimit(name string) (Ulimit, error) {
	soft, hard := v.text, v.text
	switch v.kind {
	case isString:
		if s, h, two := strings.Cut(v.text, ":"); two {
			soft, hard = s, h
		}
	case isTable:
		f, err := v.fields("soft", "hard", "name")
		if err != nil {
			return Ulimit{}, err
		}
		if f[0] == nil || f[1] == nil {
			return Ulimit{}, mistakeAt(v, "a limit needs soft and hard")
		}
		soft, hard = f[0].text, f[1].text
	case isInt:
	default:
		return Ulimit{}, mistakeAt(v, "want a number or \"SOFT:HARD\", not %s", v)
	}
	u := Ulimit{Name: name}
	for _, n := range []struct {
		to   *int64
		text string
	}{{&u.Soft, soft}, {&u.Hard, hard}} {
		var err error
		if *n.to, err = strconv.ParseInt(n.text, 10, 64); err != nil || *n.to < -1 {
			return u, mistakeAt(v, "%q is no limit: want a whole number, or -1 for unlimited", n.text)
		}
	}
	if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
		return u, mistakeAt(v, "the soft limit %d is above the hard limit %d", u.Soft, u.Hard)
	}
	return u, nil
}

// runtimes reads a table by name.
func (v *value) runtimes(to *[]Runtime) error {
	if v.kind != isTable {
		return mistakeAt(v, "want a table of runtimes, not %s", v)
	}
	var out []Runtime
	for _, m := range v.members {
		r := Runtime{Name: m.name}
		if err := checkRuntimeName(m.name); err != nil {
			return mistakeAt(m.value, "%v", err)
		}
		if m.name == OwnRuntime {
			return mistakeAt(m.value, "%s is Hull's own runtime: give yours another name", m.name)
		}
		f, err := m.value.fields("path", "args", "runtimeArgs") // the last is Docker's word
		if err != nil {
			return say(m.name, err)
		}
		if f[0] == nil {
			return mistakeAt(m.value, "%s: a runtime needs a path", m.name)
		}
		if err := f[0].checked(&r.Path, checkProgram); err != nil {
			return say(m.name+".path", err)
		}
		if args := cmp.Or(f[1], f[2]); args != nil {
			if err := args.strings(&r.Args, checkLine); err != nil {
				return say(m.name+".args", err)
			}
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Runtime) int { return cmp.Compare(a.Name, b.Name) })
	*to = out
	return nil
}

// duration reads "1m30s", or a number of seconds.
func (v *value) duration(to **time.Duration, forever bool) error {
	var d time.Duration
	var err error
	switch v.kind {
	case isString:
		d, err = time.ParseDuration(v.text)
	case isInt:
		var n int64
		n, err = strconv.ParseInt(v.text, 0, 32)
		d = time.Duration(n) * time.Second
	}
	if v.kind > isInt || err != nil || d < 0 && !forever {
		return mistakeAt(v, "want a duration, as \"10s\" or \"5m\", or a number of seconds, not %s", v)
	}
	*to = &d
	return nil
}

// age reads how long ago something was: as durations, and in days and weeks.
func (v *value) age(to **time.Duration) error {
	if v.kind == isString {
		if d, ok := ref.ParseAge(v.text); ok {
			*to = &d
			return nil
		}
	}
	return mistakeAt(v, "want an age, as \"14d\" or \"12h\", not %s", v)
}

// size reads bytes: a number, or "64m", "20GB" in powers of 1024.
func (v *value) size(to *int64) error {
	num, shift := v.text, 0
	if v.kind == isString && num != "" {
		num = strings.TrimSuffix(strings.TrimSuffix(num, "B"), "b")
	}
	if v.kind == isString && num != "" {
		if i := strings.IndexByte("kmgt", num[len(num)-1]|0x20); i >= 0 {
			num, shift = num[:len(num)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if v.kind > isInt || err != nil || n < 1 || n > 1<<62>>shift {
		return mistakeAt(v, "want a size, as \"64m\", not %s", v)
	}
	*to = n << shift
	return nil
}

// Each of these refuses a text.

func checkLine(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return mistake("%q has control characters", s)
	}
	return nil
}

func checkWord(s string) error {
	if s == "" || strings.ContainsAny(s, " #;") {
		return mistake("%q is not one word", s)
	}
	return checkLine(s)
}

func checkAddr(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		return mistake("%q is no address", s)
	}
	return nil
}

func checkProxy(s string) error {
	u, err := url.Parse(s)
	if err == nil && u.Host == "" {
		u, err = url.Parse("http://" + s) // as the Go library and curl take it
	}
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return mistake("%q is no URL of a proxy: want http://HOST:PORT", HidePassword(s))
	}
	return checkLine(s)
}

func checkRegistry(s string) error {
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	if strings.Contains(s, "://") {
		return mistake("%q: want HOST[:PORT] without http://", s)
	}
	u, err := url.Parse("//" + s)
	if err != nil || u.Host != s || u.Hostname() == "" || u.User != nil {
		return mistake("%q is neither HOST[:PORT] nor a range of addresses", s)
	}
	return checkWord(s)
}

func checkMirror(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return mistake("%q is no URL of a registry: want https://HOST[:PORT]", HidePassword(s))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return mistake("%q: a mirror's URL has no user, query or fragment", HidePassword(s))
	}
	return nil
}

func checkRuntimeName(s string) error {
	ok := s != ""
	for _, c := range []byte(s) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.' || c == '_')
	}
	if !ok {
		return mistake("%q is no name of a runtime: letters, digits and -._ are allowed", s)
	}
	return nil
}

func checkProgram(s string) error {
	if s == "" || strings.Contains(s, "/") && !path.IsAbs(s) {
		return mistake("%q is no program: want an absolute path, or a name to be found in PATH", s)
	}
	return checkLine(s)
}

func checkRestart(s string) error {
	name, count, limited := strings.Cut(s, ":")
	switch n, err := strconv.Atoi(count); {
	case limited && name == "on-failure" && err == nil && n >= 0:
	case !limited && slices.Contains([]string{"no", "always", "unless-stopped", "on-failure"}, name):
	default:
		return mistake("%q is no restart policy: want no, on-failure[:N], always or unless-stopped", s)
	}
	return nil
}

func checkCgroup(s string) error {
	if s == "" || slices.Contains(strings.Split(s, "/"), "..") {
		return mistake("%q is no control group", s)
	}
	return checkLine(s)
}

func checkLabel(s string) error {
	if k, _, ok := strings.Cut(s, "="); !ok || k == "" {
		return mistake("%q: want NAME=VALUE", s)
	}
	return checkLine(s)
}
