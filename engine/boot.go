package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hull/errdef"
	"hull/monitor"

	"golang.org/x/sys/unix"
)

// What the machine's boot and shutdown do to containers. A unit of systemd calls both; nothing else has to run between.
//
//	boot       what ran when the machine went down, and nobody saw ending, is recorded as lost;
//	           what the restart policies want is started, those that others join before them
//	shutdown   nothing is restarted from now on; what runs is stopped, those that join others before them,
//	           all of a kind at once, each with its own time-out

const (
	lostInBoot = "the machine went down while it ran"
	// haltWait bounds the time-out of a container that wants to be waited for for long, or for ever: the machine goes down.
	haltWait = 10 * time.Minute
	// bootAtOnce is how many containers are started at the same time.
	bootAtOnce = 8
	// haltRounds is how often is looked for what was started during the shutdown.
	haltRounds = 3
)

// Outcome is what a boot or a shutdown did with one container.
type Outcome struct {
	ID, Name string
	Err      error
}

// haltFile in the run directory says that the machine is going down: ends are judged after the boot.
func (e *Engine) haltFile() string { return filepath.Join(e.run, "halting") }

func (e *Engine) halting() bool {
	_, err := os.Lstat(e.haltFile())
	return err == nil
}

// Boot starts what the restart policies want running after a boot: "always" whatever was before, the others unless a
// person stopped them, and on-failure only what a shutdown interrupted, what was lost or what failed. Idempotent: what
// runs is left alone. One container's failure is in its outcome and keeps no other from its start.
func (e *Engine) Boot(ctx context.Context) ([]Outcome, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := os.Remove(e.haltFile()); err != nil && !isMissing(err) {
		return nil, err
	}
	if err := e.repairAll(ctx); err != nil {
		return nil, err
	}
	var all []*Container
	if err := e.each(func(c *Container) { all = append(all, c) }); err != nil {
		return nil, err
	}
	var out outcomes
	for _, rank := range e.ranks(all) {
		slots := make(chan struct{}, bootAtOnce)
		var starts sync.WaitGroup
		for _, c := range rank {
			slots <- struct{}{}
			starts.Go(func() {
				defer func() { <-slots }()
				if started, err := e.boot(ctx, c.ID); started || err != nil {
					out.add(c, err)
				}
			})
		}
		starts.Wait()
	}
	return out.list, nil
}

// boot does for the container id what Boot does for all.
func (e *Engine) boot(ctx context.Context, id string) (started bool, err error) {
	l, err := e.lock(ctx, id)
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	c, err := e.load(id)
	if err != nil || c.Damaged != "" {
		return false, nil // listed as damaged
	}
	if c.Unread != nil {
		return false, e.unreadable(c)
	}
	if c.Running() || e.attended(ctx, id) {
		return false, nil
	}
	s, err := monitor.ReadState(e.dir(id))
	if err != nil {
		return false, err
	}
	lost := s.Status == monitor.StatusRunning
	if lost {
		if err := e.recordLoss(id, lostInBoot, bootTime()); err != nil {
			return false, err
		}
		e.tellEnd(id)
		if s, err = monitor.ReadState(e.dir(id)); err != nil {
			return false, err
		}
	}
	r := e.readRestarts(id)
	if !c.Host.kept() || !c.Host.Restart.wantsAtBoot(r, s, lost) {
		return false, nil
	}
	r = &restarts{Judged: s.Ends}
	if err := e.writeRestarts(id, r, false); err != nil {
		return false, err
	}
	_, err = e.launch(ctx, c, 0)
	if errors.Is(err, errdef.ErrNotModified) {
		return false, nil
	}
	if after, readErr := monitor.ReadState(e.dir(id)); err != nil && readErr == nil && after.Ends == s.Ends {
		return false, errors.Join(err, e.notLaunched(c, s, r, err))
	} // else the monitor has recorded why it could not, which is judged like any other end
	return err == nil, err
}

// wantsAtBoot reports whether a container is to run after a boot, s being how it ended.
func (p RestartPolicy) wantsAtBoot(r *restarts, s *monitor.State, lost bool) bool {
	if s.Ends == 0 {
		return false // never started
	}
	switch p.Name {
	case restartAlways:
		return true
	case restartUnlessStopped:
		return !r.Stopped
	case restartOnFailure:
		return !r.Stopped && (r.Halted || lost || p.wants(r, s.ExitCode))
	}
	return r.waiting(s) // for another reason than its policy
}

