package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/state"
	"hull/state/plainjson"
)

// The life of a container with a restart policy. Each arrow may be cut by a kill; whoever looks at the container next
// finds out from the files and goes on from there.
//
//	          start                    end, seen by the monitor or by repair
//	created ─────────► running ─────────────────────────────────────────────► exited
//	                     ▲                                                       │ judge: does the policy want it again?
//	                     │ the back-off is over                                  ▼
//	                     └──────────────────────────────────────────────── restarting
//	                                                                             │ stop, kill, rm -f: forget
//	                                                                             ▼
//	                                                                           exited
//
// An end is judged once: monitor.State.Ends counts them, restarts.Judged is the last one judged. The monitor of the ended
// container runs `hull event exit ID`, which judges and spawns the next monitor at once; that one waits out the back-off,
// so that a container that crashes again and again costs a sleeping monitor and nothing more. If that command or the
// waiting monitor is killed, the container is found by its entry in <run>/kept.

// RestartPolicy says when a container that ended is started again. The zero value is never.
type RestartPolicy struct {
	Name    string `json:"name,omitempty"`    // "", "always", "unless-stopped" or "on-failure"
	Retries int    `json:"retries,omitempty"` // of on-failure; 0 is without end
}

// The policies, in Docker's words.
const (
	restartAlways        = "always"
	restartUnlessStopped = "unless-stopped"
	restartOnFailure     = "on-failure"
)

// The back-off between two starts by policy is Docker's: it doubles from the first to the longest, and begins anew after
// a container has run for a while.
const (
	backOffFirst   = 100 * time.Millisecond
	backOffLongest = time.Minute
	backOffReset   = 10 * time.Second
)

// restarts is what has become of a container's policy, <root>/containers/<id>/restart.json. Only who has the container
// locked writes it. A missing or damaged one is zero: a power cut may cost a count, not a container.
type restarts struct {
	Stopped bool          `json:"stopped,omitempty"` // by a person, after the last start
	Halted  bool          `json:"halted,omitempty"`  // it ran when the machine was shut down: for the boot to judge
	Count   int           `json:"count,omitempty"`   // of starts by policy since a person's
	Delay   time.Duration `json:"delay,omitempty"`   // before the last of them
	Judged  int           `json:"judged,omitempty"`  // State.Ends of the last end that was judged
	Due     time.Time     `json:"due,omitzero"`      // when it is started again; zero is never
	Failed  bool          `json:"failed,omitempty"`  // no monitor waits for that: it could not be prepared
}

const (
	restartFile = "restart.json"
	maxRestart  = 4 << 10
)

func (e *Engine) readRestarts(id string) *restarts {
	r := new(restarts)
	b, err := state.Read(filepath.Join(e.dir(id), restartFile), maxRestart)
	if err != nil || plainjson.Unmarshal(b, r) != nil {
		return new(restarts)
	}
	return r
}

// writeRestarts with durable set survives a power cut: what a person said, not what the engine counts.
func (e *Engine) writeRestarts(id string, r *restarts, durable bool) error {
	b, err := plainjson.Marshal(r)
	if err != nil {
		return err
	}
	write := state.Write
	if durable {
		write = state.WriteDurable
	}
	return write(filepath.Join(e.dir(id), restartFile), b)
}

// waiting reports whether the end s was judged and the container is to be started again.
func (r *restarts) waiting(s *monitor.State) bool {
	return !r.Due.IsZero() && r.Judged == s.Ends && s.Status == monitor.StatusExited
}

// owed reports whether somebody has to judge the end s, or to go on with what was judged.
func (r *restarts) owed(s *monitor.State) bool {
	return s.Status == monitor.StatusExited && !r.Stopped && !r.Halted && (r.Judged != s.Ends || !r.Due.IsZero())
}

// judge decides about the end s.
func (r *restarts) judge(h *Host, s *monitor.State, now time.Time) {
	r.Judged, r.Due, r.Failed = s.Ends, time.Time{}, false
	switch {
	case s.Unhealthy && h.onUnhealthy() == unhealthyStop:
		r.Stopped = true
		return
	case s.Unhealthy && h.onUnhealthy() == unhealthyRestart:
	case !h.Restart.wants(r, s.ExitCode):
		return
	}
	switch {
	case s.Ran >= backOffReset || r.Delay == 0:
		r.Delay = backOffFirst
	default:
		r.Delay = min(2*r.Delay, backOffLongest)
	}
	r.Count++
	r.Due = now.Add(r.Delay)
}

