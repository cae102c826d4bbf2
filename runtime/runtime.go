// Package runtime turns an OCI bundle into a process: namespaces, control groups, mounts, rights, and then the
// user's program, as the OCI runtime-spec 1.3 describes it.
//
//	c, err := runtime.Create(ctx, &runtime.Config{ID: id, Bundle: dir, Spec: spec})
//	...
//	ws, err := c.Wait()
//	err = runtime.Delete(ctx, cfg)
//
// A start has three parts. The parent does what needs the rights and the memory of a Go process: it makes the control
// groups and the user namespace, clones and id-maps mounts, mounts the overlay, reads /etc/passwd of the image. Then
// it writes a kernel.Program, the list of system calls that are left. Two short-lived forks carry it out:
//
//	parent ──vfork──▶ stage 1: join cgroups, label, limits, setns ──vfork, CLONE_PARENT──▶ stage 2: mounts, pivot_root,
//	   │                 │                                                                    rights, seccomp, execve
//	   │ ◀───────────────┘ exits at once
//	   └─ pid, pidfd, failures: in the shared page of the Program; end of file of the status pipe says "executed"
//
// Nothing of the container is followed by path from outside: targets are opened with openat2(RESOLVE_IN_ROOT) below
// the new root and mounts are attached to the descriptors (threats: every mount race of runc since CVE-2021-30465).
//
// Beware: the children are children of the calling process, which has to reap them.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"hull/kernel"
	"hull/runtime/cgroup"
	"hull/trace"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Config describes one container to make.
type Config struct {
	ID     string
	Bundle string      // what relative paths in Spec are relative to; an existing directory
	Spec   *specs.Spec // OCI runtime-spec 1.3
	Root   *Overlay    // nil: Spec.Root.Path is an already mounted directory
	Cgroup string      // below every hierarchy; "" takes Spec.Linux.CgroupsPath
	// Seccomp is a compiled filter (array of struct sock_filter) used instead of Spec.Linux.Seccomp.
	Seccomp []byte
	Link    *Link // what the new network namespace of Spec is connected by; nil leaves only lo in it
	// Foreign, when set, makes the container in place of this package.
	Foreign *Foreign
	// Groups are names that the process's user joins beside Spec.Process.User.AdditionalGids, looked up in the image.
	Groups []string
	Stdio  [3]*os.File // ignored when Spec.Process.Terminal; nil is /dev/null
	// StartFifo is the path of a FIFO. The process waits before execve until Start writes to it (OCI create), and
	// outlives the caller. Without it Create returns only after execve has succeeded, and the process is killed when
	// the caller ends.
	StartFifo string
	// BeforePivot, which needs StartFifo, is called when the namespaces and mounts are made and the process has yet to
	// leave the host's root: the moment of the hooks prestart, createRuntime and createContainer. Exec works already,
	// with paths of the host. An error ends the container. The Terminal is not there yet.
	BeforePivot func(*Container) error
	// Init is the path in the container of a program that becomes process 1 and runs the command: it is given its own name,
	// the path of the command, and the command's arguments. "" for none.
	Init string
	// Preserve are descriptors the process gets as 3, 4, ... (runc's --preserve-fds, LISTEN_FDS).
	Preserve []*os.File
	Trace    *trace.Trace
}

// Overlay is a root file system of overlayfs layers, mounted id-mapped by the runtime.
type Overlay struct {
	Lower    []string // topmost first, absolute
	Upper    string
	Work     string
	Volatile bool // nothing in it has to survive a power cut: no sync on umount
}

// Container is a made container: its init process is a child of the caller.
type Container struct {
	Pid      int
	Pidfd    *os.File
	Terminal *os.File // pty master, when Spec.Process.Terminal
	Warnings []string // what was clamped or left out, for the person
}

// Target is the container a process is to be added to.
type Target struct {
	Pid     int
	Pidfd   *os.File
	Cgroup  string
	Spec    *specs.Spec // the container's: which namespaces it has, which ids are mapped
	Seccomp []byte      // compiled filter; nil for none
	Groups  []string    // as in Config
	// Foreign has made the container ID, whose bundle is Bundle.
	Foreign    *Foreign
	ID, Bundle string
	// Outlive lets the process live on when the caller ends; otherwise it is killed then.
	Outlive bool
}

// Process is a further process of a running container; a child of the caller.
type Process struct {
	Pid      int
	Pidfd    *os.File
	Terminal *os.File
}

// Create makes the container and its init process. On failure everything it made is gone again.
// Errors have errdef kinds ErrNoCommand and ErrCannotRun when only the command is at fault.
func Create(ctx context.Context, cfg *Config) (*Container, error) {
	p, err := Prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return p.Run(ctx)
}

