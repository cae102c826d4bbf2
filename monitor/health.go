package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hull/errdef"
	"hull/runtime"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

// HealthFile is in the run directory while the container runs and, from its end on, in its state directory.
const HealthFile = "health.json"

// HealthConfig is a test of whether the container works, every field filled in.
type HealthConfig struct {
	Args          []string      `json:"args"`
	Interval      time.Duration `json:"interval"` // from the end of a probe to the next
	Timeout       time.Duration `json:"timeout"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"` // in which failures do not count until a probe succeeded
	StartInterval time.Duration `json:"startInterval"`         // between probes in it
	Retries       int           `json:"retries"`               // failures in a row that make it unhealthy
	// Then is what happens when it becomes unhealthy: "" for nothing, HealthKill, or HealthStop, which sends StopSignal and
	// after StopTimeout (negative: never) SIGKILL. The state of the end says so (State.Unhealthy).
	Then        string        `json:"then,omitempty"`
	StopSignal  int           `json:"stopSignal,omitempty"`
	StopTimeout time.Duration `json:"stopTimeout,omitempty"`
}

// What happens to an unhealthy container.
const (
	HealthKill = "kill"
	HealthStop = "stop"
)

// Status of a container's health.
const (
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// Health is what the probes found, kept in HealthFile.
type Health struct {
	Status        string  `json:"status"`
	FailingStreak int     `json:"failingStreak"`
	Log           []Probe `json:"log,omitempty"` // the last maxProbes, oldest first
}

// Probe is one test. ExitCode is 0 for healthy, -1 when it could not be run or took too long.
type Probe struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"`
	Output   string    `json:"output"` // stdout and stderr together, cut off at maxProbeOutput
}

// Docker's bounds, and what keeps a probe from being a burden.
const (
	maxProbes      = 5
	maxProbeOutput = 4096
	maxHealth      = 1 << 20
	probeDrain     = 500 * time.Millisecond // for output after the probe ended, which somebody it left behind may hold open
	pausedTick     = time.Second            // how soon a container that was paused is looked at again
	// restBound: a probe is followed by a rest as long as itself, up to this, whatever its interval: half of one CPU is
	// the most that probes of a container take.
	restBound = time.Second
	// freeAbove: with pauses at least so long memory is given back in each. It takes a millisecond.
	freeAbove = 5 * time.Second
)

// ReadHealth returns what the probes of a container found, which is in dir; nil when there is nothing.
func ReadHealth(dir string) *Health {
	b, err := state.Read(filepath.Join(dir, HealthFile), maxHealth)
	if err != nil {
		return nil
	}
	h := new(Health)
	if plainjson.Unmarshal(b, h) != nil {
		return nil
	}
	return h
}

func (h *Health) write(dir string) error {
	b, err := plainjson.Marshal(h)
	if err != nil {
		return err
	}
	return state.Write(filepath.Join(dir, HealthFile), b)
}

// add judges a probe as Docker does.
func (h *Health) add(p *Probe, c *HealthConfig, started time.Time) {
	if n := len(h.Log) - maxProbes + 1; n > 0 {
		h.Log = slices.Delete(h.Log, 0, n)
	}
	h.Log = append(h.Log, *p)
	switch {
	case p.ExitCode == 0:
		h.FailingStreak, h.Status = 0, HealthHealthy
	case h.Status == HealthStarting && p.Start.Sub(started) < c.StartPeriod:
	default:
		if h.FailingStreak++; h.FailingStreak >= c.Retries {
			h.Status = HealthUnhealthy
		}
	}
}

// pause is how long to wait for the next probe, after one that took so long.
func (h *Health) pause(c *HealthConfig, running, took time.Duration) time.Duration {
	d := c.Interval
	if h.Status == HealthStarting && running < c.StartPeriod {
		d = c.StartInterval
	}
	return max(d, min(took, restBound))
}

