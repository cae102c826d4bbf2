package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/runtime"
	"hull/runtime/seccomp"
	"hull/state"
	"hull/state/plainjson"
	"hull/trace"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	createTimeout = 2 * time.Minute
	deleteTimeout = 30 * time.Second
	maxConfig     = 16 << 20
)

// box is the running container.
type box struct {
	init *process
	cfg  *runtime.Config // Spec without seccomp
}

// start runs the container and answers once execve has succeeded or failed. It goes on when the client leaves.
func (s *server) start(req *Request) *Response {
	if err := s.begin(phaseIdle); err != nil {
		return refusal(err)
	}
	if req.Delay > 0 {
		s.dropAhead()
		return s.bide(req.Delay)
	}
	return s.startNow(req)
}

// startNow is start from phaseStarting on.
func (s *server) startNow(req *Request) *Response {
	defer close(s.started)
	a := s.takeAhead(req.Prepared)
	if a == nil {
		a = newAhead(req.Trace)
		s.prepare(a)
	}
	b, err := s.launch(a)
	if err != nil {
		s.startFailed(err)
		r := refusal(err)
		r.State, r.Trace = s.current(), a.trace.Steps()
		return r
	}
	if os.Geteuid() != 0 {
		hide()
	}
	s.tellStart()
	a.trace.Step("running")
	s.hold() // cannot fail: this connection holds too
	s.work.Go(func() {
		defer s.release()
		s.live(b)
	})
	return &Response{OK: true, State: s.current(), Trace: a.trace.Steps()}
}

// begin makes one of many who start the container the one who does. from is phaseIdle, or phaseBiding when it is over.
func (s *server) begin(from phase) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case from:
		s.phase = phaseStarting
		return nil
	case phaseEnding, phaseEnded:
		return errdef.Conflict("the container has just ended")
	}
	return errdef.NotModified("the container is already started")
}

// ahead is a start made up to the container's processes.
type ahead struct {
	cfg   Config
	rc    *runtime.Config
	std   *stdio
	log   *logs
	made  prepared
	state State // before the start
	// memory is the run directory as whose user the memory file systems of cfg were entered.
	memory string
	trace  *trace.Trace
	err    error
	done   chan struct{} // closed when all of the above is set
}

func newAhead(traced bool) *ahead {
	a := &ahead{std: new(stdio), done: make(chan struct{})}
	if traced {
		a.trace = trace.New("monitor")
	}
	return a
}

// prepare makes all of a container but its processes, from the files that the engine wrote.
func (s *server) prepare(a *ahead) {
	defer close(a.done)
	if a.err = s.make(a); a.err != nil {
		a.discard()
	}
}

func (s *server) make(a *ahead) error {
	if err := readJSON(filepath.Join(s.path, ConfigFile), &a.cfg); err != nil {
		return err
	}
	spec, err := s.spec()
	if err != nil {
		return err
	}
	before, err := ReadState(a.cfg.StateDir)
	if err != nil {
		return err
	}
	a.state = *before
	a.state.Warnings = a.cfg.Warnings
	if a.log, err = openLogs(filepath.Join(a.cfg.StateDir, LogDir), &a.cfg.Log); err != nil {
		return err
	}
	a.trace.Step("read configuration, opened log")
	if a.rc, err = a.cfg.runtime(s.path, spec); err != nil {
		return err
	}
	if !spec.Process.Terminal {
		uid, gid := hostIDs(spec, spec.Process)
		if a.std, err = makeStdio([3]bool{a.cfg.OpenStdin, true, true}, uid, gid); err != nil {
			a.std = new(stdio)
			return err
		}
	}
	if err := a.cfg.enterMemory(s.path); err != nil {
		return err
	}
	a.memory = s.path
	left, err := joinAll(spec, a.cfg.Joins)
	if err != nil {
		return err
	}
	defer left()
	a.rc.Stdio, a.rc.Trace = a.std.theirs, a.trace
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	a.made, err = s.rt.prepare(ctx, a.rc)
	return err
}

// discard gives back what prepare made.
func (a *ahead) discard() {
	if a.made != nil {
		if err := a.made.Discard(context.Background()); err != nil {
			fmt.Fprintf(os.Stderr, "hull-runtime monitor: discard what was prepared: %v\n", err)
		}
	}
	if a.memory != "" {
		a.cfg.leaveMemory(a.memory)
	}
	a.std.closeTheirs()
	a.std.close()
	a.log.close()
}

