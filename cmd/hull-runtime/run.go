package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"

	"hull/errdef"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func run(c *command) error {
	var o createOptions
	var detach, keep bool
	fs := c.flags()
	o.register(fs)
	fs.BoolVar(&detach, "detach", false, "")
	fs.BoolVar(&detach, "d", false, "")
	fs.BoolVar(&keep, "keep", false, "")
	fs.Bool("no-subreaper", false, "") // we never are one
	args, err := c.parse(fs, 1, 1)
	if err != nil {
		return err
	}
	m, err := c.create(args[0], &o, detach)
	if err != nil {
		return err
	}
	err = c.start(m.container)
	var status unix.WaitStatus
	if err == nil {
		if detach {
			return nil
		}
		status, err = foreground(m.container.Pid, m.Pidfd, m.Terminal)
	}
	if err == nil && keep {
		return exitOf(status)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), clearTimeout)
	defer cancel()
	// Without control groups the process is killed by this; with them, Destroy does it too.
	unix.PidfdSendSignal(int(m.Pidfd.Fd()), unix.SIGKILL, nil, 0)
	if err := errors.Join(err, m.remove(ctx)); err != nil {
		return err
	}
	if err := c.hooks(m.container, "poststop", stopped); err != nil {
		c.report("warning", err.Error())
	}
	return exitOf(status)
}

// wait waits for the child pid.
func wait(pid int) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err != unix.EINTR {
			return status, err
		}
	}
}

// exitStatus is the number a shell would report.
func exitStatus(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

func exitOf(s unix.WaitStatus) error {
	if n := exitStatus(s); n != 0 {
		return exitCode(n)
	}
	return nil
}

// foreground stays with a child until it ends: it passes signals on, and the terminal through.
func foreground(pid int, pidfd, terminal *os.File) (unix.WaitStatus, error) {
	signals := make(chan os.Signal, 32)
	signal.Notify(signals)
	var passing sync.WaitGroup
	passing.Go(func() {
		for s := range signals {
			passSignal(s.(unix.Signal), pidfd, terminal)
		}
	})
	var out sync.WaitGroup
	restore := func() {}
	if terminal != nil {
		restore = passTerminal(terminal, &out)
	}
	status, err := wait(pid)
	out.Wait() // the master ends when the last process has closed the terminal
	restore()
	signal.Stop(signals)
	close(signals)
	passing.Wait()
	return status, err
}

func passSignal(s unix.Signal, pidfd, terminal *os.File) {
	switch s {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG: // ours: of children, of closed outputs, of the Go scheduler
	case unix.SIGWINCH:
		if terminal != nil {
			copySize(terminal)
		}
	default:
		unix.PidfdSendSignal(int(pidfd.Fd()), s, nil, 0) // ESRCH: it ends anyway
	}
}

func copySize(terminal *os.File) {
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, size)
	}
}

// passTerminal copies between our stdio and the terminal; out is done at the end of its output.
func passTerminal(terminal *os.File, out *sync.WaitGroup) (restore func()) {
	restore = func() {}
	if old, err := term.MakeRaw(int(os.Stdin.Fd())); err == nil {
		restore = func() { term.Restore(int(os.Stdin.Fd()), old) }
		copySize(terminal)
	}
	// Not waited for: a read of our stdin may never end, and the process exits soon after the terminal.
	go io.Copy(terminal, os.Stdin)
	out.Go(func() { io.Copy(os.Stdout, terminal) }) // EIO at the end, pty(7)
	return restore
}

// sendTerminal passes the master of a terminal to the listener at the unix socket path, as runc's callers expect it:
// its name as the data, the descriptor beside it.
func sendTerminal(path string, terminal *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(path) >= 108 { // sun_path, unix(7)
		return errdef.Invalid("console socket path %q is too long", path)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return &os.PathError{Op: "connect to console socket", Path: path, Err: err}
	}
	err = unix.Sendmsg(fd, []byte("/dev/ptmx"), unix.UnixRights(int(terminal.Fd())), nil, 0)
	return errors.Join(err, terminal.Close())
}
