package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hull/errdef"
	"hull/kernel"
	"hull/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	rootNone = -1
	// deleteTimeout bounds the clean-up behind a failed start.
	deleteTimeout = 10 * time.Second
	// ready is what a process that waits for Start says on the status pipe, mounted one that waits for BeforePivot.
	ready   = 'r'
	mounted = 'm'
)

// boot is one start under way: what the parent opened for it, and the program of its children.
type boot struct {
	cfg     *Config
	spec    *specs.Spec
	process *specs.Process
	prog    *kernel.Program

	newNS, joinNS uint64 // CLONE_NEW* flags
	joins         []joined
	userns        *os.File // nil: the caller's
	net           *os.File // network namespace with cfg.Link
	linking       sync.WaitGroup
	linkErr       error // after linking
	rootless      bool  // the parent cannot mount: the children do it inside their user namespace
	door          *cgroup.Door

	root     int        // detached mount or directory, opened by the parent; rootNone when rootless
	rootReg  kernel.Reg // the root as the children see it
	devpts   kernel.Reg // root of the devpts mount at /dev/pts
	hasPts   bool
	hasDev   bool // /dev is a tmpfs of ours, with its nodes
	user     credentials
	status   [2]int // pipe: end of file means executed
	terminal [2]int // socket pair: the pty master comes this way
	fifo     int
	hooks    [2]int // pipe: a byte says that BeforePivot succeeded
	wait     bool   // for Start, before execve
	apart    bool   // the second child gets memory of its own
	present  bool   // the working directory has to be there: it is not made
	outlives bool   // the caller: its end is not the end of the process

	pid, pidfd kernel.Reg
	tries      []try
	fds        []int
	files      []*os.File
	warnings   []string
}

// open opens for the time of the start.
func (b *boot) open(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	b.fds = append(b.fds, fd)
	return fd, nil
}

// hangUp closes our copy of the children's end of the status pipe.
func (b *boot) hangUp() {
	if b.status[1] > 0 {
		unix.Close(b.status[1])
		b.status[1] = -1
	}
}

func (b *boot) close() {
	b.linking.Wait() // it uses descriptors
	b.hangUp()
	for _, fd := range b.fds {
		unix.Close(fd)
	}
	for _, f := range b.files {
		f.Close()
	}
	if b.door != nil {
		b.door.Close()
	}
	if b.prog != nil {
		b.prog.Close()
	}
}

func (b *boot) warn(format string, a ...any) {
	b.warnings = append(b.warnings, fmt.Sprintf(format, a...))
}

// write writes the program of a new container.
func (b *boot) write(ctx context.Context) error {
	b.alarm(ctx)
	if err := b.pipes(); err != nil {
		return err
	}
	if err := b.resolveUser(); err != nil {
		return err
	}
	b.resetSlack()
	b.joinCgroups()
	if err := b.label(); err != nil {
		return err
	}
	if err := b.raiseLimits(); err != nil {
		return err
	}
	b.enterNamespaces()
	b.clone()

	p := b.prog
	p.Call("start a session", unix.SYS_SETSID)
	b.host()
	if err := b.mountAll(); err != nil {
		return err
	}
	// Before masking: in a user namespace procfs is mounted only where a whole one is in sight.
	if err := b.sysctls(); err != nil {
		return err
	}
	b.maskPaths()
	if err := b.openTerminal(); err != nil {
		return err
	}
	if b.cfg.BeforePivot != nil {
		b.waitForHooks()
	}
	b.pivot()
	return b.execute()
}

