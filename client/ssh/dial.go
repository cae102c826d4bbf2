package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// Options of Dial.
type Options struct {
	// Command is what the shell of the other side gets to run.
	Command string
	// Begins is how everything begins that the command writes: what is something else was not written by it. "" is anything.
	Begins string
	// Say is told each line that ssh or the command writes to stderr; nil drops them. It is not called after Close.
	Say func(line string)
}

// Conn is the stdio of a command on another machine.
type Conn struct {
	*net.UnixConn
	addr Address
	opt  Options
	cmd  *exec.Cmd
	done chan struct{} // closed when ssh has ended
	said *lines

	// mu protects the following.
	mu      sync.Mutex
	begun   bool   // the beginning was looked at
	foreign string // what came instead
	over    bool   // the other side ended before we did
	closing bool
	killed  bool // by us

	once sync.Once
}

// Dial starts ssh. It does not wait until that has reached anything: the first answer tells. ctx ends nothing later.
func Dial(ctx context.Context, a Address, o Options) (*Conn, error) {
	if err := errors.Join(a.Valid(), context.Cause(ctx)); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return nil, errdef.Unavailable("%s is reached with ssh, which is not installed here: install openssh-client", a)
	}
	near, far, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	c := &Conn{UnixConn: near, addr: a, opt: o, done: make(chan struct{}), said: &lines{say: o.Say}}
	c.cmd = exec.Command(program, arguments(a, o.Command)...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = far, far, c.said
	c.cmd.WaitDelay = time.Second // a connection that ssh shares keeps stderr open longer than ssh lives
	if err := c.cmd.Start(); err != nil {
		near.Close()
		return nil, err
	}
	go func() { // ends with ssh, for which Close sees
		defer close(c.done)
		_ = c.cmd.Wait() // its state says more
	}()
	return c, nil
}

// arguments are those of ssh. What its configuration may add to a login (a terminal, agent, X11) is no use here.
func arguments(a Address, command string) []string {
	args := []string{"-T", "-a", "-x"}
	if a.User != "" {
		args = append(args, "-l", a.User)
	}
	if a.Port != "" {
		args = append(args, "-p", a.Port)
	}
	return append(args, "--", a.Host, command)
}

func socketpair() (near *net.UnixConn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "ssh")
	far = os.NewFile(uintptr(fds[1]), "ssh")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		far.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), far, nil
}

// maxForeign bounds what is shown of a stranger's words.
const maxForeign = 200

// Read gives what the command writes. Its first call fails if that begins otherwise than it has to.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.UnixConn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 0 {
		c.over = c.over || !c.closing && !errors.Is(err, os.ErrDeadlineExceeded)
		return n, err
	}
	if !c.begun {
		c.begun = true
		if head := min(n, len(c.opt.Begins)); string(p[:head]) != c.opt.Begins[:head] {
			c.foreign = string(p[:min(n, maxForeign)])
			return 0, errdef.Unavailable("%s", c.foreignText())
		}
	}
	return n, err
}

func (c *Conn) foreignText() string {
	line, _, _ := strings.Cut(strings.TrimSpace(c.foreign), "\n")
	return fmt.Sprintf("%s says %q before Hull can: its shell's start-up files must print nothing when nobody logs in (try: %s true)",
		c.addr.Host, strings.TrimSpace(line), c.addr.command())
}

// patience is how long ssh gets to end by itself once its stdin has.
const patience = 5 * time.Second

// Close ends the command and ssh, and waits for it.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.closing = true
		c.mu.Unlock()
		c.UnixConn.Close()
		if !c.ended(patience) {
			c.mu.Lock()
			c.killed = true
			c.mu.Unlock()
			_ = c.cmd.Process.Kill()
			<-c.done
		}
		c.said.end()
	})
	return nil
}

func (c *Conn) ended(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-c.done:
		return true
	case <-t.C:
		return false
	}
}

// Explain closes the connection and returns what err, which was met on it, comes from: how ssh or the command ended, if
// they did so before they were told to, or else err itself.
func (c *Conn) Explain(err error) error {
	c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && c.foreign != "":
		return errdef.Unavailable("%s", c.foreignText())
	case err != nil && c.over && !c.killed:
		return c.why(c.cmd.ProcessState, err)
	}
	return err
}

// The exit statuses that have a meaning: of ssh itself, and of shells.
const (
	statusSSH     = 255
	statusNoFile  = 127
	statusNoRight = 126
)

// why puts into words how ssh ended.
func (c *Conn) why(s *os.ProcessState, err error) error {
	last := c.said.last()
	because := ""
	if last != "" {
		because = ": " + last
	}
	host := c.addr.Host
	word, _, _ := strings.Cut(c.opt.Command, " ")
	if w, ok := s.Sys().(interface{ Signaled() bool }); ok && w.Signaled() {
		return errdef.Unavailable("ssh to %s was ended: %s", host, s)
	}
	switch s.ExitCode() {
	case statusSSH:
		switch {
		case strings.Contains(last, "Permission denied"):
			return errdef.Unavailable("%s does not let you in%s (first make this work: %s true)", host, because, c.addr.command())
		case strings.Contains(last, "Host key verification failed"):
			return errdef.Unavailable("the key of %s is not known to ssh, or has changed%s (look at it with: %s true)", host, because, c.addr.command())
		}
		return errdef.Unavailable("ssh cannot reach %s, or lost it%s", host, because)
	case statusNoFile:
		return errdef.Unavailable("%s has no command %s%s (install Hull there, or name it in HULL_SSH_COMMAND)", host, word, because)
	case statusNoRight:
		return errdef.Unavailable("%s cannot execute %s%s", host, word, because)
	case 0:
		return errdef.Unavailable("%s ended the connection: %w", host, err)
	}
	return errdef.Unavailable("%s on %s ended with status %d%s", word, host, s.ExitCode(), because)
}

// lines hands what is written to it on line by line, and keeps the last.
type lines struct {
	// mu protects the following.
	mu   sync.Mutex
	say  func(string)
	part []byte
	kept string
	over bool
}

// maxLine bounds one line of a program that is not ours.
const maxLine = 4 << 10

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range p {
		if b == '\n' || len(l.part) >= maxLine {
			l.flush()
		}
		if b != '\n' {
			l.part = append(l.part, b)
		}
	}
	return len(p), nil
}

func (l *lines) flush() {
	text := strings.TrimRight(string(l.part), "\r")
	l.part = l.part[:0]
	if strings.TrimSpace(text) == "" {
		return
	}
	l.kept = strings.TrimSpace(text)
	if l.say != nil && !l.over {
		l.say(text)
	}
}

func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
	l.over = true
}
