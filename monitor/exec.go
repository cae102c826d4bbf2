package monitor

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"hull/errdef"
	"hull/runtime"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	maxExecs    = 1024             // kept; the oldest that is not running makes room
	execTimeout = 30 * time.Second // until execve
	// askTimeout is how long a monitor whose container has ended stays for whoever ran an exec to ask for its exit
	// code: the stream carries none, and ends an instant before.
	askTimeout = 2 * time.Second
)

type execFunc = func(context.Context, *runtime.Target, *specs.Process, [3]*os.File) (*runtime.Process, error)

// exec is a further process of the container. The server's mutex protects it.
type exec struct {
	state      ExecState
	privileged bool
	proc       *process
	asked      chan struct{} // closed when somebody has learned that it ended
}

// execs are those of one container, the oldest first. The server's mutex protects list.
type execs struct {
	list    []*exec
	running sync.WaitGroup
}

func (x *execs) find(id string) (*exec, error) {
	for _, e := range x.list {
		if e.state.ID == id {
			return e, nil
		}
	}
	return nil, errdef.NotFound("No such exec instance: %s", id)
}

func (x *execs) add(e *exec) error {
	if len(x.list) >= maxExecs {
		i := slices.IndexFunc(x.list, func(e *exec) bool { return !e.state.Running })
		if i < 0 {
			return errdef.Unavailable("%d execs are running, which is the most there can be", maxExecs)
		}
		x.list = slices.Delete(x.list, i, i+1)
	}
	x.list = append(x.list, e)
	return nil
}

// wait returns when no exec runs any more, or when ctx ends.
func (x *execs) wait(ctx context.Context) {
	none := make(chan struct{})
	go func() { // ends with the last exec, at the latest when the monitor does
		x.running.Wait()
		close(none)
	}()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

func (s *server) execCreate(req *Request) *Response {
	if req.Process == nil || len(req.Process.Args) == 0 {
		return refusal(errdef.Invalid("No exec command specified"))
	}
	if _, err := s.running(); err != nil {
		return refusal(err)
	}
	e := &exec{privileged: req.Privileged, asked: make(chan struct{}), state: ExecState{
		ID: newID(), Process: req.Process,
		OpenStdin: req.Stdin, OpenStdout: req.Stdout, OpenStderr: req.Stderr, DetachKeys: req.DetachKeys,
	}}
	s.mu.Lock()
	err := s.execs.add(e)
	s.mu.Unlock()
	if err != nil {
		return refusal(err)
	}
	s.execEvent("exec_create", e)
	return &Response{OK: true, Exec: e.state.ID}
}

func newID() string {
	var b [32]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil { // crypto/rand would cost each start 0.2 ms of self-tests
		panic("getrandom: " + err.Error()) // not possible for 256 bytes or less
	}
	return hex.EncodeToString(b[:])
}

func (s *server) execState(req *Request) *Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.execs.find(req.Exec)
	if err != nil {
		return refusal(err)
	}
	st := e.state
	if st.Started && !st.Running {
		select {
		case <-e.asked:
		default:
			close(e.asked)
		}
	}
	return &Response{OK: true, ExecState: &st}
}

// execStart runs a created exec. Unless it is detached, the connection carries its stdio until it has ended.
func (s *server) execStart(f *os.File, br *bufio.Reader, req *Request) {
	e, err := s.claimExec(req.Exec)
	if err != nil {
		answer(f, refusal(err))
		return
	}
	if req.Width != 0 && req.Height != 0 {
		e.state.Process.ConsoleSize = &specs.Box{Width: uint(req.Width), Height: uint(req.Height)}
	}
	x, err := s.launchExec(e, req.Detach)
	if err != nil {
		s.execEnded(e, exitCode(err))
		answer(f, refusal(err))
		return
	}
	s.execEvent("exec_start", e)
	r := &Response{OK: true, ExecState: s.execRunning(e, x.proc)}
	c := newClient(f, &Request{Stdout: e.state.OpenStdout, Stderr: e.state.OpenStderr})
	if !req.Detach {
		x.out.join(c)
	}
	s.hold() // cannot fail: this connection holds too
	s.work.Go(func() {
		defer s.release()
		x.live(func(code int) {
			s.execEvent("exec_die", e, "exitCode", strconv.Itoa(code))
			s.execEnded(e, code)
		})
	})
	err = answer(f, r)
	close(c.answered)
	if req.Detach {
		return
	}
	if err == nil {
		if e.state.OpenStdin && x.in.copy(c, br) {
			x.in.close()
		}
		hungUp(f) // or finished
	}
	x.out.leave(c)
	c.farewell()
	f.Close()
	select {
	case <-x.proc.ended:
	default:
		return
	}
	select {
	case <-e.asked:
	case <-time.After(askTimeout):
	}
}

// claimExec makes one of many who start the same exec the one who does.
func (s *server) claimExec(id string) (*exec, error) {
	if _, err := s.running(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.execs.find(id)
	if err != nil {
		return nil, err
	}
	if e.state.Started {
		return nil, errdef.Conflict("exec %s has already been started", id)
	}
	if s.phase != phaseRunning {
		return nil, errdef.Conflict("the container has ended")
	}
	e.state.Started, e.state.Running = true, true
	s.execs.running.Add(1)
	return e, nil
}

func (s *server) execRunning(e *exec, p *process) *ExecState {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.proc, e.state.Pid = p, p.pid
	st := e.state
	return &st
}

func (s *server) execEnded(e *exec, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.state.Running, e.state.Pid, e.state.ExitCode = false, 0, code
	e.proc = nil
	s.execs.running.Done()
}

// session is a running exec with its stdio.
type session struct {
	proc *process
	out  *output
	in   *stdin
	tty  *os.File
	std  *stdio
}

// launchExec runs the process of e in the container.
func (s *server) launchExec(e *exec, detach bool) (_ *session, err error) {
	b, err := s.running()
	if err != nil {
		return nil, err
	}
	t, err := s.target(b, e.privileged)
	if err != nil {
		return nil, err
	}
	std := new(stdio)
	if !e.state.Process.Terminal && !detach {
		uid, gid := hostIDs(t.Spec, e.state.Process)
		want := [3]bool{e.state.OpenStdin, e.state.OpenStdout, e.state.OpenStderr}
		if std, err = makeStdio(want, uid, gid); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), execTimeout)
	defer cancel()
	p, err := s.rt.exec(ctx, t, e.state.Process, std.theirs)
	std.closeTheirs()
	if err != nil {
		std.close()
		return nil, err
	}
	x := &session{out: newOutput(), in: newStdin(), std: std}
	if p.Terminal != nil {
		if x.tty, err = onPoller(p.Terminal, "terminal"); err != nil {
			return nil, errors.Join(err, kill(p.Pid))
		}
	}
	if x.proc, err = newProcess(p.Pid, p.Pidfd, x.tty); err != nil {
		return nil, errors.Join(err, kill(p.Pid))
	}
	return x, nil
}

// live takes the output of the exec until its end, and calls ended before its client's stream ends.
func (x *session) live(ended func(code int)) {
	if x.tty != nil {
		x.out.pump(streamStdout, x.tty, true)
		x.in.open(x.tty, true, false)
	} else {
		for i := 1; i <= 2; i++ {
			if f := x.std.ours[i]; f != nil {
				x.out.pump(byte(i), f, false)
			}
		}
		x.in.open(x.std.ours[0], false, true)
	}
	code := x.proc.wait()
	x.in.shut()
	x.out.end(func() { ended(code) })
	x.proc.close()
}
