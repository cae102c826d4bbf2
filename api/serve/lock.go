package serve

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// socketLock says that a server has the path of a socket. It is a file of its own beside the socket: the directory is
// perhaps everybody's, and whoever can open that can keep it locked.
type socketLock struct {
	f    *os.File
	path string
}

// lockSocket takes the lock for the socket at path until it is released or this process ends; ErrConflict when another
// server has it.
func lockSocket(path string) (*socketLock, error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lock")
	for {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		l := &socketLock{os.NewFile(uintptr(fd), name), name}
		again, err := l.acquire()
		if err == nil && !again {
			return l, nil
		}
		l.f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// acquire reports again when the file was removed between open and lock, by a server that ended.
func (l *socketLock) acquire() (again bool, err error) {
	var mine, there unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &mine); err != nil {
		return false, &fs.PathError{Op: "stat", Path: l.path, Err: err}
	}
	if mine.Mode&unix.S_IFMT != unix.S_IFREG || int(mine.Uid) != os.Geteuid() {
		return false, errdef.Forbidden("%s is another user's: listen in a directory that is yours alone", l.path)
	}
	if err := unix.Flock(int(l.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return false, errdef.Conflict("another process is about to serve there")
	} else if err != nil {
		return false, &fs.PathError{Op: "lock", Path: l.path, Err: err}
	}
	err = unix.Lstat(l.path, &there)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, &fs.PathError{Op: "stat", Path: l.path, Err: err}
	}
	return err != nil || there.Ino != mine.Ino || there.Dev != mine.Dev, nil
}

// release gives the path free.
func (l *socketLock) release() {
	os.Remove(l.path) // before the lock goes: the next one makes its own
	l.f.Close()
}
