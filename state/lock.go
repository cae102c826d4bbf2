package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
			return nil, errdef.As(errdef.ErrDeadline, fmt.Errorf("%s is in use by another hull process: %w", dir, context.Cause(ctx)))
		case <-time.After(pause):
		}
	}
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
