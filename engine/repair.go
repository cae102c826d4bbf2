package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/runtime"
	"hull/state"
	"hull/state/plainjson"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What is recorded of a container whose monitor was killed: nobody saw how its process ended, and it was killed by
// whoever found that out.
const (
	exitLost  = 137
	lostError = "its monitor was killed"
)

// deleteWait bounds how long a repair waits for processes that do not die.
const deleteWait = 10 * time.Second

// settle repairs the container id if its monitor died and, as nobody else will, removes it if it was to remove itself
// at its end: then gone is true. One with a restart policy is judged by it.
func (e *Engine) settle(ctx context.Context, id string) (gone bool, err error) {
	repaired, err := e.repair(ctx, id)
	if err != nil {
		return false, err
	}
	if !repaired {
		if e.due(id) {
			err = e.resume(ctx, id)
		}
		return false, err
	}
	r, err := e.readRecord(e.dir(id))
	if isMissing(err) {
		return true, nil
	}
	switch {
	case err != nil:
		return false, nil // damaged: to be seen, and removed by hand
	case r.Host.kept():
		return false, e.resume(ctx, id)
	case !r.Host.AutoRemove:
		return false, nil
	}
	s, err := monitor.ReadState(e.dir(id))
	if err == nil && s.Starts == 0 {
		return false, nil // it was attached to and never started: it may still be
	}
	if err := e.remove(context.WithoutCancel(ctx), id); err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return false, err
	}
	return true, nil
}

// repair puts the container id in order if its monitor died: what still runs of it is killed, its end is recorded,
// and everything it had outside its own directory is freed. It costs one failed open when there is nothing to do.
func (e *Engine) repair(ctx context.Context, id string) (repaired bool, err error) {
	dir := e.runDir(id)
	if _, err := os.Lstat(dir); err != nil {
		return false, nil // not running, or another user's
	}
	if _, alive := monitor.Alive(dir); alive {
		return false, nil
	}
	release, err := monitor.Claim(dir)
	if errors.Is(err, errdef.ErrConflict) || isMissing(err) {
		return false, nil // somebody else does it, or the monitor has just left
	}
	if err != nil {
		return false, err
	}
	defer release()
	spec := new(specs.Spec)
	if b, err := os.ReadFile(filepath.Join(dir, monitor.SpecFile)); err == nil {
		_ = plainjson.Unmarshal(b, spec) // a half-written one had no start
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteWait)
	defer cancel()
	cfg := &runtime.Config{ID: id, Bundle: dir, Spec: spec, Cgroup: e.cgroup(id)}
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		cfg.Cgroup = spec.Linux.CgroupsPath // with --cgroup-parent it lies elsewhere
	}
	if err := runtime.Delete(ctx, cfg); err != nil {
		return false, err
	}
	if err := e.recordLoss(id, lostError, time.Now()); err != nil {
		return false, err
	}
	e.tellEnd(id)
	if err := monitor.LeaveMemory(dir); err != nil {
		return false, err
	}
	if err := e.dropNetwork(id); err != nil {
		return false, err
	}
	if spec.Linux != nil {
		if err := e.releaseIDs(id, spec.Linux.UIDMappings); err != nil {
			return false, err
		}
	}
	if err := e.unpublish(ctx, id); err != nil {
		return false, err
	}
	return true, monitor.Clear(dir)
}

// tellEnd is the event of an end that the monitor did not live to tell.
func (e *Engine) tellEnd(id string) {
	c, err := e.load(id)
	if err != nil || !c.known() || c.Running() || c.State.StartedAt.IsZero() {
		return
	}
	if e.recorded("die", id, c.State.StartedAt) {
		return
	}
	s := &c.State
	e.containerEvent(c, "die", "exitCode", strconv.Itoa(s.ExitCode), "execDuration", strconv.Itoa(int(s.FinishedAt.Sub(s.StartedAt).Seconds())))
	u := e.uses(c)
	if events := u.Ended(id); len(events) > 0 {
		_ = e.journal.Append(events...)
	}
}

// recordLoss writes the end of a container nobody saw ending, at a time when it had ended for sure.
func (e *Engine) recordLoss(id, why string, at time.Time) error {
	dir := e.dir(id)
	s, err := monitor.ReadState(dir)
	if err != nil && !errors.Is(err, errdef.ErrCorrupt) {
		return err
	}
	if err != nil || s.Status != monitor.StatusRunning {
		return nil // a damaged state counts as exited
	}
	s.Status, s.ExitCode, s.Error, s.Pid, s.Network = monitor.StatusExited, exitLost, why, 0, nil
	if s.FinishedAt = at.UTC(); s.FinishedAt.Before(s.StartedAt) { // somebody set the clock
		s.FinishedAt = s.StartedAt
	}
	s.Ran, s.Ends = s.FinishedAt.Sub(s.StartedAt), s.Ends+1
	b, err := plainjson.Marshal(s)
	if err != nil {
		return err
	}
	err = state.Write(filepath.Join(dir, monitor.StateFile), b)
	if isMissing(err) {
		return nil // the container is being removed
	}
	return err
}