// prepareAhead is OpPrepare: it works while the engine does other things. What goes wrong shows at the start.
func (s *server) prepareAhead(req *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseIdle || s.ahead != nil {
		return
	}
	a := newAhead(req.Trace)
	s.ahead = a
	s.work.Go(func() { s.prepare(a) })
}

// takeAhead hands over what was prepared, once it is: nil if nothing was, or it is of no use.
func (s *server) takeAhead(wanted bool) *ahead {
	s.mu.Lock()
	a := s.ahead
	s.ahead = nil
	s.mu.Unlock()
	if a == nil {
		return nil
	}
	<-a.done // bounded by createTimeout
	if wanted {
		return a
	}
	if a.err == nil {
		a.discard()
	}
	return nil
}

// dropAhead gives back what nobody took.
func (s *server) dropAhead() { s.takeAhead(false) }

// launch makes the container's processes and starts to take their output.
func (s *server) launch(a *ahead) (*box, error) {
	s.mu.Lock()
	s.cfg, s.state = a.cfg, a.state
	s.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	if err := s.publish(); err != nil {
		a.discard()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	c, err := a.made.Run(ctx)
	a.made = nil
	a.std.closeTheirs()
	a.rc.Stdio, a.rc.Trace = [3]*os.File{}, nil
	if err != nil {
		a.discard()
		return nil, err
	}
	a.trace.Step("created the container")
	b, err := s.adopt(c, a.rc, a.std, a.log)
	if err != nil {
		err = errors.Join(err, s.discard(c, a.rc))
		a.discard()
		return nil, err
	}
	a.trace.Step("wrote the state")
	return b, nil
}

// adopt makes the created container c the running one: from here on its output is taken and its state is on disk.
func (s *server) adopt(c *runtime.Container, rc *runtime.Config, std *stdio, log *logs) (*box, error) {
	now := time.Now()
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	begun, _, err := startTime(c.Pid)
	if err != nil {
		return nil, err
	}
	var tty *os.File
	if c.Terminal != nil {
		if tty, err = onPoller(c.Terminal, "terminal"); err != nil {
			return nil, err
		}
	}
	p, err := newProcess(c.Pid, c.Pidfd, tty)
	if err != nil {
		return nil, err
	}
	st := State{
		Status: StatusRunning, Pid: c.Pid, PidStart: begun, BootID: boot,
		StartedAt: now, FinishedAt: s.state.FinishedAt, Starts: s.state.Starts + 1,
		Ends: s.state.Ends, Warnings: append(s.state.Warnings, c.Warnings...), Ports: s.ports.Ports(),
		Network: s.cfg.Network,
	}
	if err := WriteState(s.cfg.StateDir, &st, s.cfg.write()); err != nil {
		return nil, err
	}
	s.out.log = log
	if tty != nil {
		s.out.pump(streamStdout, tty, true)
		s.in.open(tty, true, false)
	} else {
		s.out.pump(streamStdout, std.ours[1], false)
		s.out.pump(streamStderr, std.ours[2], false)
		s.in.open(std.ours[0], false, s.cfg.StdinOnce)
	}
	if rc.Spec.Linux != nil {
		rc.Spec.Linux.Seccomp = nil // large, and an exec reads it again
	}
	s.ports.Serve()
	b := &box{init: p, cfg: rc}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.box, s.state, s.phase = b, st, phaseRunning
	if s.adrift {
		_ = p.signal(int(unix.SIGKILL)) // its end is seen as any other
	}
	return b, nil
}

// discard kills a container that was made but cannot be kept.
func (s *server) discard(c *runtime.Container, rc *runtime.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()
	return errors.Join(kill(c.Pid), s.rt.delete(ctx, rc))
}

// kill ends and reaps a child.
func kill(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	_, err := unix.Wait4(pid, nil, unix.WALL, nil)
	return err
}

// live waits for the end of the container, takes the rest of its output, clears up behind it and records the end.
// Only then it lets the streams end and the waiters know.
func (s *server) live(b *box) {
	g, groupErr := s.rt.group(b.cfg.Cgroup) // now, while the container runs, not at its end
	alive, ended := context.WithCancel(context.Background())
	defer ended()
	if s.cfg.Health != nil {
		s.work.Go(func() { s.watch(alive, b) })
	}
	code := b.init.wait()
	s.ports.Close() // at once: who starts the next container finds them free
	ended()
	s.setPhase(phaseEnding)
	st := *s.current()
	st.Status, st.ExitCode, st.FinishedAt = StatusExited, code, time.Now()
	st.Ran, st.Ends = st.FinishedAt.Sub(st.StartedAt), st.Ends+1
	st.Pid, st.PidStart, st.BootID, st.Ports, st.Network = 0, 0, "", nil, nil
	st.OOMKilled = groupErr == nil && g.OOMKilled()
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()
	if err := s.rt.delete(ctx, b.cfg); err != nil {
		st.Error = err.Error()
	}
	s.cfg.leaveMemory(s.path) // before anybody hears of the end: the next user finds it new
	s.execs.wait(ctx)
	s.in.shut()
	s.out.end(func() {
		if err := WriteState(s.cfg.StateDir, &st, s.cfg.write()); err != nil && exists(s.cfg.StateDir) {
			fmt.Fprintf(os.Stderr, "hull-runtime monitor: write the exit state: %v\n", err)
		}
		// After the state is on disk: who hears of the end finds it there. Had the monitor been killed in between, the
		// engine's repair would tell.
		s.tellEnd(&st)
		s.finish(st)
	})
	s.out.log.close()
	b.init.close()
}

func (s *server) setPhase(p phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = p
}

// write is how the state of the container is written.
func (c *Config) write() func(path string, data []byte) error {
	if c.Volatile {
		return state.WriteVolatile
	}
	return state.WriteDurable
}

// startFailed records that the container could not be started, with Docker's exit code for the reason.
func (s *server) startFailed(why error) {
	st := *s.current()
	st.Status, st.ExitCode, st.Error, st.FinishedAt = StatusExited, exitCode(why), why.Error(), time.Now()
	st.Ran, st.Ends, st.OOMKilled, st.Unhealthy = 0, st.Ends+1, false, false
	s.out.end(func() {
		if s.cfg.StateDir != "" {
			if err := WriteState(s.cfg.StateDir, &st, s.cfg.write()); err != nil {
				fmt.Fprintf(os.Stderr, "hull-runtime monitor: write the state of a failed start: %v\n", err)
			}
		}
		s.finish(st)
	})
}

// finish publishes the end and wakes who waits for it.
func (s *server) finish(st State) {
	s.ports.Close()
	s.mu.Lock()
	s.phase, s.state = phaseEnded, st
	s.mu.Unlock()
	s.end()
}

// exitCode is what a shell and Docker report for a command that could not be run.
func exitCode(err error) int {
	switch {
	case errors.Is(err, errdef.ErrNoCommand):
		return 127
	case errors.Is(err, errdef.ErrCannotRun):
		return 126
	}
	return 128
}

func (s *server) spec() (*specs.Spec, error) {
	spec := new(specs.Spec)
	if err := readJSON(filepath.Join(s.path, SpecFile), spec); err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, errdef.Invalid("%s has no process", SpecFile)
	}
	return spec, nil
}

// runtime is the configuration for package runtime.
func (c *Config) runtime(bundle string, spec *specs.Spec) (*runtime.Config, error) {
	rc := &runtime.Config{ID: c.ID, Bundle: bundle, Spec: spec, Cgroup: c.Cgroup, Init: c.Init, Groups: c.Groups, Foreign: c.Foreign}
	if o := c.Root; o != nil {
		rc.Root = &runtime.Overlay{Lower: o.Lower, Upper: o.Upper, Work: o.Work, Volatile: c.Volatile}
	}
	if n := c.Network; n != nil {
		rc.Link = &n.Link
	}
	var err error
	rc.Seccomp, err = c.filter()
	return rc, err
}

// filter is the compiled seccomp filter, or nil when the runtime is to compile the one in the spec.
func (c *Config) filter() ([]byte, error) {
	if c.Seccomp == "" {
		return nil, nil
	}
	return seccomp.ReadFile(c.Seccomp)
}

func readJSON(name string, v any) error {
	b, err := state.Read(name, maxConfig)
	if err != nil {
		return err
	}
	if err := plainjson.Unmarshal(b, v); err != nil {
		return errdef.As(errdef.ErrCorrupt, fmt.Errorf("read %s: %w", name, err))
	}
	return nil
}
