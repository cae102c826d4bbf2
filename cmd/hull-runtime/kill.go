package main

import (
	"errors"
	"strconv"
	"strings"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

func kill(c *command) error {
	fs := c.flags()
	var all bool
	for _, name := range []string{"all", "a"} {
		fs.BoolVar(&all, name, false, "")
	}
	args, err := c.parse(fs, 1, 2)
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	if len(args) > 1 {
		if sig, err = parseSignal(args[1]); err != nil {
			return err
		}
	}
	k, err := c.load(args[0])
	if err != nil {
		return err
	}
	if all {
		return k.signalAll(sig)
	}
	p, err := k.open()
	if err != nil {
		return errdef.Conflict("container not running")
	}
	defer p.Close()
	if err := unix.PidfdSendSignal(int(p.Fd()), sig, nil, 0); err != nil {
		return err
	}
	if sig != unix.SIGKILL || k.status() != paused {
		return nil
	}
	// A kill of a frozen process waits until it is thawed.
	g, err := k.group()
	if err != nil {
		return err
	}
	return g.Thaw()
}

// signalAll signals every process of the container, also when its first one is gone.
func (k *container) signalAll(sig unix.Signal) error {
	g, err := k.group()
	if err != nil {
		return err
	}
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if sig == unix.SIGKILL {
		return g.Thaw()
	}
	return nil
}

// parseSignal takes "9", "KILL", "SIGKILL", in any case, "RTMIN+1" and "RTMAX-1".
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, errdef.Invalid("unknown signal %q", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	// glibc's numbers: the first two belong to its threads.
	for prefix, base := range map[string]int{"RTMIN": 34, "RTMAX": 64} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if base += n; base >= 34 && base <= 64 {
			return unix.Signal(base), nil
		}
	}
	return 0, errdef.Invalid("unknown signal %q", s)
}
