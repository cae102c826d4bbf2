package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"hull/kernel"
	"hull/state"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// discard removes a tree that a container wrote to. What belongs to the sub-ids of an ordinary user is out of that
// user's reach; root of the user namespace of the user's containers removes it.
func (e *Engine) discard(dir string) error {
	err := state.Remove(dir)
	if err == nil || os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	ids, idErr := ownIDs()
	if idErr != nil || len(ids.uids) == 1 {
		return err
	}
	if e := e.discardInside(dir, ids); e != nil {
		return fmt.Errorf("%w; as root of the user namespace: %w", err, e)
	}
	return nil
}

// enterAsRoot makes the child root of the user namespace ns, which has to stay open until it runs.
func enterAsRoot(p *kernel.Program, ns *os.File) {
	p.Call("enter user namespace", unix.SYS_SETNS, int(ns.Fd()), unix.CLONE_NEWUSER)
	p.Call("become root", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("become root", unix.SYS_SETRESUID, 0, 0, 0)
}

// discardInside runs hull-runtime discard in a user namespace with these ids.
func (e *Engine) discardInside(dir string, ids *idMap) error {
	return e.inside(ids, 0, "discard", dir)
}

// insideWait bounds work on files as another user: enough for a tree of millions of them. Nobody waits for it in vain,
// for nothing in there can block.
const insideWait = 5 * time.Minute

// inside runs hull-runtime as root of a user namespace with these ids, and in new namespaces of the kinds in flags. It
// says with its exit status which errno was in the way.
func (e *Engine) inside(ids *idMap, flags int, args ...string) error {
	binary, err := e.runtime()
	if err != nil {
		return err
	}
	ns, err := kernel.NewUserNS(kernelMap(ids.uids), kernelMap(ids.gids))
	if err != nil {
		return err
	}
	defer ns.Close()
	p, err := kernel.NewProgram()
	if err != nil {
		return err
	}
	defer p.Close()
	enterAsRoot(p, ns)
	if flags != 0 {
		p.Call("create namespaces", unix.SYS_UNSHARE, flags)
	}
	p.Call("run hull-runtime", unix.SYS_EXECVE, binary, p.Strings(append([]string{"hull-runtime"}, args...)), p.Strings(nil))
	ctx, cancel := context.WithTimeout(context.Background(), insideWait)
	defer cancel()
	status, err := runProgram(ctx, p)
	if err == nil && status != 0 {
		err = fmt.Errorf("hull-runtime %s: %w", args[0], unix.Errno(status.ExitStatus()))
	}
	return err
}

// runProgram forks p and waits for the end of the process, which is killed when ctx ends before it has executed.
func runProgram(ctx context.Context, p *kernel.Program) (unix.WaitStatus, error) {
	pid, pidfd, err := forkProgram(ctx, p)
	if err != nil {
		return 0, err
	}
	unix.Close(pidfd)
	return kernel.Reap(pid)
}

// forkProgram forks p and returns when the process has executed its last call, an execve. It is the caller's to reap.
func forkProgram(ctx context.Context, p *kernel.Program) (pid, pidfd int, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, -1, err
	}
	defer unix.Close(pipe[0])
	pid, pidfd, err = p.Fork(kernel.ForkOptions{})
	unix.Close(pipe[1])
	if err != nil {
		return 0, -1, err
	}
	if err := p.Wait(ctx, pipe[0], 0); err != nil {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // gone already unless the call hangs
		unix.Close(pidfd)
		_, reapErr := kernel.Reap(pid)
		return 0, -1, errors.Join(err, reapErr)
	}
	return pid, pidfd, nil
}

func kernelMap(m []specs.LinuxIDMapping) []kernel.IDMap {
	out := make([]kernel.IDMap, len(m))
	for i, l := range m {
		out[i] = kernel.IDMap{Inside: l.ContainerID, Outside: l.HostID, Size: l.Size}
	}
	return out
}
