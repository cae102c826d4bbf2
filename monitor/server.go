package monitor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"hull/errdef"
	"hull/monitor/relay"
	"hull/runtime"
	"hull/runtime/cgroup"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

const (
	requestTimeout = time.Minute      // for a request to come in: an engine may hold the monitor while it prepares the start
	answerTimeout  = 10 * time.Second // for an answer to be taken
	firstTimeout   = 10 * time.Second // for the spawner's connection, which is queued already
	promiseTimeout = 5 * time.Minute  // for an engine that promised to remove the container (Request.Remove)
)

// server is one monitor.
//
//	       first connection                start                  exit, output drained, state on disk
//	spawned ───────────────► idle ──────────────────► running ──────────────────────────────────────► ended
//	                          │                          ▲ execve failed: straight to ended
//	                          ▼
//	                 nobody connected: it leaves, as it does from ended
//
// A start with a Delay comes by way of biding, from which a cancel leads to ended.
//
// The monitor leaves when nothing holds it: each connection, each exec and the container's life is a hold.
type server struct {
	path     string // run directory
	lock, ln *os.File
	rt       containers

	ended context.Context // done when the container has ended and its state is on disk
	end   context.CancelFunc
	over  chan struct{} // closed when nothing holds the monitor
	work  sync.WaitGroup
	quiet sync.Once // guards surviveSignals
	out   *output
	in    *stdin
	ports *relay.Relay // nil for none; set while a start begins, by whoever begins it

	mu      sync.Mutex // protects the following
	holds   int
	leaving bool
	phase   phase
	state   State
	cfg     Config
	ahead   *ahead      // what OpPrepare made and nobody has taken
	box     *box        // set from phaseRunning on
	adrift  bool        // the client of a Request.Tether has gone
	execs   execs       // of this container
	biding  *time.Timer // of phaseBiding

	started chan struct{} // closed when the start has gone well or failed
}

type phase int

const (
	phaseIdle   phase = iota
	phaseBiding       // a start waits for its Delay
	phaseStarting
	phaseRunning
	phaseEnding // the init process has ended; its output and the clearing up are not done
	phaseEnded
)

// Main is `hull-runtime monitor <run directory>`, as Spawn starts it. It returns the exit code, unless it becomes
// the OnExit command.
func Main(args []string) int {
	rt := containers{prepare: prepareContainer, exec: runtime.Exec, delete: runtime.Delete, group: openGroup}
	if err := serve(args, rt); err != nil {
		fmt.Fprintf(os.Stderr, "hull-runtime monitor: %v\n", err)
		return 1
	}
	return 0
}

func serve(args []string, rt containers) error {
	if len(args) != 1 {
		return errdef.Invalid("usage: hull-runtime monitor <run directory>; started by hull only")
	}
	paceHeap()
	unix.Umask(0o022)
	if os.Geteuid() == 0 {
		hide()
	}
	raiseLimits()
	s, err := inherit(args[0])
	if err != nil {
		return err
	}
	s.rt = rt
	next := s.run()
	if len(next) > 0 {
		return become(next)
	}
	return nil
}

// surviveSignals keeps those that ask a process to end from ending the monitor of a running container. They are not
// ignored but caught, into a channel nobody reads: ignored ones stay ignored across execve, in the container too.
// It takes a thread, so it is done behind an answer, while the engine prepares the start or the container runs already.
func surviveSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
}

