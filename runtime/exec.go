package runtime

import (
	"context"
	"fmt"
	"os"

	"hull/errdef"
	"hull/kernel"
	"hull/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exec runs process p in the container t. It returns after execve succeeded.
// Errors have the same kinds as those of Create.
func Exec(ctx context.Context, t *Target, p *specs.Process, stdio [3]*os.File) (_ *Process, err error) {
	if t.Foreign != nil {
		return t.Foreign.container(t.Bundle, t.ID).exec(ctx, t, p, stdio)
	}
	cfg := &Config{Spec: t.Spec, Seccomp: t.Seccomp, Groups: t.Groups, Stdio: stdio, Cgroup: t.Cgroup}
	b := &boot{cfg: cfg, spec: t.Spec, process: p, root: rootNone, rootless: os.Geteuid() != 0, present: true, outlives: t.Outlive}
	defer b.close()
	if b.prog, err = kernel.NewProgram(); err != nil {
		return nil, err
	}
	flags, err := b.openTarget(t)
	if err != nil {
		return nil, err
	}
	// Without a user namespace a container with CAP_SYS_PTRACE can trace the new process before execve: it must not
	// reach the caller's memory through it.
	b.apart = b.userns == nil
	group, err := cgroup.Open(cgroup.Detect(), cfg.cgroupPath())
	if err != nil {
		return nil, err
	}
	if group.Frozen() {
		// The process would stop on its way in, and we with it.
		return nil, errdef.Conflict("the container is paused, unpause the container before exec")
	}
	if b.door, err = group.Door(); err != nil {
		return nil, err
	}
	if err := b.pipes(); err != nil {
		return nil, err
	}
	if err := b.resolveUser(); err != nil {
		return nil, err
	}
	b.alarm(ctx)
	b.resetSlack()
	b.joinCgroups()
	if err := b.label(); err != nil {
		return nil, err
	}
	if err := b.raiseLimits(); err != nil {
		return nil, err
	}
	// One call for all namespaces: the checks for each are made with the credentials of the new user namespace.
	b.prog.Call("join the container", unix.SYS_SETNS, int(t.Pidfd.Fd()), flags)
	if b.userns != nil {
		b.becomeRoot()
	}
	b.clone()
	b.prog.Call("start a session", unix.SYS_SETSID)
	if p.Terminal {
		// The container's processes can put anything at /dev/pts; nothing but a devpts makes a pty of what is opened.
		pts := b.openHow("open /dev/pts", unix.AT_FDCWD, "/dev/pts", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS, 0).Result()
		b.pty(pts)
	}
	if err := b.execute(); err != nil {
		return nil, err
	}
	// setns into a time namespace is refused while memory is shared (EUSERS): such a fork copies the page tables.
	opts := kernel.ForkOptions{ShareMemory: flags&unix.CLONE_NEWTIME == 0 && !b.apart, ShareFiles: true}
	if b.door.Dir >= 0 {
		opts.CgroupFD = b.door.Dir
	}
	c, err := b.fork(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &Process{Pid: c.Pid, Pidfd: c.Pidfd, Terminal: c.Terminal}, nil
}

// openTarget finds out which namespaces to join and opens the root of the container, to look users up.
func (b *boot) openTarget(t *Target) (flags uint64, err error) {
	for _, ns := range t.Spec.Linux.Namespaces {
		flags |= cloneFlag(ns.Type)
	}
	dir := fmt.Sprintf("/proc/%d", t.Pid)
	if flags&unix.CLONE_NEWUSER != 0 {
		fd, err := b.open(dir+"/ns/user", unix.O_RDONLY)
		if err != nil {
			return 0, err
		}
		ns, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return 0, err
		}
		b.userns = os.NewFile(uintptr(ns), "user namespace")
		b.files = append(b.files, b.userns)
	}
	if b.root, err = b.open(dir+"/root", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return 0, err
	}
	// The pid may have been given to another process since; the pidfd was not.
	if err := unix.PidfdSendSignal(int(t.Pidfd.Fd()), 0, nil, 0); err != nil {
		return 0, fmt.Errorf("the container's process is gone: %w", err)
	}
	return flags, nil
}