// wants reports whether a container that ended by itself is to be started again.
func (p RestartPolicy) wants(r *restarts, exitCode int) bool {
	switch p.Name {
	case restartAlways, restartUnlessStopped:
		return true
	case restartOnFailure:
		return exitCode != 0 && (p.Retries == 0 || r.Count < p.Retries)
	}
	return false
}

// remaining is how long the back-off still lasts: never longer than it was to be, whatever became of the clock.
func (r *restarts) remaining(now time.Time) time.Duration {
	return min(max(r.Due.Sub(now), 0), r.Delay)
}

func checkRestart(h *Host) error {
	p := h.Restart
	switch {
	case p.Name == "no":
		h.Restart.Name = ""
	case p.Name != "" && p.Name != restartAlways && p.Name != restartUnlessStopped && p.Name != restartOnFailure:
		return errdef.Invalid("invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", clip(p.Name))
	}
	switch {
	case p.Retries < 0:
		return errdef.Invalid("invalid restart policy: maximum retry count cannot be negative")
	case p.Retries > 0 && p.Name != restartOnFailure:
		return errdef.Invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")
	case h.AutoRemove && h.Restart.Name != "":
		return errdef.Invalid("can't create 'AutoRemove' container with restart policy")
	}
	return checkUnhealthy(h)
}

// kept reports whether an end of the container is to be judged.
func (h *Host) kept() bool { return h.Restart.Name != "" || h.onUnhealthy() != "" }

// Containers whose ends are to be judged have an entry in <run>/kept from their start to the judgement that they stay as
// they are. So whoever lists containers finds those that ended and were not judged without looking at all.
func (e *Engine) keptDir() string { return filepath.Join(e.run, "kept") }

func (e *Engine) keep(id string) error {
	name := filepath.Join(e.keptDir(), id)
	err := os.WriteFile(name, nil, 0o600)
	if isMissing(err) {
		if err = os.MkdirAll(e.keptDir(), 0o700); err == nil {
			err = os.WriteFile(name, nil, 0o600)
		}
	}
	return err
}

func (e *Engine) unkeep(id string) {
	_ = os.Remove(filepath.Join(e.keptDir(), id)) // a stale one costs its finder a look
}

// loadRestarts fills in what c's policy makes of its state s.
func (e *Engine) loadRestarts(c *Container, s *monitor.State) {
	r := e.readRestarts(c.ID)
	c.State.Restarts = r.Count
	if r.owed(s) && r.Judged != s.Ends {
		r.judge(&c.Host, s, time.Now()) // as whoever is on the way to do so will
	}
	if c.State.Status == StatusExited && r.waiting(s) {
		c.State.Status = StatusRestarting
	}
}