// Prepared is a container that is made up to its processes. Run or Discard has to follow, once.
type Prepared struct {
	boot  *boot
	group *cgroup.Group
}

// Prepare does the part of Create that needs no process: control groups, user namespace, root file system, and the
// program of what is left. On failure everything it made is gone again.
func Prepare(ctx context.Context, cfg *Config) (_ *Prepared, err error) {
	if err := validate(cfg.Spec); err != nil {
		return nil, err
	}
	b := &boot{cfg: cfg, spec: cfg.Spec, process: cfg.Spec.Process, root: rootNone}
	p := &Prepared{boot: b}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Discard(ctx))
		}
	}()
	if b.prog, err = kernel.NewProgram(); err != nil {
		return nil, err
	}
	// Control groups and mounts have nothing to do with each other and take a millisecond each.
	groups := make(chan madeGroup, 1)
	go func() {
		var m madeGroup
		m.group, m.warnings, m.err = cgroup.Make(cgroup.Detect(), cfg.cgroupPath(), cfg.Spec.Linux.Resources)
		groups <- m
	}()
	err = b.openNamespaces()
	cfg.Trace.Step("namespaces")
	if err == nil && b.net != nil {
		b.link()
	}
	if err == nil {
		err = b.openRoot()
		cfg.Trace.Step("root file system")
	}
	made := <-groups
	cfg.Trace.Step("control groups")
	if err = errors.Join(err, made.err); made.err == nil {
		p.group = made.group
	}
	b.warnings = append(b.warnings, made.warnings...)
	if err != nil {
		return nil, err
	}
	if b.door, err = made.group.Door(); err != nil {
		return nil, err
	}
	if err := b.write(ctx); err != nil {
		return nil, err
	}
	cfg.Trace.Step("program")
	return p, nil
}

// Run makes the container's processes. It returns as Create does, and p is used up.
func (p *Prepared) Run(ctx context.Context) (*Container, error) {
	b := p.boot
	b.linking.Wait()
	b.cfg.Trace.Step("network")
	if b.linkErr != nil {
		return nil, errors.Join(b.linkErr, p.Discard(ctx))
	}
	c, err := b.run(ctx)
	b.cfg.Trace.Step("fork, mounts, execve")
	if err != nil {
		return nil, errors.Join(err, p.Discard(ctx))
	}
	c.Warnings = b.warnings
	b.close()
	return c, nil
}

// Discard gives everything back. A control group that stays is found again by its name.
func (p *Prepared) Discard(ctx context.Context) error {
	p.boot.close()
	if o := p.boot.cfg.Root; o != nil && o.Volatile {
		// With this mark overlayfs refuses a layer that may have lost writes. This one had none.
		mark := filepath.Join(o.Work, "work", "incompat", "volatile")
		_ = os.Remove(filepath.Join(mark, "dirty"))
		_ = os.Remove(mark)
	}
	if p.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
	defer cancel()
	return p.group.Destroy(ctx)
}

// link connects the network namespace, beside other work.
func (b *boot) link() {
	b.linking.Go(func() {
		l, ns := b.cfg.Link, int(b.net.Fd())
		b.linkErr = l.Connect(ns)
		if errors.Is(b.linkErr, unix.EEXIST) { // of an earlier start: the name is this container's alone
			if b.linkErr = Disconnect(l.Host); b.linkErr == nil {
				b.linkErr = l.Connect(ns)
			}
		}
	})
}

type madeGroup struct {
	group    *cgroup.Group
	warnings []string
	err      error
}

// Start lets a container made with StartFifo go on.
func Start(fifo string) error {
	// The reader is there as long as the process waits; without one, open fails with ENXIO instead of waiting.
	f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("start: the container's process is gone")
	}
	if err != nil {
		return err
	}
	_, err = f.Write([]byte{0})
	return errors.Join(err, f.Close())
}

// Delete removes what outlives the init process: it kills what is left in the control group and removes the group in
// every hierarchy. Idempotent; an error names the processes that do not die by the deadline of ctx.
func Delete(ctx context.Context, cfg *Config) error {
	if cfg.Foreign != nil {
		// What it says does not count: the group goes below, with what is in it.
		_ = cfg.Foreign.container(cfg.Bundle, cfg.ID).delete(ctx)
	}
	g, err := cgroup.Open(cgroup.Detect(), cfg.cgroupPath())
	if err != nil {
		return err
	}
	return g.Destroy(ctx)
}

func (cfg *Config) cgroupPath() string {
	if cfg.Cgroup != "" {
		return cfg.Cgroup
	}
	if l := cfg.Spec.Linux; l != nil && l.CgroupsPath != "" {
		return l.CgroupsPath
	}
	return "hull-runtime/" + cfg.ID
}