// watch tests the container until ctx is done: when it has ended. Probes never overlap, and a paused container is left
// alone.
func (s *server) watch(ctx context.Context, b *box) {
	c, started := s.cfg.Health, s.current().StartedAt
	h := &Health{Status: HealthStarting}
	s.saveHealth(h, s.path)
	defer func() { s.saveHealth(h, s.cfg.StateDir) }()
	var took time.Duration
	for sleep(ctx, h.pause(c, time.Since(started), took)) == nil {
		p := s.probe(ctx, b, c)
		for p == nil && sleep(ctx, min(pausedTick, c.Interval)) == nil {
			p = s.probe(ctx, b, c)
		}
		if p == nil || ctx.Err() != nil {
			return // killed with the container
		}
		took = p.End.Sub(p.Start)
		before := h.Status
		h.add(p, c, started)
		s.saveHealth(h, s.path)
		if h.pause(c, time.Since(started), took) >= freeAbove {
			debug.FreeOSMemory() // what reading the configuration took: most containers are idle between probes
		}
		if h.Status == before {
			continue
		}
		s.event("health_status: " + h.Status)
		if h.Status == HealthUnhealthy && c.Then != "" {
			s.endUnhealthy(ctx, b, c)
			return
		}
	}
}

// saveHealth keeps what is known for whoever asks. That a file cannot be written makes the container neither ill nor well.
func (s *server) saveHealth(h *Health, dir string) {
	if err := h.write(dir); err != nil && exists(dir) {
		fmt.Fprintf(os.Stderr, "hull-runtime monitor: write %s: %v\n", HealthFile, err)
	}
}

// endUnhealthy ends the container. What comes then is for the engine to judge.
func (s *server) endUnhealthy(ctx context.Context, b *box, c *HealthConfig) {
	s.mu.Lock()
	s.state.Unhealthy = true
	s.mu.Unlock()
	if c.Then == HealthStop {
		_ = b.init.signal(c.StopSignal) // it has ended, or is killed below
		if c.StopTimeout < 0 {
			return
		}
		if sleep(ctx, c.StopTimeout) != nil {
			return
		}
	}
	_ = b.init.signal(int(unix.SIGKILL))
}

// probe runs one test. It returns nil when it says nothing about the container, which was paused or has ended meanwhile.
func (s *server) probe(ctx context.Context, b *box, c *HealthConfig) *Probe {
	if s.paused(b) {
		return nil
	}
	p := &Probe{Start: time.Now(), ExitCode: -1}
	out := &capped{max: maxProbeOutput}
	bounded, cancel := context.WithTimeoutCause(ctx, c.Timeout, errProbeTimeout)
	defer cancel()
	code, err := s.runProbe(bounded, b, c.Args, out)
	p.End = time.Now()
	switch {
	case ctx.Err() != nil, err != nil && s.paused(b):
		return nil
	case errors.Is(err, errProbeTimeout), errors.Is(context.Cause(bounded), errProbeTimeout) && err != nil:
		p.Output = fmt.Sprintf("Health check exceeded timeout (%v)", c.Timeout)
		if text := out.String(); text != "" {
			p.Output += ": " + text
		}
	case errdef.Kind(err) == errdef.ErrNoCommand, errdef.Kind(err) == errdef.ErrCannotRun:
		p.ExitCode, p.Output = exitCode(err), err.Error() // what a shell would say
	case err != nil:
		p.Output = err.Error()
	default:
		p.ExitCode, p.Output = code, out.String()
	}
	return p
}

var errProbeTimeout = errors.New("health check timed out")

func (s *server) paused(b *box) bool {
	g, err := s.rt.group(b.cfg.Cgroup)
	return err == nil && g.Frozen()
}

// runProbe runs a command in the container, as its user and with no way to more rights, and waits for its end. When ctx
// ends before, the command and what it started are killed.
func (s *server) runProbe(ctx context.Context, b *box, args []string, out *capped) (code int, err error) {
	t, err := s.target(b, false)
	if err != nil {
		return 0, err
	}
	process := *t.Spec.Process
	process.Args, process.Terminal, process.ConsoleSize, process.NoNewPrivileges = args, false, nil, true
	uid, gid := hostIDs(t.Spec, &process)
	std, err := makeStdio([3]bool{false, true, true}, uid, gid)
	if err != nil {
		return 0, err
	}
	defer std.close()
	child, err := s.rt.exec(ctx, t, &process, std.theirs)
	std.closeTheirs()
	if err != nil {
		return 0, err
	}
	proc, err := newProcess(child.Pid, child.Pidfd, nil)
	if err != nil {
		return 0, errors.Join(err, kill(child.Pid))
	}
	defer proc.close()
	var readers sync.WaitGroup
	for _, f := range std.ours[1:] {
		readers.Go(func() { _, _ = io.Copy(out, f) })
	}
	var watcher sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		watcher.Add(1)
		defer watcher.Done()
		s.killTree(b, proc)
	})
	code = proc.wait()
	if !stop() {
		watcher.Wait()
		err = context.Cause(ctx)
	}
	for _, f := range std.ours[1:] {
		_ = f.SetReadDeadline(time.Now().Add(probeDrain))
	}
	readers.Wait()
	return code, err
}

