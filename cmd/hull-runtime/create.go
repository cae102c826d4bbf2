package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"hull/errdef"
	"hull/runtime"
	"hull/state"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// clearTimeout bounds the clearing up after a failure, and delete.
const clearTimeout = 10 * time.Second

// createOptions are those of create and run.
type createOptions struct {
	bundle, pidFile, console string
	preserve                 int
	noPivot, noKeyring       bool
}

func (o *createOptions) register(fs *flag.FlagSet) {
	fs.StringVar(&o.bundle, "bundle", "", "")
	fs.StringVar(&o.bundle, "b", "", "")
	fs.StringVar(&o.pidFile, "pid-file", "", "")
	fs.StringVar(&o.console, "console-socket", "", "")
	fs.IntVar(&o.preserve, "preserve-fds", 0, "")
	fs.BoolVar(&o.noPivot, "no-pivot", false, "")
	fs.BoolVar(&o.noKeyring, "no-new-keyring", false, "") // none is made
}

func create(c *command) error {
	var o createOptions
	fs := c.flags()
	o.register(fs)
	args, err := c.parse(fs, 1, 1)
	if err != nil {
		return err
	}
	_, err = c.create(args[0], &o, true)
	return err
}

// made is a container just made: what its maker still holds of it.
type made struct {
	*container
	*runtime.Container
}

// create makes the container id. detached says that nobody will stay to hold its terminal.
func (c *command) create(id string, o *createOptions, detached bool) (_ *made, err error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if o.noPivot {
		return nil, errdef.Unavailable("--no-pivot: a root that cannot be pivoted from is not supported; it could be left again")
	}
	bundle, err := filepath.Abs(o.bundle)
	if err != nil {
		return nil, err
	}
	spec, err := readSpec(filepath.Join(bundle, specFile))
	if err != nil {
		return nil, err
	}
	if err := checkHooks(spec); err != nil {
		return nil, err
	}
	if err := checkTerminal(spec.Process != nil && spec.Process.Terminal, o.console, detached); err != nil {
		return nil, err
	}
	k := &container{dir: filepath.Join(c.root, id), spec: spec, record: record{
		Version: specs.Version, ID: id, Bundle: bundle, Rootfs: spec.Root.Path, Created: time.Now().UTC(),
		Cgroup: spec.Linux.CgroupsPath, Annotations: spec.Annotations, Creating: true,
	}}
	if !filepath.IsAbs(k.Rootfs) {
		k.Rootfs = filepath.Join(bundle, k.Rootfs)
	}
	if k.Cgroup == "" {
		k.Cgroup = ownCgroup(id)
	}
	unlock, err := k.claim(c)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var m *made
	defer func() {
		if err != nil {
			err = errors.Join(err, c.clear(k, m))
		}
	}()
	if m, err = c.boot(k, o); err != nil {
		return nil, err
	}
	for _, w := range m.Warnings {
		c.report("warning", w)
	}
	if err := c.settle(m, o); err != nil {
		return nil, err
	}
	return m, nil
}

// clear ends a container that could not be made: it continues with delete, as the runtime-spec says of failed hooks.
func (c *command) clear(k *container, m *made) error {
	if m != nil {
		// k.remove kills by the control group; where there is none, this does.
		unix.PidfdSendSignal(int(m.Pidfd.Fd()), unix.SIGKILL, nil, 0)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), clearTimeout)
	defer cancel()
	if err := k.remove(ctx); err != nil {
		return err
	}
	if k.Pid == 0 {
		return nil // nothing was there for hooks to notice
	}
	return c.hooks(k, "poststop", stopped)
}

// claim makes the container's directory, which exactly one of several creates can do, with all that has to be known
// to clear up if this process dies.
func (k *container) claim(c *command) (unlock func(), err error) {
	if err := os.MkdirAll(c.root, 0o700); err != nil {
		return nil, err
	}
	err = os.Mkdir(k.dir, 0o711)
	if errors.Is(err, fs.ErrExist) {
		return nil, errdef.Conflict("container with given ID already exists: %s", k.ID)
	}
	if err != nil {
		return nil, err
	}
	unlock, err = k.lock()
	if err == nil {
		if err = k.write(); err == nil {
			return unlock, nil
		}
		unlock()
	}
	return nil, errors.Join(err, state.Remove(k.dir))
}