// pipes makes the ways from the children to us.
func (b *boot) pipes() error {
	if err := unix.Pipe2(b.status[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("status pipe: %w", err)
	}
	b.fds = append(b.fds, b.status[0])
	if b.process.Terminal {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("terminal socket: %w", err)
		}
		b.terminal = pair
		b.fds = append(b.fds, pair[0], pair[1])
	}
	if b.cfg.StartFifo != "" {
		var err error
		if b.fifo, err = b.open(b.cfg.StartFifo, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return err
		}
		b.wait, b.outlives = true, true
	}
	if b.cfg.BeforePivot != nil {
		if !b.wait {
			return errdef.Invalid("BeforePivot needs StartFifo")
		}
		if err := unix.Pipe2(b.hooks[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("hooks pipe: %w", err)
		}
		b.fds = append(b.fds, b.hooks[0], b.hooks[1])
	}
	return nil
}

// resetSlack undoes kernel.Slack, before clone, so that it is also what the container's processes fall back to.
func (b *boot) resetSlack() {
	b.prog.Call("reset timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(kernel.DefaultSlack), 0, 0, 0)
}

// joinCgroups moves the child, and so all it becomes, into the control groups. The files were opened with our rights.
func (b *boot) joinCgroups() {
	if b.door == nil {
		return
	}
	for _, fd := range b.door.Tasks {
		b.prog.Call("join control group", unix.SYS_WRITE, fd, "0", 1)
	}
}

// clone ends stage 1 and begins stage 2.
func (b *boot) clone() {
	p := b.prog
	flags := uint64(unix.CLONE_PARENT) | b.newNS&^(unix.CLONE_NEWUSER|unix.CLONE_NEWTIME)
	// Who waits cannot share our memory, for we would wait too. Before Linux 6.2 a process that shares memory could
	// not be born into, nor exec into, another time namespace.
	if !b.wait && !b.apart && (b.newNS&unix.CLONE_NEWTIME == 0 || kernel.AtLeast(6, 2)) {
		flags |= kernel.VFork
	}
	in := p.NewLabel()
	b.pidfd = p.Register()
	b.pid = p.Clone("create namespaces", flags, b.pidfd, in).Result()
	p.Exit(0)
	p.Mark(in)
}

// host sets what the uts and network namespaces begin with.
func (b *boot) host() {
	p := b.prog
	if b.newNS&unix.CLONE_NEWUTS != 0 || b.joinNS&unix.CLONE_NEWUTS != 0 {
		if h := b.spec.Hostname; h != "" {
			p.Call("set host name", unix.SYS_SETHOSTNAME, h, len(h))
		}
		if d := b.spec.Domainname; d != "" {
			p.Call("set domain name", unix.SYS_SETDOMAINNAME, d, len(d))
		}
	}
	if b.newNS&unix.CLONE_NEWNET != 0 {
		// struct ifreq: name, then the flags.
		ifreq := make([]byte, 40)
		copy(ifreq, "lo")
		ifreq[16] = unix.IFF_UP
		fd := p.Call("open socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0).Result()
		p.Call("bring lo up", unix.SYS_IOCTL, fd, unix.SIOCSIFFLAGS, ifreq)
		p.Call("close socket", unix.SYS_CLOSE, fd)
	}
}

// waitForHooks says that all is mounted, and waits for runHooks. Our copy of the writing end is closed first, so that
// the end of the parent is seen.
func (b *boot) waitForHooks() {
	p := b.prog
	p.Call("close hooks pipe", unix.SYS_CLOSE, b.hooks[1])
	p.Call("report mounts", unix.SYS_WRITE, b.status[1], []byte{mounted}, 1)
	buf := make([]byte, 1)
	p.Call("wait for hooks", unix.SYS_READ, b.hooks[0], buf, 1)
	p.CheckByte("hooks", buf, 0, 1, unix.ECANCELED)
}

// runHooks is the parent's side. A failed hook is the error; the process is then killed by the caller.
func (b *boot) runHooks(ctx context.Context, c *Container) error {
	if err := b.cfg.BeforePivot(c); err != nil {
		return err
	}
	if _, err := unix.Write(b.hooks[1], []byte{1}); err != nil {
		return fmt.Errorf("hooks pipe: %w", err)
	}
	return b.prog.Wait(ctx, b.status[0], ready)
}

// pivot makes the new root the only one.
func (b *boot) pivot() {
	p := b.prog
	old := p.Call("open old root", unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Result()
	p.Call("enter new root", unix.SYS_FCHDIR, b.rootReg)
	// pivot_root(".", ".") stacks the old root on the new one (pivot_root(2), NOTES): no directory is needed for it.
	p.Call("pivot_root", unix.SYS_PIVOT_ROOT, ".", ".")
	p.Call("enter old root", unix.SYS_FCHDIR, old)
	p.Call("detach old root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	p.Call("enter new root", unix.SYS_CHDIR, "/")
	if b.spec.Root.Readonly {
		b.setattr("make root read-only", b.rootReg, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	if prop := propagation(b.spec.Linux.RootfsPropagation); prop != 0 {
		b.setattr("root propagation", unix.AT_FDCWD, unix.MountAttr{Propagation: prop}, true)
	}
}

// run forks the program and waits until the process executes, or waits for Start.
func (b *boot) run(ctx context.Context) (*Container, error) {
	opts := kernel.ForkOptions{ShareMemory: true, ShareFiles: true}
	if b.door != nil && b.door.Dir >= 0 {
		opts.CgroupFD = b.door.Dir
	}
	return b.fork(ctx, opts)
}

func (b *boot) fork(ctx context.Context, opts kernel.ForkOptions) (*Container, error) {
	first, pidfd, err := b.prog.Fork(opts)
	if err != nil {
		return nil, err
	}
	unix.Close(pidfd)
	ws, err := kernel.Reap(first)
	b.hangUp()
	switch {
	case err != nil:
	case ws.Signaled() && ws.Signal() == unix.SIGALRM:
		err = fmt.Errorf("%s: %w", b.prog.At(), context.DeadlineExceeded)
	case b.cfg.BeforePivot != nil:
		err = b.prog.Wait(ctx, b.status[0], mounted)
	default:
		err = b.prog.Wait(ctx, b.status[0], ready)
	}
	c := &Container{Pid: b.prog.Value(b.pid)}
	if fd := b.prog.Value(b.pidfd); fd > 0 {
		c.Pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	if err == nil && b.cfg.BeforePivot != nil {
		err = b.runHooks(ctx, c)
	}
	if err == nil && b.process.Terminal {
		c.Terminal, err = receiveFile(b.terminal[0], "terminal")
	}
	if err == nil {
		return c, nil
	}
	if c.Pidfd != nil {
		err = errors.Join(b.explain(err), c.kill())
		c.Pidfd.Close()
	}
	return nil, err
}

// kill ends the process of a failed program, which has mostly exited by itself, and reaps it.
func (c *Container) kill() error {
	fd := int(c.Pidfd.Fd())
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", c.Pid, err)
	}
	for end := time.Now().Add(deleteTimeout); ; {
		left := max(int(time.Until(end).Milliseconds()), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, left)
		if n == 1 {
			break
		}
		if err != unix.EINTR { // a signal, mostly the Go scheduler's, says nothing of the process
			return fmt.Errorf("process %d does not die (%v): it hangs in the kernel", c.Pid, err)
		}
	}
	return unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED, nil)
}

// alarm bounds the time until the children are done by the deadline of ctx. While they share our memory the forking
// thread stands still, so stage 1 itself carries the timer; its death by SIGALRM sets the thread free.
func (b *boot) alarm(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return
	}
	left := max(time.Until(deadline), time.Millisecond)
	v := make([]byte, 32) // struct itimerval, no repetition
	putU64(v[16:], uint64(left/time.Second))
	putU64(v[24:], uint64(left%time.Second/time.Microsecond))
	b.prog.Call("set deadline", unix.SYS_SETITIMER, 0, v, 0)
}

// receiveFile takes the descriptor that the child sent (SCM_RIGHTS, unix(7)).
func receiveFile(sock int, name string) (*os.File, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, data[:], oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive %s: %w", name, err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive %s: no descriptor came (%v)", name, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive %s: no descriptor came (%v)", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), nil
}

// validate refuses what no step below could do.
func validate(s *specs.Spec) error {
	switch {
	case s.Linux == nil || s.Root == nil && s.Process == nil:
		return errdef.Invalid("the OCI configuration has no linux, root or process section")
	case s.Process == nil || len(s.Process.Args) == 0:
		return errdef.Invalid("no command specified")
	case s.Process.Cwd != "" && !filepath.IsAbs(s.Process.Cwd):
		return errdef.Invalid("the working directory %q is not an absolute path", s.Process.Cwd)
	case s.Root == nil:
		return errdef.Invalid("the OCI configuration has no root section")
	}
	return nil
}

// setattr is mount_setattr(2) on the mount at fd, a Reg or a descriptor.
func (b *boot) setattr(what string, fd any, attr unix.MountAttr, recursive bool) *kernel.Call {
	flags := unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	a := make([]byte, unix.MOUNT_ATTR_SIZE_VER0)
	putU64(a[0:], attr.Attr_set)
	putU64(a[8:], attr.Attr_clr)
	putU64(a[16:], attr.Propagation)
	putU64(a[24:], attr.Userns_fd)
	return b.prog.Call(what, unix.SYS_MOUNT_SETATTR, fd, "", flags, a, len(a))
}

func putU64(b []byte, v uint64) { binary.NativeEndian.PutUint64(b, v) }
