package runtime

import (
	"context"
	"os"

	"hull/trace"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config describes one container to make.
type Config struct {
	ID     string
	Bundle string      // what relative paths in Spec are relative to
	Spec   *specs.Spec // OCI runtime-spec 1.3
	Root   *Overlay    // nil: Spec.Root.Path is an already mounted directory
	Cgroup string      // below every hierarchy; "" takes Spec.Linux.CgroupsPath
	// Seccomp is a compiled filter (array of struct sock_filter) used instead of Spec.Linux.Seccomp.
	Seccomp []byte
	Stdio   [3]*os.File // ignored when Spec.Process.Terminal; nil is /dev/null
	// Paused keeps the process waiting before execve until Start is called (OCI create).
	// Not paused, Create returns only after execve has succeeded.
	Paused bool
	Trace  *trace.Trace
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
	Spec    *specs.Spec // the container's: namespaces, capabilities bounds, LSM labels, seccomp
	Seccomp []byte
}

// Process is a further process of a running container; a child of the caller.
type Process struct {
	Pid      int
	Pidfd    *os.File
	Terminal *os.File
}

// Create makes the container and its init process. On failure everything it made is gone again.
// Errors have errdef kinds ErrNoCommand and ErrCannotRun when only the command is at fault.
func Create(ctx context.Context, cfg *Config) (*Container, error) { panic("not yet") }

// Exec runs process p in the container t. It returns after execve succeeded.
func Exec(ctx context.Context, t *Target, p *specs.Process, stdio [3]*os.File) (*Process, error) {
	panic("not yet")
}

// Delete removes what outlives the init process: kills what is left in the cgroup, removes the cgroups,
// releases the id range. Idempotent; returns an error naming the processes that do not die by the deadline of ctx.
func Delete(ctx context.Context, cfg *Config) error { panic("not yet") }