// hide keeps other processes of the same user, containers' processes above all, from tracing the monitor and opening
// its descriptors. Without root it waits until the container's user namespace is written: the kernel gives the files
// of an undumpable process's children to root.
func hide() { unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// raiseLimits frees the monitor of the limits of whoever typed the command: with its file size limit the log would
// end in SIGXFSZ. Raised to what the hard limits allow, lifted where the right is there.
func raiseLimits() {
	for _, r := range []int{unix.RLIMIT_FSIZE, unix.RLIMIT_CPU, unix.RLIMIT_AS, unix.RLIMIT_DATA, unix.RLIMIT_NPROC} {
		free := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if unix.Setrlimit(r, &free) == nil {
			continue
		}
		var lim unix.Rlimit
		if unix.Getrlimit(r, &lim) == nil && lim.Cur != lim.Max {
			lim.Cur = lim.Max
			unix.Setrlimit(r, &lim)
		}
	}
}

// inherit takes over the descriptors that Spawn passed.
func inherit(path string) (*server, error) {
	unix.CloseOnExec(fdLock)
	unix.CloseOnExec(fdListener)
	if _, err := unix.FcntlInt(fdLock, unix.F_GETFD, 0); err != nil {
		return nil, errdef.Invalid("descriptor %d is not the lock: %w", fdLock, err)
	}
	ln, err := pollable(fdListener, SocketFile)
	if err != nil {
		return nil, err
	}
	s := newServer(path, os.NewFile(fdLock, LockFile), ln)
	return s, own(s.lock)
}

func newServer(path string, lock, ln *os.File) *server {
	s := &server{path: path, lock: lock, ln: ln, over: make(chan struct{}), started: make(chan struct{}), out: newOutput(), in: newStdin()}
	s.ended, s.end = context.WithCancel(context.Background())
	return s
}

// run serves until nothing holds the monitor, then removes the run directory. It returns the command that is to be
// run now.
func (s *server) run() (next []string) {
	s.hold() // until the first connection is there
	first := time.AfterFunc(firstTimeout, s.release)
	s.work.Go(func() { s.accept(first) })
	<-s.over
	s.ln.Close()
	s.work.Wait()
	s.end()
	s.dropAhead()
	if err := s.clear(); err != nil {
		fmt.Fprintf(os.Stderr, "hull-runtime monitor: %v\n", err)
	}
	if s.phase == phaseEnded && len(s.cfg.OnExit) > 0 && exists(s.cfg.StateDir) {
		next = s.cfg.OnExit
	}
	return next
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// hold keeps the monitor from leaving until release. It reports false when it is leaving already.
func (s *server) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving {
		return false
	}
	s.holds++
	return true
}

func (s *server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds--; s.holds == 0 {
		s.leaving = true
		close(s.over)
	}
}

// accept takes connections and greets each, which says that it holds the monitor.
func (s *server) accept(first *time.Timer) {
	for {
		f, err := accept(s.ln)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, errStranger):
			continue
		default: // out of descriptors or memory: others may give some back
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if !s.hold() {
			f.Close()
			continue
		}
		// Somebody else may have come before the spawner, between its listen and its connect, and be gone before we look again.
		if !waiting(s.ln) && first.Stop() {
			s.release()
		}
		f.WriteString(s.greeting() + "\n") // cannot block; an error will show when the request is read
		s.work.Go(func() {
			defer s.release()
			defer f.Close()
			s.serve(f)
		})
	}
}

func (s *server) greeting() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseEnding || s.phase == phaseEnded {
		return greetEnding
	}
	return greetHere + " " + strconv.Itoa(Version)
}

// clear gives back what the start took.
func (s *server) clear() error {
	return errors.Join(s.disconnect(), s.releaseMemory(), s.releaseClaims(), Clear(s.path))
}

// releaseClaims gives back what the engine did not after a failed start. While the run directory exists nobody can take
// a claim over, so what points at it is ours. A monitor that was never told of a start may have an engine that was
// killed after its claims.
func (s *server) releaseClaims() error {
	if s.cfg.ID == "" && os.Geteuid() == 0 {
		err := state.ReleaseAll(IDClaims, s.path)
		networks, _ := filepath.Glob(filepath.Join(filepath.Dir(s.path), "..", NetworkClaims, "*"))
		for _, dir := range networks {
			err = errors.Join(err, state.ReleaseAll(dir, s.path))
		}
		return err
	}
	var errs []error
	for _, claim := range s.cfg.Claims {
		errs = append(errs, s.releaseClaim(claim))
	}
	return errors.Join(errs...)
}

// become replaces this process by the command argv. The lock is gone with its file; the environment is what Spawn
// kept, without what was meant for this program.
func become(argv []string) error {
	signal.Reset()
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG":
		default:
			env = append(env, kv)
		}
	}
	err := unix.Exec(argv[0], argv, env)
	if err == unix.ENOENT {
		// An upgrade has moved the program meanwhile.
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if filepath.IsAbs(dir) {
				_ = unix.Exec(filepath.Join(dir, filepath.Base(argv[0])), argv, env) // what counts is that it is not where it was
			}
		}
	}
	return &os.PathError{Op: "exec", Path: argv[0], Err: err}
}

// serve answers the one request of a connection, which OpPrepare may precede.
func (s *server) serve(f *os.File) {
	br := bufio.NewReaderSize(f, 1024)
	req := receive(f, br)
	if req != nil && req.Op == OpPrepare {
		s.prepareAhead(req)
		req = receive(f, br)
	}
	if req == nil {
		return
	}
	switch req.Op {
	case OpStart:
		answer(f, s.start(req))
		s.quiet.Do(surviveSignals)
	case OpAttach:
		s.attach(f, br, req)
	case OpWait:
		s.wait(f, req)
	case OpSignal:
		answer(f, s.signal(req))
	case OpResize:
		answer(f, s.resize(req))
	case OpExecCreate:
		answer(f, s.execCreate(req))
	case OpExecStart:
		s.execStart(f, br, req)
	case OpExecState:
		answer(f, s.execState(req))
	case OpRename:
		answer(f, s.rename(req))
	case OpState:
		answer(f, &Response{OK: true, State: s.current(), Busy: s.alive()})
	case OpFreeze:
		s.freeze(f, br)
	case OpCancel:
		answer(f, s.cancel())
	case OpOnExit:
		answer(f, s.onExit(req))
	default:
		answer(f, refusal(errdef.Invalid("unknown request %q", req.Op)))
	}
}

