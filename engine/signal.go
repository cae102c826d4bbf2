package engine

import (
	"strconv"
	"strings"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// The real-time signals that libc leaves to programs; Docker names them so too.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal understands a number, "SIGTERM", "term" and "SIGRTMIN+3".
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, invalidSignal(s)
		}
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	n := realTime(name)
	if n < sigRTMin || n > sigRTMax {
		return 0, invalidSignal(s)
	}
	return n, nil
}

func realTime(name string) int {
	base, op := sigRTMin, 1
	rest, ok := strings.CutPrefix(name, "SIGRTMIN")
	if !ok {
		if rest, ok = strings.CutPrefix(name, "SIGRTMAX"); !ok {
			return 0
		}
		base, op = sigRTMax, -1
	}
	if rest == "" {
		return base
	}
	sign := byte('+')
	if op < 0 {
		sign = '-'
	}
	n, err := strconv.ParseUint(rest[1:], 10, 8)
	if rest[0] != sign || err != nil {
		return 0
	}
	return base + op*int(n)
}

func invalidSignal(s string) error { return errdef.Invalid("invalid signal: %s", clip(s)) }
