package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The fork hooks of package syscall: they block signals and make the child forget the handlers of the Go runtime.
// gVisor depends on the same three, so they are kept linkable.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// CloneArgs is struct clone_args of clone3(2), as of Linux 5.7.
type CloneArgs struct {
	Flags, Pidfd, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize, Cgroup uint64
}

// Clone appends a clone3(2) to the first child's part of the program: the second child goes on at the label
// inChild, the first behind this call. At most one process deep: what the second child runs may not Clone again.
// The pidfd ends up in the register pidfd, visible to the first parent too when the program was forked with ShareFiles.
func (p *Program) Clone(what string, flags uint64, pidfd Reg, inChild Label) *Call {
	a := &CloneArgs{Flags: flags | unix.CLONE_PIDFD, Pidfd: uint64(uintptr(unsafe.Pointer(&p.regs[pidfd])))}
	if flags&unix.CLONE_PARENT == 0 {
		a.ExitSignal = uint64(unix.SIGCHLD)
	}
	c := p.Call(what, opClone, unsafe.Pointer(a), unsafe.Sizeof(*a))
	c.inChild = inChild
	return c
}

// ForkOptions say how the first child is made.
type ForkOptions struct {
	Flags uint64 // CLONE_NEW*
	// ShareMemory saves the copy of the page tables (vfork(2)): the calling thread stands still until the child has
	// executed or exited. Not for a program that waits for its parent.
	ShareMemory bool
	ShareFiles  bool // CLONE_FILES: descriptors the child opens appear in the parent, until the child executes or exits
	CgroupFD    int  // the cgroup v2 directory to be born in (CLONE_INTO_CGROUP); 0 for none
}

// VFork are the flags of clone(2) for a child that shares memory and makes its parent wait, for Clone.
const VFork = unix.CLONE_VM | unix.CLONE_VFORK

// Fork starts the program in a child and returns its pid and pidfd. Without ShareMemory it does not wait.
func (p *Program) Fork(o ForkOptions) (pid int, pidfd int, err error) {
	p.link()
	a := CloneArgs{Flags: o.Flags | unix.CLONE_PIDFD, ExitSignal: uint64(unix.SIGCHLD)}
	fd := p.Register() // which the kernel writes to. A variable would be on the stack, and the stack moves when it grows.
	a.Pidfd = uint64(uintptr(unsafe.Pointer(&p.regs[fd])))
	if o.ShareMemory {
		a.Flags |= VFork
	}
	if o.ShareFiles {
		a.Flags |= unix.CLONE_FILES
	}
	if o.CgroupFD != 0 {
		a.Flags |= unix.CLONE_INTO_CGROUP
		a.Cgroup = uint64(o.CgroupFD)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	r, e := p.fork(&a)
	if r != 0 || e != 0 {
		runtimeAfterFork()
	}
	runtime.KeepAlive(p)
	if e != 0 {
		return 0, -1, fmt.Errorf("clone: %w", syscall.Errno(e))
	}
	return int(r), p.Value(fd), nil
}

// fork returns in the parent only, and at once: the child, which may share the stack, lives on in deeper frames.
//
//go:noinline
//go:norace
//go:nosplit
func (p *Program) fork(a *CloneArgs) (r, errno uintptr) {
	runtimeBeforeFork()
	r, errno = rawClone(a, unsafe.Sizeof(*a))
	if r != 0 || errno != 0 {
		return r, errno
	}
	runtimeAfterForkInChild()
	p.outer()
	return 0, 0
}

func rawClone(args *CloneArgs, size uintptr) (r, errno uintptr)

func rawCloneWait(args *CloneArgs, size uintptr, fds *[2]unix.PollFd) (r, errno uintptr)

// outer runs the first child's part of the program. Like all below it allocates nothing, grows no stack, writes no
// pointer to the heap and never returns.
//
//go:noinline
//go:norace
//go:nosplit
func (p *Program) outer() {
	for i := 0; i < len(p.calls); {
		c := &p.calls[i]
		if c.nr != opClone {
			i = p.step(i)
			continue
		}
		p.regs[regAt] = int64(i)
		r, e := p.again(c)
		if e != 0 {
			p.fail(i, e)
		}
		if c.out >= 0 {
			p.regs[c.out] = int64(r)
		}
		i++
	}
	syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
}

// again clones the second child; it too returns in the parent only.
//
//go:noinline
//go:norace
//go:nosplit
func (p *Program) again(c *Call) (r, errno uintptr) {
	r, errno = rawClone((*CloneArgs)(address(&c.arg[0])), c.arg[1])
	if r != 0 || errno != 0 {
		return r, errno
	}
	p.inner(int(c.inChild))
	return 0, 0
}

// inner runs the second child's part.
//
//go:noinline
//go:norace
//go:nosplit
func (p *Program) inner(i int) {
	for i < len(p.calls) {
		i = p.step(i)
	}
	syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
}

//go:noinline
//go:norace
//go:nosplit
func (p *Program) fail(i int, errno uintptr) {
	p.regs[regErrno] = int64(errno)
	p.regs[regFailed] = int64(i) + 1
	syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 127, 0, 0, 0, 0, 0)
}

