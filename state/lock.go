package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// Locked is a held lock. The kernel frees it with the process that holds it, so no lock is ever stale.
type Locked struct {
	fd int
}

// Lock waits until this process alone holds the directory dir, or until ctx ends: then the error has kind
// errdef.ErrDeadline and the cause of ctx. Locks are flock(2): two Locks of one process exclude each other too.
// Take several in the order of their names.
func Lock(ctx context.Context, dir string) (*Locked, error) {
	return lockContext(ctx, dir, unix.LOCK_EX)
}

// LockShared is Lock that others may hold at the same time, shared too.
func LockShared(ctx context.Context, dir string) (*Locked, error) {
	return lockContext(ctx, dir, unix.LOCK_SH)
}

// TryLock is Lock that does not wait: ok is false when somebody else holds dir.
func TryLock(dir string) (l *Locked, ok bool, err error) {
	l, err = try(dir, unix.LOCK_EX)
	return l, l != nil, err
}

// Unlock gives the lock back.
func (l *Locked) Unlock() { unix.Close(l.fd) }

func lock(dir string, how int, d time.Duration) (*Locked, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return lockContext(ctx, dir, how)
}

// lockContext polls, because a flock that waits cannot be ended from outside without a signal to its thread.
func lockContext(ctx context.Context, dir string, how int) (*Locked, error) {
	for pause := 250 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		l, err := try(dir, how)
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errdef.As(errdef.ErrDeadline, fmt.Errorf("%s is in use by %s: %w", dir, holder(dir), context.Cause(ctx)))
		case <-time.After(pause):
		}
	}
}

// holder says who has the lock on dir, for the person who waited: by /proc/locks, which knows processes of our pid
// namespace only.
func holder(dir string) string {
	const unknown = "another hull process"
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return unknown
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line) // 1: FLOCK ADVISORY WRITE 4711 08:01:131074 0 EOF; who waits has "->" after the number
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file || f[4] == strconv.Itoa(os.Getpid()) {
			continue
		}
		command, err := os.ReadFile("/proc/" + f[4] + "/cmdline")
		if err != nil || len(command) == 0 {
			continue
		}
		return fmt.Sprintf("process %s (%.200q)", f[4], firstWords(string(command)))
	}
	return unknown
}

// firstWords is what says which command it is, of a command line with NULs. What follows may be a secret, and whoever waited
// need not be somebody of this machine who can see it anyway.
func firstWords(command string) string {
	words := strings.Split(strings.TrimRight(command, "\x00"), "\x00")
	n := 1
	for n < min(3, len(words)) && !strings.HasPrefix(words[n], "-") {
		n++
	}
	return strings.Join(words[:n], " ")
}

// try returns nil, nil when dir is held by somebody else.
func try(dir string, how int) (*Locked, error) {
	for {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		err = ignoreEINTR(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
		if err != nil {
			unix.Close(fd)
			if err == unix.EWOULDBLOCK {
				return nil, nil
			}
			return nil, &fs.PathError{Op: "flock", Path: dir, Err: err}
		}
		// The holder before us may have removed or replaced dir: then what we hold is nobody's any more.
		var held, now unix.Stat_t
		err = errors.Join(unix.Fstat(fd, &held), unix.Stat(dir, &now))
		if err == nil && held.Dev == now.Dev && held.Ino == now.Ino {
			return &Locked{fd}, nil
		}
		unix.Close(fd)
	}
}

func ignoreEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
