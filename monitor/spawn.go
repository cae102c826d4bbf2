package monitor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/kernel"
	"hull/runtime/cgroup"

	"golang.org/x/sys/unix"
)

// ErrorFile in the run directory takes what a monitor says on its stderr: a panic of ours, nothing else.
const ErrorFile = "monitor.err"

// Inherited descriptors of a monitor.
const (
	fdLock     = 3 // LockFile, claimed
	fdListener = 4 // listening on SocketFile; the spawner's connection is in its backlog
)

// Program is how monitors are started.
type Program struct {
	Path   string // of hull-runtime
	Cgroup string // where monitors live, below every hierarchy; where there is no right to it, or "", with their spawner
	// Claimed, if not nil, is called when a monitor is about to be started: the run directory is there and its own.
	Claimed func()
}

// ErrDead says that a monitor died in the run directory and left its container behind. Claim the directory, repair
// the container, remove the directory; then a new monitor can be spawned.
var ErrDead = errors.New("the monitor has died")

// A zero struct sigaction of the kernel is SIG_DFL.
const (
	sigactionSize = 32
	sigsetSize    = 8
)

// Open returns a connection to the monitor of the run directory dir, spawning one when there is none, and after one
// whose container has ended. However many
// commands open the same directory at once, one monitor results and each gets a connection to it. The monitor stays
// at least until that connection is closed; so files may be written into the directory from then on.
func Open(ctx context.Context, p Program, dir string) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errdef.As(errdef.ErrDeadline,
		fmt.Errorf("no monitor comes up in %s, or the one of the last start still waits for a client to read", dir)))
	defer cancel()
	for {
		c, err := Dial(ctx, dir)
		if errors.Is(err, ErrNoMonitor) {
			c, err = Spawn(ctx, p, dir)
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

// Spawn starts a monitor for the run directory dir, which is made when missing, and
// returns the first connection to it. It does not wait until the monitor runs: the connection is already queued at
// the socket it inherits, and so is every one that Dial makes from now on. The monitor lives until it has no
// client and no container. The error has kind ErrConflict when the directory has a monitor, and is ErrDead when one
// died there.
func Spawn(ctx context.Context, p Program, dir string) (*Conn, error) {
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
	if p.Claimed != nil {
		p.Claimed()
	}
	if err := p.start(ctx, dir, lock, ln); err != nil {
		f.Close()
		unix.Unlinkat(int(d.Fd()), SocketFile, 0) // nothing ran here
		return nil, err
	}
	return newConn(dir, f), nil
}

// start forks the monitor, away from the caller's session, cgroup, directory, environment and descriptors. It stays in
// the caller's mount namespace: it mounts nothing itself, and a namespace of its own would keep busy whatever the host
// unmounts while the container runs, wherever mounts are not shared.
func (p Program) start(ctx context.Context, dir string, lock, ln *os.File) error {
	prog, err := kernel.NewProgram()
	if err != nil {
		return err
	}
	defer prog.Close()
	stdio, err := openStdio(dir)
	if err != nil {
		return err
	}
	defer closeAll(&stdio)
	door := p.door()
	defer door.Close()
	status, err := statusPipe()
	if err != nil {
		return err
	}
	defer unix.Close(status[0])
	bin := unix.AT_FDCWD
	if os.Geteuid() == 0 {
		if bin, err = kernel.ReadOnly(filepath.Dir(p.Path)); err != nil {
			unix.Close(status[1])
			return err
		}
		defer unix.Close(bin)
	}
	p.write(prog, dir, door, bin, [...]*os.File{stdio[0], stdio[1], stdio[2], lock, ln})
	opts := kernel.ForkOptions{ShareMemory: true}
	if door.Dir >= 0 {
		opts.CgroupFD = door.Dir
	}
	pid, pidfd, err := prog.Fork(opts)
	if err != nil && opts.CgroupFD != 0 {
		opts.CgroupFD = 0 // no right to leave the cgroup we are in
		pid, pidfd, err = prog.Fork(opts)
	}
	unix.Close(status[1])
	if err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	child, err := newProcess(pid, os.NewFile(uintptr(pidfd), "pidfd"), nil)
	if err != nil {
		return err
	}
	if err := prog.Wait(ctx, status[0], 0); err != nil {
		child.wait()
		child.close()
		return fmt.Errorf("start monitor %s: %w", p.Path, err)
	}
	// Ends with the monitor, and waits on the poller: a process that serves for long collects neither zombies nor threads.
	go func() {
		child.wait()
		child.close()
	}()
	return nil
}

// openStdio opens what a monitor has instead of a terminal.
func openStdio(dir string) (files [3]*os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return files, err
	}
	files[0] = null
	files[2], err = os.OpenFile(filepath.Join(dir, ErrorFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		null.Close()
		return files, err
	}
	return files, nil
}

// door opens the monitors' cgroup, making it when missing. Without the right to, there is nothing to enter.
func (p Program) door() *cgroup.Door {
	none := &cgroup.Door{Dir: -1}
	if p.Cgroup == "" {
		return none
	}
	layout := cgroup.Detect()
	g, err := cgroup.Open(layout, p.Cgroup)
	if err != nil {
		return none
	}
	if door, err := g.Door(); err == nil {
		return door
	}
	if g, err = cgroup.Ensure(layout, p.Cgroup); err != nil {
		return none
	}
	door, err := g.Door()
	if err != nil {
		return none
	}
	return door
}

func statusPipe() (fds [2]int, err error) {
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC)
	return fds, os.NewSyscallError("pipe2", err)
}

// write lays down what the child does up to execve. Descriptor i becomes files[i], or that of files[0]. The program is
// executed from bin, a read-only mount of its directory, or by its path: a container without user namespace might
// otherwise write to it while it is the container's init for a moment. Without root there is no such mount.
func (p Program) write(prog *kernel.Program, dir string, door *cgroup.Door, bin int, files [fdListener + 1]*os.File) {
	for _, fd := range door.Tasks {
		prog.Call("enter cgroup", unix.SYS_WRITE, fd, "0", 1).Allow(unix.EACCES, unix.EPERM, unix.ENOSPC, unix.ENODEV)
	}
	prog.Call("start session", unix.SYS_SETSID)
	prog.Call("set timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(kernel.Slack), 0, 0, 0)
	// nohup and shells leave the first two ignored, glibc's posix_spawn (GNU make) the signals of its own threads; Go
	// leaves them so, and the container would inherit it. All others have handlers in every Go program, which execve
	// takes away.
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, 32, 33, 34} {
		prog.Call("reset "+sig.String(), unix.SYS_RT_SIGACTION, int(sig), make([]byte, sigactionSize), nil, sigsetSize)
	}
	prog.Call("change to /", unix.SYS_CHDIR, "/")
	// First out of the way of the numbers they get, which may be those of others among them.
	var high [len(files)]kernel.Reg
	for i, f := range files {
		if f == nil {
			f = files[0]
		}
		high[i] = prog.Call("move descriptor", unix.SYS_FCNTL, int(f.Fd()), unix.F_DUPFD_CLOEXEC, len(files)).Result()
	}
	for i, fd := range high {
		prog.Call("place descriptor", unix.SYS_DUP3, fd, i, 0)
	}
	prog.Call("close other descriptors", unix.SYS_CLOSE_RANGE, len(files), uint32(math.MaxUint32), unix.CLOSE_RANGE_CLOEXEC)
	path := p.Path
	if bin != unix.AT_FDCWD {
		path = filepath.Base(path)
	}
	prog.Call("execute "+p.Path, unix.SYS_EXECVEAT, bin, path,
		prog.Strings([]string{p.Path, "monitor", dir}), prog.Strings(environ()), 0)
}

// environ is what a monitor keeps of the caller's environment: what its OnExit command needs to find the same store,
// and heapSettings.
func environ() []string {
	env := slices.Clone(heapSettings)
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