// step carries out call i and returns the index of the next one.
//
//go:noinline
//go:norace
//go:nosplit
func (p *Program) step(i int) int {
	c := &p.calls[i]
	regs := p.regs
	regs[regAt] = int64(i)
	a := c.arg
	if c.regs != 0 {
		for j := range a {
			if c.regs&(1<<j) != 0 {
				a[j] = uintptr(regs[a[j]])
			}
		}
	}
	var r uintptr
	var e syscall.Errno
	switch c.nr {
	case opJump:
		return int(c.onAllow)
	case opFail:
		e = syscall.Errno(a[0])
	case opExit:
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, a[0], 0, 0, 0, 0, 0)
	case opStore:
		*(*uint32)(address(&a[0])) = uint32(a[1])
	case opByte:
		if *(*byte)(address(&a[0])) != byte(a[1]) {
			e = syscall.Errno(a[2])
		}
	default:
		for {
			r, _, e = syscall.RawSyscall6(uintptr(c.nr), a[0], a[1], a[2], a[3], a[4], a[5])
			if e != syscall.EINTR {
				break
			}
		}
	}
	if e == 0 {
		if c.out >= 0 {
			regs[c.out] = int64(r)
		}
		return i + 1
	}
	if c.out >= 0 {
		regs[c.out] = -int64(e)
	}
	for j := uint8(0); j < c.allowed; j++ {
		if syscall.Errno(c.allow[j]) == e {
			return int(c.onAllow)
		}
	}
	p.fail(i, uintptr(e))
	return 0
}

// Wait reads the status pipe r until the child executed or exited (end of file) or wrote the byte ready,
// and returns the failure of the program, if any. It gives up at the deadline of ctx and names the call that hangs;
// the child is then the caller's to kill.
func (p *Program) Wait(ctx context.Context, r int, ready byte) error {
	var buf [1]byte
	for {
		timeout := -1
		if d, ok := ctx.Deadline(); ok {
			timeout = max(0, int(time.Until(d).Milliseconds()))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(r), Events: unix.POLLIN}}, timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll status pipe: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("%s: %w", p.At(), context.DeadlineExceeded)
		}
		n, err = unix.Read(r, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read status pipe: %w", err)
		}
		if n == 0 || ready != 0 && buf[0] == ready {
			return p.failure()
		}
	}
}

// Reap waits for the child pid to exit and returns its status. It is for children that are about to exit.
func Reap(pid int) (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return ws, err
		}
	}
}

// address turns the address of a buffer in p.keep, which the collector does not move, back into a pointer.
//
//go:nosplit
func address(a *uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(a)) }
