package monitor

import (
	"errors"
	"os"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// OpenProcess returns a pidfd of the first process of the container in stateDir; ErrConflict says that it does not run.
func OpenProcess(stateDir string) (*os.File, error) {
	ended := errdef.Conflict("the container is not running")
	st, err := ReadState(stateDir)
	if err != nil {
		return nil, err
	}
	if st.Status != StatusRunning {
		return nil, ended
	}
	fd, err := unix.PidfdOpen(st.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, ended
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	// The pid may have been given to another process before; if it is the right one now, the descriptor is of it.
	if !st.Running() {
		unix.Close(fd)
		return nil, ended
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}