// write writes the files a container begins with.
func (k *container) write() error {
	data, err := json.Marshal(k.spec)
	if err != nil {
		return err
	}
	if err := state.Write(filepath.Join(k.dir, specFile), data); err != nil {
		return err
	}
	if err := unix.Mkfifo(k.fifo(), 0o600); err != nil {
		return &os.PathError{Op: "mkfifo", Path: k.fifo(), Err: err}
	}
	return k.save()
}

// boot makes the process.
func (c *command) boot(k *container, o *createOptions) (*made, error) {
	cfg := k.config()
	cfg.StartFifo = k.fifo()
	cfg.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	preserve, env, err := inherited(o.preserve)
	if err != nil {
		return nil, err
	}
	cfg.Preserve = preserve
	if k.spec.Process != nil {
		k.spec.Process.Env = append(k.spec.Process.Env, env...)
	}
	if k.spec.Hooks != nil {
		cfg.BeforePivot = func(r *runtime.Container) error { return c.createHooks(k, r) }
	}
	r, err := runtime.Create(c.ctx, cfg)
	if err != nil {
		return nil, err
	}
	k.setPid(r.Pid)
	return &made{k, r}, nil
}

func (k *container) setPid(pid int) {
	k.Pid = pid
	_, k.PidStart = processState(pid)
}

// createHooks runs the hooks of create. The container is kept with its process first: hooks may take long.
func (c *command) createHooks(k *container, r *runtime.Container) error {
	k.setPid(r.Pid)
	if err := k.save(); err != nil {
		return err
	}
	for _, name := range []string{"prestart", "createRuntime"} {
		if err := c.hooks(k, name, creating); err != nil {
			return err
		}
	}
	return c.containerHooks(k, "createContainer", creating)
}

// settle makes the container known: its terminal, its pid, its state.
func (c *command) settle(m *made, o *createOptions) error {
	if m.Terminal != nil && o.console != "" {
		if err := sendTerminal(o.console, m.Terminal); err != nil {
			return err
		}
	}
	if err := writePid(o.pidFile, m.container.Pid); err != nil {
		return err
	}
	m.Creating = false
	return m.save()
}

// writePid writes a pid file; readers see it whole or not at all.
func writePid(path string, pid int) error {
	if path == "" {
		return nil
	}
	return state.Write(path, []byte(strconv.Itoa(pid)))
}

// inherited returns the descriptors to pass on: those of socket activation (sd_listen_fds(3)), then n further ones.
func inherited(n int) (files []*os.File, env []string, err error) {
	listen := 0
	if v := os.Getenv("LISTEN_FDS"); v != "" {
		if listen, err = strconv.Atoi(v); err != nil || listen < 0 {
			return nil, nil, errdef.Invalid("invalid LISTEN_FDS %q", v)
		}
		if listen > 0 {
			env = []string{"LISTEN_FDS=" + v, "LISTEN_PID=1"}
			if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
				env = append(env, "LISTEN_FDNAMES="+names)
			}
		}
	}
	if n < 0 {
		return nil, nil, errdef.Invalid("--preserve-fds: %d is not a number of descriptors", n)
	}
	for fd := 3; fd < 3+listen+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, nil, errdef.Invalid("--preserve-fds: descriptor %d is not open", fd)
		}
		files = append(files, os.NewFile(uintptr(fd), "preserved"))
	}
	return files, env, nil
}

// checkTerminal refuses the combinations in which a terminal would have no owner.
func checkTerminal(tty bool, console string, detached bool) error {
	switch {
	case tty && detached && console == "":
		return errdef.Invalid("cannot allocate tty if hull-runtime will detach without setting console socket")
	case console != "" && (!tty || !detached):
		return errdef.Invalid("cannot use console socket if hull-runtime will not detach or allocate tty")
	}
	return nil
}
