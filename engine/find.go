package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/state"

	"golang.org/x/sys/unix"
)

// lockWait bounds how long a command waits for another one that changes the same container.
const lockWait = 30 * time.Second

// find returns the id that a person means by s: a full id, a name, or the unambiguous beginning of an id, in this
// order. Only the last reads the directory of all containers.
func (e *Engine) find(s string) (string, error) {
	if err := e.ready(); err != nil {
		return "", err
	}
	s = strings.TrimPrefix(s, "/")
	if isID(s) {
		if e.exists(s) {
			return s, nil
		}
	}
	if id := e.named(s); id != "" && e.exists(id) {
		return id, nil
	}
	if !isHex(s) || len(s) >= idLength {
		return "", noSuchContainer(s)
	}
	names, err := readNames(e.containers())
	if err != nil {
		return "", e.storeError(err)
	}
	found := ""
	for _, id := range names {
		if !strings.HasPrefix(id, s) || !isID(id) || !e.exists(id) {
			continue
		}
		if found != "" {
			return "", errdef.Invalid("multiple IDs found with provided prefix: %s", s)
		}
		found = id
	}
	if found == "" {
		return "", noSuchContainer(s)
	}
	return found, nil
}

func noSuchContainer(s string) error { return errdef.NotFound("No such container: %s", clip(s)) }

// exists reports whether id is a container, damaged or not, and not an empty directory of a half-made one.
func (e *Engine) exists(id string) bool {
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(e.dir(id), recordFile), &st) == nil {
		return true
	}
	names, _ := readNames(e.dir(id))
	return len(names) > 0
}

// load reads the container id; its only error is that there is none. For a definition that cannot be used see
// Container.Damaged and Unread.
func (e *Engine) load(id string) (*Container, error) {
	r, err := e.readRecord(e.dir(id))
	switch {
	case isMissing(err) && !e.exists(id):
		return nil, noSuchContainer(id)
	case isMissing(err), errors.Is(err, errdef.ErrCorrupt):
		return damaged(id, err), nil
	case err != nil:
		return unread(id, err), nil
	}
	c := r.container()
	e.loadState(c)
	return c, nil
}

// damaged stands for a container whose definition is not what was written.
func damaged(id string, why error) *Container {
	return &Container{ID: id, Name: id[:12], Damaged: why.Error(), State: State{Status: StatusDead, Error: "its definition is damaged: " + why.Error()}}
}

// unread stands for a container whose definition may be whole.
func unread(id string, why error) *Container {
	return &Container{ID: id, Name: id[:12], Unread: why, State: State{Status: StatusDead, Error: "its definition cannot be read: " + why.Error()}}
}

// known reports whether c is what its definition says.
func (c *Container) known() bool { return c.Damaged == "" && c.Unread == nil }

// unreadable is the error for whoever needs what could not be read of c.
func (e *Engine) unreadable(c *Container) error {
	err, cure := c.Unread, ""
	switch {
	case errors.Is(err, fs.ErrPermission):
		return e.storeError(err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		cure = "close some, or raise ulimit -n or fs.file-max: "
	case errors.Is(err, unix.EIO):
		cure = "see dmesg for the disk's state, and if it is lost move " + e.dir(c.ID) + " away: "
	}
	return fmt.Errorf("container %s cannot be read, which is no proof that it is damaged: %s%w", c.ID[:12], cure, err)
}

// unknown is the error for whoever has to know what all containers use, when the definitions of some cannot be used; nil
// when there are none.
func (e *Engine) unknown(list []*Container, what string) error {
	var damaged []string
	for _, c := range list {
		if c.Unread != nil {
			return fmt.Errorf("the %s that containers use are not known: %w", what, e.unreadable(c))
		}
		damaged = append(damaged, c.ID[:12])
	}
	if damaged == nil {
		return nil
	}
	return errdef.Conflict("the definition of container %s is damaged, so its %s are not known: remove it first", strings.Join(damaged, ", "), what)
}

// loadState fills in c.State from what the monitor wrote, judged by whether there still is a monitor.
func (e *Engine) loadState(c *Container) {
	s, err := monitor.ReadState(e.dir(c.ID))
	if err != nil {
		c.State = State{Status: StatusExited, ExitCode: exitLost, Error: err.Error()}
		if !errors.Is(err, errdef.ErrCorrupt) {
			c.Unread, c.State.Status = err, StatusDead
		}
		return
	}
	c.State = State{
		Status: s.Status, Pid: s.Pid, ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, Error: s.Error,
		StartedAt: s.StartedAt, FinishedAt: s.FinishedAt, Warnings: s.Warnings, network: s.Network,
	}
	if c.Host.kept() {
		defer e.loadRestarts(c, s)
	}
	if s.Status == monitor.StatusExited && s.StartedAt.IsZero() {
		// As in Docker: what never ran is created, with the exit code and the error of the attempt.
		c.State.Status, c.State.FinishedAt = StatusCreated, time.Time{}
	}
	if s.Status == monitor.StatusRunning {
		if _, alive := monitor.Alive(e.runDir(c.ID)); !alive {
			// Somebody who may change it repairs it; to the rest it is as dead as it will be then.
			c.State.Status, c.State.ExitCode, c.State.Pid, c.State.Error = StatusExited, exitLost, 0, lostError
		}
	}
	switch {
	case c.State.Status != StatusRunning:
		c.State.Pid, c.State.network = 0, nil
	case e.frozen(c):
		c.State.Status = StatusPaused
	}
	c.loadPorts(s)
	e.loadHealth(c)
}

// get finds a container by name, id or prefix, settles it if its monitor died, and finishes an update of it that was
// killed.
func (e *Engine) get(ctx context.Context, name string) (*Container, error) {
	id, err := e.find(name)
	if err != nil {
		return nil, err
	}
	gone, err := e.settle(ctx, id)
	if err != nil {
		return nil, err
	}
	if gone {
		return nil, noSuchContainer(name)
	}
	c, err := e.load(id)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, noSuchContainer(name)
	}
	if err == nil && e.forsaken(c) && e.remove(context.WithoutCancel(ctx), id) == nil {
		return nil, noSuchContainer(name)
	}
	if err == nil && c.Running() {
		_ = e.heal(c) // what cannot be healed is no reason to say nothing of the container
		_ = e.followHost(c)
		err = e.finishUpdate(c)
	}
	return c, err
}

// use is get for callers that need the definition.
func (e *Engine) use(ctx context.Context, name string) (*Container, error) {
	c, err := e.get(ctx, name)
	if err == nil && c.Unread != nil {
		return nil, e.unreadable(c)
	}
	if err == nil && c.Damaged != "" {
		return nil, errdef.As(errdef.ErrCorrupt, errors.New("the definition of container "+c.ID+" is damaged and it can only be removed: "+c.Damaged))
	}
	return c, err
}

// lock takes the container's lock for a change of its state. It is never held across a wait for the container.
func (e *Engine) lock(ctx context.Context, id string) (*state.Locked, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New("waited "+lockWait.String()))
	defer cancel()
	l, err := state.Lock(ctx, e.dir(id))
	if isMissing(err) {
		return nil, noSuchContainer(id)
	}
	return l, err
}
