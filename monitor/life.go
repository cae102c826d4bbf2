package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
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
		return s.bide(req.Delay)
	}
	return s.startNow(req)
}

// startNow is start from phaseStarting on.
func (s *server) startNow(req *Request) *Response {
	defer close(s.started)
	var tr *trace.Trace
	if req.Trace {
		tr = trace.New("monitor")
	}
	b, err := s.launch(tr)
	if err != nil {
		s.startFailed(err)
		r := refusal(err)
		r.State, r.Trace = s.current(), tr.Steps()
		return r
	}
	if os.Geteuid() != 0 {
		hide()
	}
	s.event("start")
	tr.Step("running")
	s.hold() // cannot fail: this connection holds too
	s.work.Go(func() {
		defer s.release()
		s.live(b)
	})
	return &Response{OK: true, State: s.current(), Trace: tr.Steps()}
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

// launch makes the container from the files that the engine wrote and starts to take its output.
func (s *server) launch(tr *trace.Trace) (_ *box, err error) {
	spec, err := s.load()
	if err != nil {
		return nil, err
	}
	before, err := ReadState(s.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.state = *before
	s.state.Warnings = s.cfg.Warnings
	s.mu.Unlock()
	log, err := openLog(filepath.Join(s.cfg.StateDir, LogDir), s.cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() {
		if err != nil {
			log.close()
		}
	}()
	tr.Step("read configuration, opened log")
	rc, err := s.runtimeConfig(spec)
	if err != nil {
		return nil, err
	}
	rc.Trace = tr
	std := new(stdio)
	if !spec.Process.Terminal {
		uid, gid := hostIDs(spec, spec.Process)
		if std, err = makeStdio([3]bool{s.cfg.OpenStdin, true, true}, uid, gid); err != nil {
			return nil, err
		}
	}
	rc.Stdio = std.theirs
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	c, err := s.rt.create(ctx, rc)
	std.closeTheirs()
	rc.Stdio = [3]*os.File{}
	rc.Trace = nil
	if err != nil {
		std.close()
		return nil, err
	}
	tr.Step("created the container")
	b, err := s.adopt(c, rc, std, log)
	if err != nil {
		return nil, errors.Join(err, s.discard(c, rc))
	}
	tr.Step("wrote the state")
	return b, nil
}

// adopt makes the created container c the running one: from here on its output is taken and its state is on disk.
func (s *server) adopt(c *runtime.Container, rc *runtime.Config, std *stdio, log *logger) (*box, error) {
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
		Ends: s.state.Ends, Warnings: append(s.state.Warnings, c.Warnings...),
	}
	if err := WriteState(s.cfg.StateDir, &st, !s.cfg.Volatile); err != nil {
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
	b := &box{init: p, cfg: rc}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.box, s.state, s.phase = b, st, phaseRunning
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
	// What decoding and making it took is given back, unless the container is a short one anyway.
	settle := time.AfterFunc(time.Second, debug.FreeOSMemory)
	code := b.init.wait()
	settle.Stop()
	s.setPhase(phaseEnding)
	st := *s.current()
	st.Status, st.ExitCode, st.FinishedAt = StatusExited, code, time.Now()
	st.Ran, st.Ends = st.FinishedAt.Sub(st.StartedAt), st.Ends+1
	st.Pid, st.PidStart, st.BootID = 0, 0, ""
	st.OOMKilled = groupErr == nil && g.OOMKilled()
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()
	if err := s.rt.delete(ctx, b.cfg); err != nil {
		st.Error = err.Error()
	}
	s.execs.wait(ctx)
	s.in.shut()
	s.out.end(func() {
		if err := WriteState(s.cfg.StateDir, &st, !s.cfg.Volatile); err != nil && exists(s.cfg.StateDir) {
			fmt.Fprintf(os.Stderr, "hull-runtime monitor: write the exit state: %v\n", err)
		}
		// After the state is on disk: who hears of the end finds it there. Had the monitor been killed in between, the
		// engine's repair would tell.
		if st.OOMKilled {
			s.event("oom")
		}
		s.event("die", "exitCode", strconv.Itoa(code), "execDuration", strconv.Itoa(int(st.FinishedAt.Sub(st.StartedAt).Seconds())))
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

// startFailed records that the container could not be started, with Docker's exit code for the reason.
func (s *server) startFailed(why error) {
	st := *s.current()
	st.Status, st.ExitCode, st.Error, st.FinishedAt = StatusExited, exitCode(why), why.Error(), time.Now()
	st.Ran, st.Ends, st.OOMKilled, st.Unhealthy = 0, st.Ends+1, false, false
	s.out.end(func() {
		if s.cfg.StateDir != "" {
			if err := WriteState(s.cfg.StateDir, &st, !s.cfg.Volatile); err != nil {
				fmt.Fprintf(os.Stderr, "hull-runtime monitor: write the state of a failed start: %v\n", err)
			}
		}
		s.finish(st)
	})
}

// finish publishes the end and wakes who waits for it.
func (s *server) finish(st State) {
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

// load reads what the engine wrote for the start.
func (s *server) load() (*specs.Spec, error) {
	var cfg Config
	if err := readJSON(filepath.Join(s.path, ConfigFile), &cfg); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.cfg = cfg
	s.mu.Unlock()
	return s.spec()
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

func (s *server) runtimeConfig(spec *specs.Spec) (*runtime.Config, error) {
	rc := &runtime.Config{ID: s.cfg.ID, Bundle: s.path, Spec: spec, Cgroup: s.cfg.Cgroup}
	if o := s.cfg.Root; o != nil {
		rc.Root = &runtime.Overlay{Lower: o.Lower, Upper: o.Upper, Work: o.Work, Volatile: s.cfg.Volatile}
	}
	var err error
	rc.Seccomp, err = s.seccomp()
	return rc, err
}

// seccomp is the compiled filter, or nil when the runtime is to compile the one in the spec.
func (s *server) seccomp() ([]byte, error) {
	if s.cfg.Seccomp == "" {
		return nil, nil
	}
	return seccomp.ReadFile(s.cfg.Seccomp)
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