// receive reads a request; nil if none comes. One that cannot be read is refused.
func receive(f *os.File, br *bufio.Reader) *Request {
	f.SetReadDeadline(time.Now().Add(requestTimeout))
	line, err := readLine(br)
	if err != nil {
		return nil
	}
	f.SetReadDeadline(time.Time{})
	req := new(Request)
	if err := plainjson.Unmarshal(line, req); err != nil {
		answer(f, refusal(errdef.Invalid("request: %w", err)))
		return nil
	}
	return req
}

func answer(f *os.File, r *Response) error {
	if r.State != nil {
		r.State = r.State.inUTC()
	}
	f.SetWriteDeadline(time.Now().Add(answerTimeout))
	defer f.SetWriteDeadline(time.Time{})
	return writeLine(f, r)
}

// attach streams until the client leaves or the container has ended.
func (s *server) attach(f *os.File, br *bufio.Reader, req *Request) {
	c := newClient(f, req)
	if !s.out.join(c) {
		answer(f, refusal(errdef.Conflict("the container is not running")))
		return
	}
	// Joined before answered: whoever has the answer misses nothing of a start that he asks for next.
	err := answer(f, &Response{OK: true})
	close(c.answered)
	s.quiet.Do(surviveSignals)
	if err == nil {
		if req.Stdin && s.in.copy(c, br) {
			s.in.close()
		}
		hungUp(f) // or finished
	}
	s.out.leave(c)
	c.farewell()
}

// wait answers when the container has ended. With Remove set it then waits until the engine has done what it
// promised: its connection ends.
func (s *server) wait(f *os.File, req *Request) {
	if req.Now && !s.alive() {
		answer(f, &Response{OK: true, State: s.current()})
		return
	}
	wake := context.AfterFunc(s.ended, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	hungUp(f)
	wake()
	if s.ended.Err() == nil {
		if req.Tether {
			s.cut()
		}
		return
	}
	f.SetReadDeadline(time.Time{})
	if answer(f, &Response{OK: true, State: s.current()}) != nil || !req.Remove {
		return
	}
	// A descriptor that only the end of this process closes: Conn.Finish waits for that.
	control(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	f.SetReadDeadline(time.Now().Add(promiseTimeout))
	io.Copy(io.Discard, f)
}

// cut kills the container of a client that has gone: the one that runs, or the one that is about to.
func (s *server) cut() {
	s.mu.Lock()
	s.adrift = true
	s.mu.Unlock()
	if b, err := s.running(); err == nil {
		_ = b.init.signal(int(unix.SIGKILL)) // or it has ended
	}
}

func (s *server) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase != phaseIdle && s.phase != phaseEnded
}

func (s *server) current() *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	if s.phase == phaseIdle || s.phase == phaseStarting {
		st.Status = StatusCreated
	}
	return &st
}

// running returns the container while it runs.
func (s *server) running() (*box, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseRunning {
		return nil, errdef.Conflict("container %s is not running", filepath.Base(s.path))
	}
	return s.box, nil
}

// signal tells of it first: who kills is to read so before the end that follows.
func (s *server) signal(req *Request) *Response {
	b, err := s.running()
	if err == nil {
		err = checkSignal(req.Signal)
	}
	if err == nil {
		s.event("kill", "signal", strconv.Itoa(req.Signal))
		err = b.init.signal(req.Signal)
	}
	if err != nil {
		return refusal(err)
	}
	return &Response{OK: true}
}

func (s *server) resize(req *Request) *Response {
	p, err := s.process(req.Exec)
	if err == nil {
		err = p.resize(req.Width, req.Height)
	}
	if err != nil {
		return refusal(err)
	}
	return &Response{OK: true}
}

// process is the init process, or the one of a running exec.
func (s *server) process(exec string) (*process, error) {
	b, err := s.running()
	if err != nil {
		return nil, err
	}
	if exec == "" {
		return b.init, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.execs.find(exec)
	if err != nil {
		return nil, err
	}
	if !e.state.Running {
		return nil, errdef.Conflict("exec %s is not running", exec)
	}
	return e.proc, nil
}

// containers is the runtime as the monitor uses it; tests put plain processes in its place.
type containers struct {
	prepare func(context.Context, *runtime.Config) (prepared, error)
	exec    execFunc
	delete  func(context.Context, *runtime.Config) error
	group   func(path string) (group, error)
}

// prepared is a runtime.Prepared.
type prepared interface {
	Run(context.Context) (*runtime.Container, error)
	Discard(context.Context) error
}

func prepareContainer(ctx context.Context, cfg *runtime.Config) (prepared, error) {
	if cfg.Foreign != nil {
		p, err := runtime.PrepareForeign(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	p, err := runtime.Prepare(ctx, cfg)
	if err != nil {
		return nil, err // and not a prepared that is nil inside
	}
	return p, nil
}

// group is the cgroup of the container.
type group interface {
	OOMKilled() bool
	Pids() ([]int, error)
	Frozen() bool
}

func openGroup(path string) (group, error) { return cgroup.Open(cgroup.Detect(), path) }
