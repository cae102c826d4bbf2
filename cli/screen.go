package cli

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// screen is the terminal stdin is connected to. While a terminal of a container is on it, it is raw; restore puts it
// back and may be called on every way out, from any goroutine and again.
type screen struct {
	f *os.File

	// mu protects the following.
	mu    sync.Mutex
	saved *unix.Termios
}

func newScreen(f *os.File) *screen { return &screen{f: f} }

func (s *screen) isTerminal() bool { return isTerminal(s.f) }

// raw hands every key to the container: no echo, no line editing, no signals.
func (s *screen) raw() error {
	return s.change(func(t *unix.Termios) {
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag &^= unix.CSIZE | unix.PARENB
		t.Cflag |= unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	})
}

// silent leaves the terminal as it is, but for showing what is typed.
func (s *screen) silent() error {
	return s.change(func(t *unix.Termios) { t.Lflag &^= unix.ECHO })
}

// change does nothing to a terminal that is changed already.
func (s *screen) change(set func(*unix.Termios)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved != nil {
		return nil
	}
	fd := int(s.f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("read terminal settings", err)
	}
	t := *old
	set(&t)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &t); err != nil {
		return os.NewSyscallError("change terminal settings", err)
	}
	s.saved = old
	return nil
}

func (s *screen) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved == nil {
		return
	}
	// A background process that changes its terminal is stopped by SIGTTOU; there is nothing to lose by trying.
	unix.IoctlSetTermios(int(s.f.Fd()), unix.TCSETS, s.saved)
	s.saved = nil
}

// guarded runs f with the promise that a panic in it leaves the terminal usable.
func (s *screen) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.restore()
			panic(p)
		}
	}()
	f()
}
