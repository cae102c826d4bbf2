package monitor

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"hull/errdef"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// process is a child of ours: the container's init, or an exec.
type process struct {
	pid   int
	pidfd *os.File // on the poller: waiting costs no thread
	ended chan struct{}
	code  int // valid when ended is closed

	mu  sync.Mutex // protects the following
	tty *os.File   // terminal master; nil when there is none, or no more
}

// newProcess takes over pidfd and tty (nil for none).
func newProcess(pid int, pidfd, tty *os.File) (*process, error) {
	fd, err := onPoller(pidfd, "pidfd")
	if err != nil {
		return nil, err
	}
	return &process{pid: pid, pidfd: fd, tty: tty, ended: make(chan struct{})}, nil
}

// onPoller replaces f by a file of the same name on the poller and closes f.
func onPoller(f *os.File, name string) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", name, err)
	}
	g, err := pollable(fd, name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return g, f.Close()
}

// wait waits until the process has ended and reaps it. The code is 128 and the signal's number for a killed one.
// Called once; others wait for ended.
func (p *process) wait() int {
	raw, err := p.pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool { return p.reap(unix.WNOHANG) })
	}
	if err != nil {
		p.reap(0)
	}
	close(p.ended)
	return p.code
}

// reap reports whether the process has ended. Its pid is safe to use: it is our child, so until it is reaped here
// nobody else has that pid.
func (p *process) reap(flags int) bool {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(p.pid, &ws, flags|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil: // ECHILD: not possible, unless somebody else reaped it
			p.code = 255
		case pid == 0:
			return false
		case ws.Signaled():
			p.code = 128 + int(ws.Signal())
		default:
			p.code = ws.ExitStatus()
		}
		return true
	}
}

// signal sends signal n. The error has kind ErrConflict when the process has ended.
func (p *process) signal(n int) error {
	if err := checkSignal(n); err != nil {
		return err
	}
	err := control(p.pidfd, func(fd int) error {
		return unix.PidfdSendSignal(fd, unix.Signal(n), nil, 0)
	})
	if err == unix.ESRCH || errors.Is(err, os.ErrClosed) {
		return errdef.Conflict("the process has ended")
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

func checkSignal(n int) error {
	if n <= 0 || n > 64 {
		return errdef.Invalid("signal %d does not exist", n)
	}
	return nil
}

// resize sets the size of the terminal.
func (p *process) resize(width, height uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty == nil {
		return errdef.Invalid("the process has no terminal")
	}
	return control(p.tty, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	})
}

// close gives back what the process held here. Call it after wait.
func (p *process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tty = nil // closed by the pump
	p.pidfd.Close()
}

// stdio are the pipes of a process that has no terminal: theirs are given to it, ours are on the poller.
type stdio struct {
	theirs, ours [3]*os.File
}

// makeStdio makes a pipe for each stream that is wanted; the others are left to be /dev/null. The pipes belong to
// the process's user, or it could not open /dev/stdout again.
func makeStdio(want [3]bool, uid, gid int) (p *stdio, err error) {
	p = new(stdio)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for i := range want {
		if !want[i] {
			continue
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return p, fmt.Errorf("make pipe: %w", err)
		}
		r, w := os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
		p.theirs[i], p.ours[i] = w, r
		if i == 0 {
			p.theirs[i], p.ours[i] = r, w
		}
		if err := unix.Fchown(fds[0], uid, gid); err != nil && err != unix.EPERM && err != unix.EINVAL {
			return p, fmt.Errorf("chown pipe: %w", err)
		}
		if p.ours[i], err = onPoller(p.ours[i], "pipe"); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *stdio) closeTheirs() { closeAll(&p.theirs) }

func (p *stdio) close() {
	closeAll(&p.theirs)
	closeAll(&p.ours)
}

func closeAll(files *[3]*os.File) {
	for i, f := range files {
		if f != nil {
			f.Close()
			files[i] = nil
		}
	}
}

// hostIDs are the ids on the host of the user that process p has in the container of spec.
func hostIDs(spec *specs.Spec, p *specs.Process) (uid, gid int) {
	if spec.Linux == nil {
		return int(p.User.UID), int(p.User.GID)
	}
	return hostID(spec.Linux.UIDMappings, p.User.UID), hostID(spec.Linux.GIDMappings, p.User.GID)
}

// hostID maps id out of a user namespace. Without mappings there is none; an id outside them is -1, which chown(2)
// leaves as it is.
func hostID(maps []specs.LinuxIDMapping, id uint32) int {
	if len(maps) == 0 {
		return int(id)
	}
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID)
		}
	}
	return -1
}
