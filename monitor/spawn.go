package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// ErrorFile in the run directory takes what a monitor says on its stderr: a panic of ours, nothing else.
const ErrorFile = "monitor.err"

// Inherited descriptors of a monitor.
const (
	fdLock     = 3 // LockFile, claimed
	fdListener = 4 // listening on SocketFile; the spawner's connection is the first in its backlog
)

// ErrDead says that a monitor died in the run directory and left its container behind. Claim the directory, repair
// the container, remove the directory; then a new monitor can be spawned.
var ErrDead = errors.New("the monitor has died")

// Open returns a connection to the monitor of the run directory dir, spawning one when there is none, and after one
// whose container has ended. However many
// commands open the same directory at once, one monitor results and each gets a connection to it. The monitor stays
// at least until that connection is closed; so files may be written into the directory from then on.
func Open(ctx context.Context, binary, dir string) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errdef.As(errdef.ErrDeadline,
		fmt.Errorf("no monitor comes up in %s", dir)))
	defer cancel()
	for {
		c, err := Dial(ctx, dir)
		if errors.Is(err, ErrNoMonitor) {
			c, err = Spawn(ctx, binary, dir)
		}
		switch {
		case err == nil && c.ending: // wait until it has left
			c.Close()
		case !errors.Is(err, errdef.ErrConflict): // that is: another command was quicker
			return c, err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// Spawn starts a monitor (binary is hull-runtime) for the run directory dir, which is made when missing, and
// returns the first connection to it. It does not wait until the monitor runs: the connection is already queued at
// the socket it inherits, and so is every one that Dial makes from now on. The monitor lives until it has no
// client and no container. The error has kind ErrConflict when the directory has a monitor, and is ErrDead when one
// died there.
func Spawn(ctx context.Context, binary, dir string) (*Conn, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	d, err := openDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errdef.Conflict("%s was removed meanwhile", dir)
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	lock, err := claim(d)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	ln, err := listen(d)
	if errors.Is(err, unix.EADDRINUSE) { // a monitor that leaves removes its socket while it holds the lock
		return nil, fmt.Errorf("%s: %w", dir, ErrDead)
	}
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	f, err := connect(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := start(binary, dir, lock, ln); err != nil {
		f.Close()
		unix.Unlinkat(int(d.Fd()), SocketFile, 0) // nothing ran here
		return nil, err
	}
	return newConn(f), nil
}

// start forks the monitor, away from the caller's session, directory, environment and descriptors.
func start(binary, dir string, lock, ln *os.File) error {
	stderr, err := os.OpenFile(filepath.Join(dir, ErrorFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd := osexec.Command(binary, "monitor", dir)
	cmd.Dir = "/"
	cmd.Env = environ()
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{lock, ln}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	go cmd.Wait() // ends with the monitor; no process that serves for long collects zombies
	return nil
}

// environ is what a monitor keeps of the caller's environment: what its OnExit command needs to find the same store,
// and a Go runtime for a process that sleeps (one P, a small heap goal).
func environ() []string {
	env := []string{"GOMAXPROCS=1", "GOGC=50"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "USER", "TMPDIR", "LANG", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
			"HULL_ROOT", "HULL_RUN", "DBUS_SESSION_BUS_ADDRESS":
			env = append(env, kv)
		}
	}
	return env
}