// killTree kills a probe and what it started: its session, and descendants of its processes. What left both, by starting
// a session of its own below a parent that has ended, is out of reach: it belongs to the container.
func (s *server) killTree(b *box, p *process) {
	g, err := s.rt.group(b.cfg.Cgroup)
	for again := true; again && err == nil; {
		again = false
		pids, err := g.Pids()
		if err != nil {
			break
		}
		for _, pid := range family(p.pid, pids) {
			again = killStill(pid, p.pid) || again
		}
	}
	// The leader last: while it is not reaped nobody else gets its id, by which its session is known.
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	_ = p.signal(int(unix.SIGKILL))
}

// family is which of pids belong to the session or the descendants of leader, without itself.
func family(leader int, pids []int) []int {
	parent, session := make(map[int]int, len(pids)), make(map[int]int, len(pids))
	for _, pid := range pids {
		if st, ok := readRelations(pid); ok {
			parent[pid], session[pid] = st.parent, st.session
		}
	}
	var out []int
	for _, pid := range pids {
		if pid == leader {
			continue
		}
		for up, steps := pid, 0; up != 0 && steps < len(pids); up, steps = parent[up], steps+1 {
			if up == leader || session[up] == leader {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

// killStill kills pid, unless the id has passed to somebody outside the family of leader meanwhile. It reports whether it
// sent the signal to a process that still lived.
func killStill(pid, leader int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	st, ok := readRelations(pid)
	if !ok || st.dead || st.session != leader && st.parent != leader && len(family(leader, append(ancestors(pid), pid))) == 0 {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// ancestors of pid, the nearest first; few, as a chain longer than that is somebody's attempt to keep us busy.
func ancestors(pid int) []int {
	var out []int
	for range 64 {
		st, ok := readRelations(pid)
		if !ok || st.parent <= 1 {
			break
		}
		pid = st.parent
		out = append(out, pid)
	}
	return out
}

type relations struct {
	parent, session int
	dead            bool
}

// readRelations reads fields 3, 4 and 6 of /proc/PID/stat.
func readRelations(pid int) (r relations, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return r, false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 4 {
		return r, false
	}
	r.parent, _ = strconv.Atoi(string(f[1]))
	r.session, _ = strconv.Atoi(string(f[3]))
	r.dead = f[0][0] == 'Z' || f[0][0] == 'X'
	return r, true
}

// target is the container for a further process in it.
func (s *server) target(b *box, unconfined bool) (t *runtime.Target, err error) {
	t = &runtime.Target{Pid: b.init.pid, Pidfd: b.init.pidfd, Cgroup: b.cfg.Cgroup, Groups: b.cfg.Groups,
		Foreign: b.cfg.Foreign, ID: b.cfg.ID, Bundle: b.cfg.Bundle}
	if t.Spec, err = s.spec(); err != nil {
		return nil, err
	}
	if unconfined {
		if t.Spec.Linux != nil {
			t.Spec.Linux.Seccomp = nil
		}
		return t, nil
	}
	t.Seccomp, err = s.cfg.filter()
	return t, err
}

// capped keeps the first max bytes of what is written to it, and takes the rest.
type capped struct {
	max int

	mu  sync.Mutex // protects the following
	buf []byte
	cut bool
}

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := c.max - len(c.buf)
	c.buf = append(c.buf, p[:min(room, len(p))]...)
	c.cut = c.cut || len(p) > room
	return len(p), nil
}

// String has "..." behind what was cut, as with Docker, and no bytes that JSON cannot carry.
func (c *capped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := strings.ToValidUTF8(string(c.buf), "\uFFFD")
	if c.cut {
		text += "..."
	}
	return text
}