// Shutdown stops every container because the machine goes down. No policy brings them back before the next boot.
func (e *Engine) Shutdown(ctx context.Context) ([]Outcome, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.runReady(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(e.haltFile(), nil, 0o600); err != nil {
		return nil, err
	}
	var out outcomes
	for range haltRounds {
		var all []*Container
		if err := e.eachToHalt(func(c *Container) { all = append(all, c) }); err != nil {
			return out.list, err
		}
		if len(all) == 0 {
			break
		}
		for _, rank := range slices.Backward(e.ranks(all)) {
			var stops sync.WaitGroup
			for _, c := range rank {
				stops.Go(func() {
					if stopped, err := e.halt(ctx, c); stopped || err != nil {
						out.add(c, err)
					}
				})
			}
			stops.Wait()
		}
	}
	return out.list, nil
}

// eachToHalt yields what runs, and what waits to be started again: that need not have a monitor.
func (e *Engine) eachToHalt(yield func(*Container)) error {
	seen := map[string]bool{}
	if err := e.eachRunning(func(c *Container) {
		seen[c.ID] = true
		yield(c)
	}); err != nil {
		return err
	}
	kept, err := readNames(e.keptDir())
	if err != nil {
		return err
	}
	for _, id := range kept {
		if !isID(id) || seen[id] {
			continue
		}
		if c := e.peek(id); c != nil && c.State.Status == StatusRestarting {
			yield(c)
		}
	}
	return nil
}

// halt stops c for a shutdown of the machine.
func (e *Engine) halt(ctx context.Context, c *Container) (stopped bool, err error) {
	if c.Host.kept() {
		if stopped, err = e.markHalted(ctx, c); err != nil {
			return false, err
		}
	}
	if !c.Running() {
		return stopped, nil
	}
	_, wait, err := stopWith(&c.Config, StopOptions{})
	if err != nil {
		return false, err
	}
	o := StopOptions{}
	if wait < 0 || wait > haltWait {
		o.Timeout = new(int(haltWait / time.Second))
	}
	err = e.stop(ctx, c, o)
	if errors.Is(err, errdef.ErrNotFound) {
		err = nil // removed itself
	}
	return true, err
}

// markHalted records that c is stopped by the shutdown. One that waits to be started again waits no longer; waited says so.
// The state of c is that of after.
func (e *Engine) markHalted(ctx context.Context, c *Container) (waited bool, err error) {
	l, err := e.lock(ctx, c.ID)
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	s, err := monitor.ReadState(e.dir(c.ID))
	if err != nil {
		return false, err
	}
	r := e.readRestarts(c.ID)
	e.loadState(c)
	waited = c.State.Status == StatusRestarting
	if waited {
		r.Judged, r.Due = s.Ends, time.Time{}
	}
	if (waited || c.Running()) && !r.Stopped {
		r.Halted = true
		if err := e.writeRestarts(c.ID, r, true); err != nil {
			return false, err
		}
	}
	if c.Running() {
		return false, nil
	}
	return waited, e.cancelWait(ctx, c) // also before a monitor that is on its way
}

// outcomes collects what several goroutines do.
type outcomes struct {
	mu   sync.Mutex // protects list
	list []Outcome
}

func (o *outcomes) add(c *Container, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, Outcome{c.ID, c.Name, err})
}

// ranks orders containers so that each joins namespaces only of those in ranks before its own; within a rank the oldest
// comes first. Who joins each other in a circle, which nothing can start, comes last.
func (e *Engine) ranks(all []*Container) [][]*Container {
	slices.SortFunc(all, func(x, y *Container) int { return x.Created.Compare(y.Created) })
	var out [][]*Container
	placed := make(map[string]bool, len(all))
	for len(all) > 0 {
		var rank, rest []*Container
		for _, c := range all {
			free := !slices.ContainsFunc(e.joins(c), func(id string) bool {
				return !placed[id] && slices.ContainsFunc(all, func(x *Container) bool { return x.ID == id })
			})
			if free {
				rank = append(rank, c)
			} else {
				rest = append(rest, c)
			}
		}
		if len(rank) == 0 {
			rank, rest = rest, nil
		}
		for _, c := range rank {
			placed[c.ID] = true
		}
		out, all = append(out, rank), rest
	}
	return out
}

// joins are the containers whose namespaces c joins.
func (e *Engine) joins(c *Container) []string {
	var ids []string
	for _, mode := range []string{c.Host.Network, c.Host.PidMode, c.Host.IPCMode} {
		if name, ok := strings.CutPrefix(mode, "container:"); ok {
			if id, err := e.find(name); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// bootTime is when this boot began: what ran before it has ended by then.
func bootTime() time.Time {
	var up unix.Timespec
	now := time.Now().UTC()
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return now
	}
	return now.Add(-time.Duration(up.Nano()))
}
