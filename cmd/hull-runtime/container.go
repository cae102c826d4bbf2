package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hull/errdef"
	"hull/runtime"
	"hull/runtime/cgroup"
	"hull/state"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The files of a container below <root>/<id>/, which is made by create and removed by delete. It is locked by
// whatever changes it.
const (
	recordFile = "state.json"  // record below
	specFile   = "config.json" // the configuration as it was at create: what the bundle says later does not count
	fifoFile   = "exec.fifo"   // what the process waits on until start; gone afterwards
	lockFile   = "lock"
)

// The states of the runtime-spec, and runc's "paused".
const (
	creating = specs.StateCreating
	created  = specs.StateCreated
	running  = specs.StateRunning
	stopped  = specs.StateStopped
	paused   = specs.ContainerState("paused")
)

// record is what this runtime keeps of a container.
type record struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`                // 0 until the process exists
	PidStart    uint64            `json:"pidStart"`           // field 22 of /proc/PID/stat: guards against a reused pid
	Creating    bool              `json:"creating,omitempty"` // create is not done: hooks run, or it was killed
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Cgroup      string            `json:"cgroup"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type container struct {
	dir string
	record
	spec *specs.Spec
}

// checkID refuses what is no name of a container. It becomes the name of a directory and of control groups.
func checkID(id string) error {
	ok := id != "" && id != "." && id != ".." && len(id) <= 255
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+-.", c) >= 0)
	}
	if !ok {
		return errdef.Invalid("invalid container ID format: %q", id)
	}
	return nil
}

// load reads the container id.
func (c *command) load(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	k := &container{dir: filepath.Join(c.root, id)}
	data, err := os.ReadFile(filepath.Join(k.dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdef.NotFound("container %s does not exist", id)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &k.record); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("state of container %s: %w", id, err))
	}
	return k, nil
}

// loadLocked is load for whoever changes the container. unlock is never nil.
func (c *command) loadLocked(id string) (k *container, unlock func(), err error) {
	if k, err = c.load(id); err != nil {
		return nil, func() {}, err
	}
	unlock, err = k.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, func() {}, errdef.NotFound("container %s does not exist", id)
	}
	if err != nil {
		return nil, func() {}, err
	}
	// What was read before the lock may be old.
	if k, err = c.load(id); err != nil {
		unlock()
		return nil, func() {}, err
	}
	return k, unlock, nil
}

// lock waits until this process alone holds the container. The lock is a POSIX one: a flock would live on in the
// forked process of the container, which keeps our descriptors until it executes.
func (k *container) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(k.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
		return func() { f.Close() }, nil
	}
}

// loadSpec reads the configuration kept at create.
func (k *container) loadSpec() error {
	s, err := readSpec(filepath.Join(k.dir, specFile))
	k.spec = s
	return err
}

func (k *container) save() error {
	data, err := json.Marshal(&k.record)
	if err != nil {
		return err
	}
	return state.Write(filepath.Join(k.dir, recordFile), data)
}

func (k *container) fifo() string { return filepath.Join(k.dir, fifoFile) }

// config is the container as package runtime wants it.
func (k *container) config() *runtime.Config {
	return &runtime.Config{ID: k.ID, Bundle: k.Bundle, Spec: k.spec, Cgroup: k.Cgroup}
}

func (k *container) group() (*cgroup.Group, error) { return cgroup.Open(cgroup.Detect(), k.Cgroup) }

// ownCgroup is the control group of a container whose configuration names none.
func ownCgroup(id string) string { return "hull-runtime/" + id }

// status asks the kernel.
func (k *container) status() specs.ContainerState {
	if k.Pid == 0 {
		return creating
	}
	if st, start := processState(k.Pid); start != k.PidStart || st == 'Z' || st == 'X' {
		return stopped
	}
	if k.Creating {
		return creating
	}
	if unix.Access(k.fifo(), unix.F_OK) == nil {
		return created
	}
	if g, err := k.group(); err == nil && g.Frozen() {
		return paused
	}
	return running
}

// processState returns the state letter of a process and when it started, in ticks since boot; 0 and 0 without one.
func processState(pid int) (letter byte, start uint64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The name in parentheses may hold anything: proc(5). The state is field 3, the start field 22.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return 0, 0
	}
	fmt.Sscan(fields[19], &start)
	return fields[0][0], start
}

// open opens the container's process, which cannot be mistaken for another one afterwards.
func (k *container) open() (*os.File, error) {
	if k.Pid == 0 {
		return nil, errdef.Conflict("container %s is not running", k.ID)
	}
	fd, err := unix.PidfdOpen(k.Pid, 0)
	if err != nil {
		return nil, errdef.Conflict("container %s is not running", k.ID)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if k.status() == stopped {
		f.Close()
		return nil, errdef.Conflict("container %s is not running", k.ID)
	}
	return f, nil
}

// state is what hooks get and `state` prints.
func (k *container) state(status specs.ContainerState) specs.State {
	s := specs.State{Version: specs.Version, ID: k.ID, Status: status, Pid: k.Pid, Bundle: k.Bundle, Annotations: k.Annotations}
	if status == stopped {
		s.Pid = 0
	}
	return s
}

// remove kills what is left of the container and forgets it.
func (k *container) remove(ctx context.Context) error {
	g, err := k.group()
	if err != nil {
		return err
	}
	if err := g.Destroy(ctx); err != nil {
		return err
	}
	if k.Cgroup == ownCgroup(k.ID) {
		if g, err := cgroup.Open(cgroup.Detect(), filepath.Dir(k.Cgroup)); err == nil {
			g.Prune()
		}
	}
	return state.Remove(k.dir)
}

// readSpec reads a configuration and checks that it is of a version we know.
func readSpec(path string) (*specs.Spec, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdef.NotFound("OCI configuration %s not found", path)
	}
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, errdef.Invalid("OCI configuration %s: %w", path, err)
	}
	if !strings.HasPrefix(s.Version, "1.") {
		return nil, errdef.Invalid("OCI configuration %s: unsupported ociVersion %q, this runtime knows 1.0.0 to %s", path, s.Version, specs.Version)
	}
	if s.Root == nil {
		return nil, errdef.Invalid("OCI configuration %s has no root", path)
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	return s, nil
}
