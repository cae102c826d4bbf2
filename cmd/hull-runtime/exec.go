package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type execOptions struct {
	console, cwd, user, process, pidFile, label, apparmor, cgroup string
	env, gids, caps                                               stringList
	tty, detach, noNewPrivs, ignorePaused                         bool
	preserve                                                      int
}

func (o *execOptions) parse(c *command) ([]string, error) {
	fs := c.flags()
	fs.StringVar(&o.console, "console-socket", "", "")
	fs.StringVar(&o.cwd, "cwd", "", "")
	fs.Var(&o.env, "env", "")
	fs.Var(&o.env, "e", "")
	fs.BoolVar(&o.tty, "tty", false, "")
	fs.BoolVar(&o.tty, "t", false, "")
	fs.StringVar(&o.user, "user", "", "")
	fs.StringVar(&o.user, "u", "", "")
	fs.Var(&o.gids, "additional-gids", "")
	fs.Var(&o.gids, "g", "")
	fs.StringVar(&o.process, "process", "", "")
	fs.StringVar(&o.process, "p", "", "")
	fs.BoolVar(&o.detach, "detach", false, "")
	fs.BoolVar(&o.detach, "d", false, "")
	fs.StringVar(&o.pidFile, "pid-file", "", "")
	fs.StringVar(&o.label, "process-label", "", "")
	fs.StringVar(&o.apparmor, "apparmor", "", "")
	fs.BoolVar(&o.noNewPrivs, "no-new-privs", false, "")
	fs.Var(&o.caps, "cap", "")
	fs.Var(&o.caps, "c", "")
	fs.IntVar(&o.preserve, "preserve-fds", 0, "")
	fs.StringVar(&o.cgroup, "cgroup", "", "")
	fs.BoolVar(&o.ignorePaused, "ignore-paused", false, "")
	return c.parse(fs, 1, -1)
}

func execute(c *command) error {
	var o execOptions
	args, err := o.parse(c)
	if err != nil {
		return err
	}
	if o.cgroup != "" || o.preserve != 0 {
		return errdef.NotImplemented("exec: --cgroup and --preserve-fds are not supported")
	}
	k, err := c.load(args[0])
	if err != nil {
		return err
	}
	if err := k.loadSpec(); err != nil {
		return err
	}
	p, err := o.newProcess(k.spec, args[1:])
	if err != nil {
		return err
	}
	if err := checkTerminal(p.Terminal, o.console, o.detach); err != nil {
		return err
	}
	if s := k.status(); s == stopped || s == creating {
		return errdef.Conflict("cannot exec in a %s container", s)
	}
	t, err := c.target(k)
	if err != nil {
		return err
	}
	defer t.Pidfd.Close()
	stdio := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	e, err := runtime.Exec(c.ctx, t, p, stdio)
	if err != nil {
		return err
	}
	if err := writePid(o.pidFile, e.Pid); err != nil {
		unix.PidfdSendSignal(int(e.Pidfd.Fd()), unix.SIGKILL, nil, 0)
		return err
	}
	if e.Terminal != nil && o.console != "" {
		if err := sendTerminal(o.console, e.Terminal); err != nil {
			unix.PidfdSendSignal(int(e.Pidfd.Fd()), unix.SIGKILL, nil, 0)
			return err
		}
	}
	if o.detach {
		return nil
	}
	status, err := foreground(e.Pid, e.Pidfd, e.Terminal)
	if err != nil {
		return err
	}
	return exitOf(status)
}

// newProcess is the process to run: from the file of -p, or the container's own with another command.
func (o *execOptions) newProcess(s *specs.Spec, args []string) (*specs.Process, error) {
	p := &specs.Process{}
	if o.process != "" {
		data, err := os.ReadFile(o.process)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, p); err != nil {
			return nil, errdef.Invalid("process file %s: %w", o.process, err)
		}
		if len(p.Args) == 0 {
			return nil, errdef.Invalid("process file %s: args must not be empty", o.process)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errdef.Invalid("process args cannot be empty")
	}
	if s.Process != nil {
		*p = *s.Process
	}
	p.Args, p.Terminal = args, o.tty
	p.Env = append(append([]string{}, p.Env...), o.env...)
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	if o.label != "" {
		p.SelinuxLabel = o.label
	}
	if o.apparmor != "" {
		p.ApparmorProfile = o.apparmor
	}
	if o.noNewPrivs {
		p.NoNewPrivileges = true
	}
	if err := o.setUser(&p.User); err != nil {
		return nil, err
	}
	o.addCaps(p)
	return p, nil
}

func (o *execOptions) setUser(u *specs.User) error {
	if o.user != "" {
		uid, gid, both := strings.Cut(o.user, ":")
		*u = specs.User{}
		var err error
		if u.UID, err = parseID(uid); err != nil {
			return err
		}
		if both {
			if u.GID, err = parseID(gid); err != nil {
				return err
			}
		}
	}
	for _, g := range o.gids {
		gid, err := parseID(g)
		if err != nil {
			return err
		}
		u.AdditionalGids = append(u.AdditionalGids, gid)
	}
	return nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, errdef.Invalid("parse user: %q is not an id", s)
	}
	return uint32(n), nil
}

// addCaps adds the capabilities asked for to all sets but the ambient, which a root process does not need.
func (o *execOptions) addCaps(p *specs.Process) {
	if len(o.caps) == 0 {
		return
	}
	caps := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
		*set = append(append([]string{}, *set...), o.caps...)
	}
	p.Capabilities = &caps
}

// target is the container as a further process enters it. The caller closes its Pidfd.
func (c *command) target(k *container) (*runtime.Target, error) {
	t := &runtime.Target{Pid: k.Pid, Cgroup: k.Cgroup, Spec: k.spec, Outlive: true}
	var err error
	t.Pidfd, err = k.open()
	return t, err
}

// inside runs process p in the container, as spec describes it, and waits for its end; at the end of ctx it is killed.
func (c *command) inside(ctx context.Context, k *container, spec *specs.Spec, p *specs.Process, stdio [3]*os.File) (unix.WaitStatus, error) {
	t, err := c.target(k)
	if err != nil {
		return 0, err
	}
	defer t.Pidfd.Close()
	t.Spec = spec
	e, err := runtime.Exec(ctx, t, p, stdio)
	if err != nil {
		return 0, err
	}
	defer e.Pidfd.Close()
	stop := context.AfterFunc(ctx, func() { unix.PidfdSendSignal(int(e.Pidfd.Fd()), unix.SIGKILL, nil, 0) })
	defer stop()
	status, err := wait(e.Pid)
	if err == nil && ctx.Err() != nil {
		err = errdef.As(errdef.ErrDeadline, fmt.Errorf("killed: %w", context.Cause(ctx)))
	}
	return status, err
}
