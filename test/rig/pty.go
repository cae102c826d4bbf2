package rig

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a program that runs on a pseudo-terminal, driven by a test.
type Terminal struct {
	t      testing.TB
	cmd    *exec.Cmd
	master *os.File
	exited chan error

	mu   sync.Mutex // protects the following
	seen []byte     // all output so far
	at   int        // where the next Expect looks from
}

// Pty starts cmd as the leader of a session on a new terminal of 80 by 24. It is killed when t ends.
func Pty(t testing.TB, cmd *exec.Cmd) *Terminal {
	t.Helper()
	// Not blocking, so that Close ends a read whoever else has the terminal open.
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &Terminal{t: t, cmd: cmd, master: master, exited: make(chan error, 1)}
	var n int
	p.control(func(fd int) (err error) { n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); return err })
	p.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) })
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	p.Resize(80, 24)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(p.read)
	go func() { p.exited <- cmd.Wait() }() // ends with the process, which the cleanup kills
	t.Cleanup(func() {
		cmd.Process.Kill()
		master.Close()
		reader.Wait()
	})
	return p
}

func (p *Terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.seen = append(p.seen, buf[:n]...)
		p.mu.Unlock()
		if err != nil { // EIO when the last one with the terminal open is gone
			return
		}
	}
}

// Send types text.
func (p *Terminal) Send(text string) {
	p.t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatalf("type %q: %v", text, err)
	}
}

// Resize changes the size of the terminal, which tells the program by SIGWINCH.
func (p *Terminal) Resize(columns, rows uint16) {
	p.t.Helper()
	p.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
}

// Expect waits until want has been written after what the last Expect found.
func (p *Terminal) Expect(want string) {
	p.t.Helper()
	for end := time.Now().Add(Patience(10 * time.Second)); ; time.Sleep(2 * time.Millisecond) {
		p.mu.Lock()
		i := bytes.Index(p.seen[p.at:], []byte(want))
		if i >= 0 {
			p.at += i + len(want)
		}
		rest := string(p.seen[p.at:])
		p.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("want %q on the terminal, got %q", want, rest)
		}
	}
}

// Seen is all output so far.
func (p *Terminal) Seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.seen)
}

// Wait returns the program's exit status.
func (p *Terminal) Wait() int {
	p.t.Helper()
	select {
	case err := <-p.exited:
		var status *exec.ExitError
		if err != nil && !errors.As(err, &status) {
			p.t.Fatal(err)
		}
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(Patience(10 * time.Second)):
		p.t.Fatalf("the program on the terminal does not end; it wrote %q", p.Seen())
		return -1
	}
}

// Settings are the modes of the terminal, to compare before and after.
func (p *Terminal) Settings() unix.Termios {
	p.t.Helper()
	var s *unix.Termios
	p.control(func(fd int) (err error) { s, err = unix.IoctlGetTermios(fd, unix.TCGETS); return err })
	return *s
}

// control does f on the master without taking it away from the poller, as its Fd method would.
func (p *Terminal) control(f func(fd int) error) {
	p.t.Helper()
	conn, err := p.master.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	var ferr error
	err = conn.Control(func(fd uintptr) { ferr = f(int(fd)) })
	if err := errors.Join(err, ferr); err != nil {
		p.t.Fatal(err)
	}
}
