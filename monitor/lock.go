package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// The lock file has two locked bytes. Byte claimed carries an open file description lock, taken by the process that
// spawns the monitor and inherited by it: there is no moment in which a spawned monitor holds nothing, and two
// spawners never both fork. Byte owner carries a record lock of the monitor itself; F_GETLK tells its pid.
const (
	byteClaim = 0
	byteOwner = 1
)

func byteLock(at int64) unix.Flock_t {
	return unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
}

// claim creates and locks the lock file in dir. ErrConflict: somebody holds it, or the monitor before is just
// removing the directory.
func claim(dir *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), LockFile, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == unix.ENOENT {
		return nil, errdef.Conflict("%s was removed meanwhile", dir.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", LockFile, err)
	}
	f := os.NewFile(uintptr(fd), LockFile)
	lk := byteLock(byteClaim)
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
		f.Close()
		return nil, errdef.Conflict("the container %s has a monitor: %w", filepath.Base(dir.Name()), err)
	}
	// The holder before may have unlinked the file between our open and our lock.
	var mine, there unix.Stat_t
	err = unix.Fstat(fd, &mine)
	if err == nil {
		err = unix.Fstatat(int(dir.Fd()), LockFile, &there, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil || mine.Ino != there.Ino || mine.Dev != there.Dev {
		f.Close()
		return nil, errdef.Conflict("%s was removed meanwhile", dir.Name())
	}
	return f, nil
}

// own marks the inherited lock as this process's, for Alive.
func own(lock *os.File) error {
	lk := byteLock(byteOwner)
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &lk); err != nil {
		return fmt.Errorf("lock %s: %w", LockFile, err)
	}
	return nil
}

// Alive reports whether the container of run directory dir has a monitor, and the monitor's process id. The id is 0
// while the monitor is being spawned, while an engine holds a Claim, and for a pid namespace that cannot be seen
// from here.
func Alive(dir string) (pid int, ok bool) {
	fd, err := unix.Open(filepath.Join(dir, LockFile), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	lk := byteLock(byteClaim)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lk); err != nil || lk.Type == unix.F_UNLCK {
		return 0, false
	}
	lk = byteLock(byteOwner)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lk); err != nil || lk.Type == unix.F_UNLCK {
		return 0, true
	}
	return int(lk.Pid), true
}

// Claim takes the place of the monitor of run directory dir, for an engine that repairs a container whose monitor
// is dead. Until release no monitor is spawned there and no second engine can claim. The error has kind
// ErrConflict when somebody else holds the place.
func Claim(dir string) (release func(), err error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := claim(d)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Clear removes the run directory dir. Only for the monitor itself or the holder of a Claim: the lock goes last, and
// from then on the path may belong to the next monitor.
func Clear(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if e.Name() != LockFile {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	errs = append(errs, os.Remove(filepath.Join(dir, LockFile)))
	err = os.Remove(dir)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, fs.ErrNotExist) {
		err = nil // the next monitor's already
	}
	return errors.Join(append(errs, err)...)
}