// resume does what is due after the end of the container id: it judges the end, and sets a monitor to start the container
// again when the back-off is over. Idempotent, and right after any other that was killed at any instruction.
func (e *Engine) resume(ctx context.Context, id string) error {
	if e.halting() {
		return nil // judged after the boot
	}
	l, err := e.lock(ctx, id)
	if errors.Is(err, errdef.ErrNotFound) {
		e.unkeep(id)
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	return e.resumeLocked(ctx, id)
}

func (e *Engine) resumeLocked(ctx context.Context, id string) error {
	c, err := e.load(id)
	if err != nil || c.Damaged != "" {
		e.unkeep(id)
		return nil // nobody can start it
	}
	if c.Unread != nil {
		return e.unreadable(c)
	}
	s, err := monitor.ReadState(e.dir(id))
	if err != nil {
		return err
	}
	if c.Running() || e.attended(ctx, id) {
		return nil
	}
	if s.Status == monitor.StatusRunning { // its monitor is gone and could not write how it ended
		if err := e.recordLoss(id, lostError, time.Now()); err != nil {
			return err
		}
		if s, err = monitor.ReadState(e.dir(id)); err != nil {
			return err
		}
	}
	r := e.readRestarts(id)
	if !c.Host.kept() || !r.owed(s) {
		e.unkeep(id)
		return nil
	}
	now := time.Now()
	if r.Judged != s.Ends {
		r.judge(&c.Host, s, now)
		if err := e.writeRestarts(id, r, r.Stopped); err != nil {
			return err
		}
	}
	switch {
	case r.Due.IsZero():
		e.unkeep(id)
		return nil
	case r.Failed && r.remaining(now) > 0:
		return nil // not by every command
	}
	var failed error
	for range launchTries {
		_, failed = e.launch(ctx, c, max(r.remaining(now), time.Millisecond))
		if failed == nil || errors.Is(failed, errdef.ErrNotModified) { // somebody else's monitor was quicker
			return nil
		}
	}
	return errors.Join(failed, e.notLaunched(c, s, r, failed))
}

// launchTries is how often a start by policy is tried that could not be prepared: the machine may be out of something
// for a moment.
const launchTries = 3

// notLaunched records that a start by policy could not even be prepared. It is an end like others, with a back-off, but
// there is no monitor to wait for it: the first command after it tries again.
func (e *Engine) notLaunched(c *Container, s *monitor.State, r *restarts, why error) error {
	s.Ends, s.Ran, s.ExitCode, s.Error = s.Ends+1, 0, exitNotStarted, "restart: "+why.Error()
	s.FinishedAt = time.Now().UTC()
	r.judge(&c.Host, s, s.FinishedAt)
	r.Failed = true
	return errors.Join(monitor.WriteState(e.dir(c.ID), s, state.WriteDurable), e.writeRestarts(c.ID, r, false), e.keep(c.ID))
}

// exitNotStarted is the exit code, Docker's, of a container that could not be started for a reason of the engine's.
const exitNotStarted = 128

// attended reports whether the container id has a monitor that is anywhere from the back-off before a start to the end: it
// sees to what comes then.
func (e *Engine) attended(ctx context.Context, id string) bool {
	if _, alive := monitor.Alive(e.runDir(id)); !alive {
		return false
	}
	resp, err := e.ask(ctx, id, &monitor.Request{Op: monitor.OpState})
	return err == nil && resp.Busy
}

func restartingFor(id string) error {
	return errdef.Conflict("Container %s is restarting, wait until the container is running", id)
}

// resumeAll resumes the containers that ended without anybody having judged it: what ran for that was killed.
func (e *Engine) resumeAll(ctx context.Context, live []string) error {
	names, err := readNames(e.keptDir())
	if err != nil {
		return err
	}
	for _, id := range names {
		if !isID(id) || slices.Contains(live, id) {
			continue
		}
		if err := e.resume(ctx, id); err != nil {
			continue // said in the container's state; a list is of use without it
		}
	}
	return nil
}

// due reports whether the container id may have ended without being judged. It costs a failed look at a file.
func (e *Engine) due(id string) bool {
	if _, err := os.Lstat(filepath.Join(e.keptDir(), id)); err != nil {
		return false
	}
	_, err := os.Lstat(e.runDir(id))
	return isMissing(err)
}

// begun records that a person starts c, which is locked: counts begin anew.
func (e *Engine) begun(c *Container) error {
	if !c.Host.kept() {
		return nil
	}
	s, err := monitor.ReadState(e.dir(c.ID))
	if err != nil {
		return err
	}
	r := &restarts{Judged: s.Ends}
	if *e.readRestarts(c.ID) == *r {
		return nil
	}
	return e.writeRestarts(c.ID, r, true)
}

// notBegun records that the start of c by a person failed, which no policy repeats. c is locked.
func (e *Engine) notBegun(c *Container) {
	if !c.Host.kept() {
		return
	}
	if s, err := monitor.ReadState(e.dir(c.ID)); err == nil {
		_ = e.writeRestarts(c.ID, &restarts{Judged: s.Ends}, false) // or it is tried again
	}
	e.unkeep(c.ID)
}

// forget records that a person wants c stopped, so that no policy brings it back before a start or a boot. A back-off
// ends here. The state of c is that of after.
func (e *Engine) forget(ctx context.Context, c *Container) error {
	if !c.Host.kept() || !c.known() {
		return nil
	}
	l, err := e.lock(ctx, c.ID)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	r := e.readRestarts(c.ID)
	if !r.Stopped || !r.Due.IsZero() {
		r.Stopped, r.Halted, r.Due = true, false, time.Time{}
		if err := e.writeRestarts(c.ID, r, true); err != nil {
			return err
		}
	}
	return e.cancelWait(ctx, c)
}

// cancelWait ends the back-off of c, which is locked and no longer due. The state of c is that of after: it runs when this
// came too late, and then it is for the caller to end.
func (e *Engine) cancelWait(ctx context.Context, c *Container) error {
	e.unkeep(c.ID)
	_, err := e.ask(ctx, c.ID, &monitor.Request{Op: monitor.OpCancel})
	e.loadState(c)
	switch {
	case err == nil, errors.Is(err, monitor.ErrNoMonitor), errors.Is(err, errdef.ErrConflict):
		return nil // nobody there, or it runs
	case !errors.Is(err, monitor.ErrSilent):
		return err
	case c.Running():
		return nil
	}
	// It might begin the start later.
	if err := e.killMonitor(ctx, c.ID); err != nil {
		return err
	}
	_, err = e.repair(ctx, c.ID)
	return err
}

// setRestart changes the restart policy, if that is possible.
func (r *record) setRestart(p RestartPolicy) error {
	r.Host.Restart = p
	err := checkRestart(&r.Host)
	if err != nil && r.Host.AutoRemove {
		return errdef.Invalid("Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	return err
}

// beforePolicy prepares for the policy that c, which is locked, is about to get; was says whether ends of it were judged
// so far. One that waits to be started again stops waiting when the policy does not want it. undo is for when it does not
// get the policy after all: one that has stopped waiting is found, and waits again.
func (e *Engine) beforePolicy(ctx context.Context, c *Container, was bool) (undo func() error, err error) {
	s, err := monitor.ReadState(e.dir(c.ID))
	if err != nil {
		return nil, err
	}
	r := e.readRestarts(c.ID)
	before := *r
	if !was {
		// What ended before there was a policy stays ended, also at the next boot.
		*r = restarts{Judged: s.Ends, Stopped: !c.Running()}
	}
	if r.waiting(s) && !c.Host.Restart.wants(&restarts{}, s.ExitCode) {
		r.Due = time.Time{}
		if _, err := e.ask(ctx, c.ID, &monitor.Request{Op: monitor.OpCancel}); err != nil && !errors.Is(err, monitor.ErrNoMonitor) && !errors.Is(err, errdef.ErrConflict) {
			return nil, err
		}
	}
	if err := e.writeRestarts(c.ID, r, true); err != nil {
		return nil, err
	}
	return func() error { return e.writeRestarts(c.ID, &before, false) }, nil
}

// afterPolicy makes sure that the end of c, which is locked and has got a policy, is judged by it.
func (e *Engine) afterPolicy(ctx context.Context, c *Container) error {
	if !c.Running() || !c.Host.kept() {
		return nil // the next judgement says no
	}
	if err := e.keep(c.ID); err != nil {
		return err
	}
	_, err := e.ask(ctx, c.ID, &monitor.Request{Op: monitor.OpOnExit, OnExit: e.onExit(c)})
	if errors.Is(err, monitor.ErrNoMonitor) {
		return nil // ended meanwhile; the next command finds it
	}
	return err
}

// onExit is the command that judges the end of c; nil when nothing is due then.
func (e *Engine) onExit(c *Container) []string {
	if len(e.opt.Self) == 0 || !c.Host.AutoRemove && !c.Host.kept() && !c.publishes() {
		return nil
	}
	return append(slices.Clone(e.opt.Self), "event", "exit", c.ID)
}

// Restart stops the container if it runs, and starts it. The warnings are those of Start.
func (e *Engine) Restart(ctx context.Context, name string, o StopOptions) (warnings []string, err error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, err
	}
	if c.Running() && c.Host.AutoRemove {
		return nil, errdef.Conflict("container %s removes itself when it stops (--rm), so it cannot be restarted", c.ID)
	}
	if _, _, err := stopWith(&c.Config, o); err != nil {
		return nil, err
	}
	if err := e.forget(ctx, c); err != nil {
		return nil, err
	}
	if c.Running() {
		if err := e.stop(ctx, c, o); err != nil {
			return nil, err
		}
	}
	// Once stopped, it is started again even if whoever asked has gone.
	if warnings, err = e.start(context.WithoutCancel(ctx), c); err == nil {
		e.containerEvent(c, "restart")
	}
	return warnings, err
}
