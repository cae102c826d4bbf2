package cli

import (
	"math"
	"strconv"
	"strings"

	"hull/errdef"

	"github.com/docker/go-units"
)

// listFlag is a flag that may be given again.
type listFlag []string

func (l *listFlag) String() string { return "" }
func (l *listFlag) Type() string   { return "list" }
func (l *listFlag) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// split is the list with each value parted at its commas.
func (l *listFlag) split() (out []string) {
	for _, v := range *l {
		out = append(out, strings.Split(v, ",")...)
	}
	return out
}

// mapFlag is a flag of the form name=value that may be given again.
type mapFlag map[string]string

func (m *mapFlag) String() string { return "" }
func (m *mapFlag) Type() string   { return "map" }
func (m *mapFlag) Set(s string) error {
	k, v, _ := strings.Cut(s, "=")
	if k == "" {
		return errdef.Invalid("%q has no name before the =", s)
	}
	if *m == nil {
		*m = mapFlag{}
	}
	(*m)[k] = v
	return nil
}

// bytesFlag is an amount of memory: 512m, 1.5g, 4096.
type bytesFlag int64

func (b *bytesFlag) String() string { return "" }
func (b *bytesFlag) Type() string   { return "bytes" }
func (b *bytesFlag) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return errdef.Invalid("%q is not an amount of memory such as 512m or 1.5g", s)
	}
	*b = bytesFlag(n)
	return nil
}

// swapFlag is an amount of memory, or -1 for no limit.
type swapFlag int64

func (b *swapFlag) String() string { return "" }
func (b *swapFlag) Type() string   { return "bytes" }
func (b *swapFlag) Set(s string) error {
	if s == "-1" {
		*b = -1
		return nil
	}
	return (*bytesFlag)(b).Set(s)
}

// cpusFlag is a decimal number of CPUs, kept in billionths.
type cpusFlag int64

func (c *cpusFlag) String() string { return "" }
func (c *cpusFlag) Type() string   { return "decimal" }
func (c *cpusFlag) Set(s string) error {
	n, err := nanoCPUs(s)
	*c = cpusFlag(n)
	return err
}

func nanoCPUs(s string) (int64, error) {
	whole, part, _ := strings.Cut(s, ".")
	digits := strings.Trim(whole+part, "0123456789") == "" && whole+part != ""
	switch {
	case !digits:
		return 0, errdef.Invalid("%q is not a number of CPUs such as 1.5", s)
	case len(part) > 9:
		return 0, errdef.Invalid("%q is too precise: nine digits after the point are the most", s)
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 9-len(part)), 10, 64)
	if err != nil || n > math.MaxInt64/2 {
		return 0, errdef.Invalid("%q is more CPUs than there can be", s)
	}
	return n, nil
}

// ulimitFlag collects limits, the last of each name.
type ulimitFlag map[string]*units.Ulimit

func (u *ulimitFlag) String() string { return "" }
func (u *ulimitFlag) Type() string   { return "ulimit" }
func (u *ulimitFlag) Set(s string) error {
	l, err := ulimit(s)
	if err != nil {
		return err
	}
	if *u == nil {
		*u = ulimitFlag{}
	}
	(*u)[l.Name] = l
	return nil
}

func (u ulimitFlag) list() []*units.Ulimit {
	var all []*units.Ulimit
	for _, k := range sortedKeys(u) {
		all = append(all, u[k])
	}
	return all
}

// ulimit parses name=soft[:hard]; -1 and unlimited are no limit.
func ulimit(s string) (*units.Ulimit, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return nil, errdef.Invalid("invalid ulimit argument: %s, it has the form nofile=1024:2048", s)
	}
	if !isUlimit(name) {
		return nil, errdef.Invalid("invalid ulimit type: %s", name)
	}
	softText, hardText, two := strings.Cut(value, ":")
	if !two {
		hardText = softText
	}
	soft, err := limitValue(softText)
	if err != nil {
		return nil, errdef.Invalid("invalid ulimit argument: %s: %w", s, err)
	}
	hard, err := limitValue(hardText)
	if err != nil {
		return nil, errdef.Invalid("invalid ulimit argument: %s: %w", s, err)
	}
	if hard != -1 && (soft == -1 || soft > hard) {
		return nil, errdef.Invalid("ulimit soft limit must be less than or equal to hard limit: %s", s)
	}
	return &units.Ulimit{Name: name, Soft: soft, Hard: hard}, nil
}

func limitValue(s string) (int64, error) {
	if s == "unlimited" || s == "-1" {
		return -1, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, errdef.Invalid("%q is not a limit", s)
	}
	return n, nil
}

func isUlimit(name string) bool {
	switch name {
	case "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
		"rtprio", "rttime", "sigpending", "stack":
		return true
	}
	return false
}
