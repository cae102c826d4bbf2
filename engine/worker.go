package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"hull/errdef"
	"hull/kernel"
	"hull/monitor"
	"hull/runtime"
	"hull/runtime/files"
	"hull/state"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// worker is a process of hull-runtime files, which works on the files of one container from within. Read gives what
// follows its reply, and ends with io.EOF only if all went well. Close it.
type worker struct {
	of    *Container
	reply files.Reply
	out   *bufio.Reader
	pipe  *os.File      // out
	held  *state.Locked // nil for a container that runs
	pidfd *os.File
	done  chan struct{} // closed when the process has been reaped
	exit  error         // how it ended, once done is closed
	said  []byte        // the last words of the process, once done is closed
	stop  func() bool   // ends the watch on the caller's context
	ctx   context.Context
	fed   bool // the stdin is in the hands of who closes it
}

// work starts a worker for the container, running or not, and returns once it has replied; its refusal is the error.
// in is its stdin, nil for none: a read of it under way may outlast the worker, so it is closed here, after the last one.
func (e *Engine) work(ctx context.Context, c *Container, job *files.Job, in io.ReadCloser) (_ *worker, err error) {
	w := &worker{of: c, ctx: ctx, done: make(chan struct{})}
	working := false
	defer func() {
		if !working && w.held != nil { // also after a panic: a server goes on, and must not keep the lock
			w.held.Unlock()
		}
	}()
	err = e.begin(w, job, in, func(p *kernel.Program) (io.Closer, error) { return e.enter(ctx, c, job, p, w) })
	if err != nil {
		return nil, err
	}
	working = true
	return w, nil
}

// workApart is work on layers that are no container's.
func (e *Engine) workApart(ctx context.Context, job *files.Job) (*worker, error) {
	w := &worker{ctx: ctx, done: make(chan struct{})}
	err := e.begin(w, job, nil, func(p *kernel.Program) (io.Closer, error) { return enterOwn(job, p) })
	if err != nil {
		return nil, err
	}
	return w, nil
}

// begin starts w, and returns once it has replied. enter adds to the program what takes the process to where its job is.
func (e *Engine) begin(w *worker, job *files.Job, in io.ReadCloser, enter func(*kernel.Program) (io.Closer, error)) (err error) {
	defer func() {
		if in != nil && !w.fed {
			in.Close()
		}
	}()
	p, err := kernel.NewProgram()
	if err != nil {
		return err
	}
	defer p.Close()
	job.Weak = os.Geteuid() != 0
	room, err := enter(p)
	if err != nil {
		return err
	}
	defer room.Close()
	if err := e.launchWorker(p, w, job, in); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = w.end()
		}
	}()
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return w.why(err)
	}
	if err := json.Unmarshal(line, &w.reply); err != nil {
		return err
	}
	return w.reply.Err()
}

// Close ends the process, if it has not ended, and lets the container be started again.
func (w *worker) Close() error {
	err := w.end()
	if w.held != nil {
		w.held.Unlock()
	}
	return err
}

func (w *worker) end() error {
	w.stop()
	w.kill()
	<-w.done
	return errors.Join(w.pipe.Close(), w.pidfd.Close())
}

// kill ends the process; one that has ended is no error.
func (w *worker) kill() { _ = unix.PidfdSendSignal(int(w.pidfd.Fd()), unix.SIGKILL, nil, 0) }

// Read reads what follows the reply.
func (w *worker) Read(p []byte) (int, error) {
	n, err := w.out.Read(p)
	if err != nil {
		err = w.why(err)
	}
	return n, err
}

// why is the reason for the end of the worker's output.
func (w *worker) why(err error) error {
	<-w.done // its output has ended, so it ends too, or was killed
	switch {
	case w.ctx.Err() != nil:
		return context.Cause(w.ctx)
	case w.exit == nil:
		return err
	case len(w.said) > 0:
		return errors.New(string(w.said))
	}
	return w.exit
}

// enter adds to p what takes the process to where its job is, and returns what has to stay open until it is there.
//
//	                root                                   an ordinary user
//	changes, layer  as we are                              the user namespace of their containers
//	running         user and mount namespace of the container
//	not running     a mount namespace                      both, new
func (e *Engine) enter(ctx context.Context, c *Container, job *files.Job, p *kernel.Program, w *worker) (io.Closer, error) {
	layers := job.Op == files.OpChanges || job.Op == files.OpLayer
	if c.Running() && !layers {
		return joinRunning(e.dir(c.ID), p)
	}
	if !c.Running() {
		l, err := e.lock(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		w.held = l
		if e.loadState(c); c.Running() {
			return nil, errdef.Conflict("container %s has just been started: try again", c.ID[:12])
		}
	}
	o, err := e.overlay(c)
	if err != nil {
		return nil, err
	}
	if layers {
		job.Upper, job.Lower = o.Upper, o.Lower
	} else if job.Root, err = e.rootOf(c, o, job.Weak); err != nil {
		return nil, err
	}
	ns, err := enterOwn(job, p)
	if err == nil && !layers {
		p.Call("create mount namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	}
	return ns, err
}

// enterOwn takes the worker of an ordinary user into the user namespace of their containers.
func enterOwn(job *files.Job, p *kernel.Program) (io.Closer, error) {
	if !job.Weak {
		return io.NopCloser(nil), nil
	}
	ids, err := ownIDs()
	if err != nil {
		return nil, err
	}
	f, err := kernel.NewUserNS(kernelMap(ids.uids), kernelMap(ids.gids))
	if err != nil {
		return nil, err
	}
	p.Call("enter user namespace", unix.SYS_SETNS, int(f.Fd()), unix.CLONE_NEWUSER)
	return f, nil
}

// joinRunning lets p join the user and mount namespace of the container in dir.
func joinRunning(dir string, p *kernel.Program) (io.Closer, error) {
	pidfd, err := monitor.OpenProcess(dir)
	if err != nil {
		return nil, err
	}
	flags := unix.CLONE_NEWNS
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	st, err := monitor.ReadState(dir)
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", st.Pid))
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	if own != theirs {
		flags |= unix.CLONE_NEWUSER
	}
	p.Call("join the container", unix.SYS_SETNS, int(pidfd.Fd()), flags)
	return pidfd, nil
}

// rootOf says how the root of a container that does not run is mounted for its files to be worked on.
func (e *Engine) rootOf(c *Container, o *monitor.Overlay, weak bool) (*files.Root, error) {
	r := &files.Root{
		Lower: o.Lower, Upper: o.Upper, Work: o.Work, Scratch: filepath.Dir(o.Upper),
		UserXattr: weak, ReadOnly: c.Host.ReadOnly,
	}
	b := &builder{e: e, c: c, dry: true, noCgroups: true, spec: new(specs.Spec)}
	if err := b.generate(e.dir(c.ID)); err != nil {
		return nil, err
	}
	if err := b.mounts(); err != nil {
		return nil, err
	}
	for _, m := range b.spec.Mounts {
		if m.Type != mountBind || strings.HasPrefix(m.Destination, "/dev/") && strings.HasPrefix(m.Source, "/dev/") {
			continue
		}
		bind := files.Mount{Source: m.Source, Target: m.Destination}
		for _, opt := range m.Options {
			bind.ReadOnly = bind.ReadOnly || opt == "ro"
			if part, ok := strings.CutPrefix(opt, runtime.SubpathOption); ok {
				bind.Part = part
			}
		}
		r.Mounts = append(r.Mounts, bind)
	}
	return r, nil
}

// launchWorker forks p, which becomes hull-runtime files.
func (e *Engine) launchWorker(p *kernel.Program, w *worker, job *files.Job, in io.ReadCloser) error {
	binary, err := e.runtime()
	if err != nil {
		return err
	}
	bin, err := openProgram(binary)
	if err != nil {
		return err
	}
	defer unix.Close(bin)
	pipes, err := openPipes()
	if err != nil {
		return err
	}
	defer pipes.close()
	p.Call("leave groups", unix.SYS_SETGROUPS, 0, nil).Allow(unix.EPERM) // of whoever has them, where it is allowed
	p.Call("become root", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("become root", unix.SYS_SETRESUID, 0, 0, 0)
	dropCaps(p, job)
	var theirs [4]kernel.Reg
	for i, f := range [...]*os.File{pipes.in[0], pipes.out[1], pipes.err[1], pipes.job[0]} {
		theirs[i] = p.Call("move descriptor", unix.SYS_FCNTL, int(f.Fd()), unix.F_DUPFD_CLOEXEC, len(theirs)).Result()
	}
	// It may be one of those that the others are about to be.
	program := p.Call("move descriptor", unix.SYS_FCNTL, bin, unix.F_DUPFD_CLOEXEC, len(theirs)).Result()
	for i, fd := range theirs {
		p.Call("place descriptor", unix.SYS_DUP3, fd, i, 0)
	}
	p.Call("close other descriptors", unix.SYS_CLOSE_RANGE, len(theirs), uint32(math.MaxUint32), unix.CLOSE_RANGE_CLOEXEC)
	p.Call("execute "+binary, unix.SYS_EXECVEAT, program, "", p.Strings([]string{"hull-runtime", "files"}),
		p.Strings([]string{"GOMAXPROCS=2", "GOTRACEBACK=none"}), unix.AT_EMPTY_PATH)
	pid, pidfd, err := forkProgram(w.ctx, p)
	if err != nil {
		return err
	}
	w.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	w.stop = context.AfterFunc(w.ctx, w.kill)
	w.pipe = pipes.take(&pipes.out[0])
	w.out = bufio.NewReaderSize(w.pipe, 64<<10)
	stderr, stdin := pipes.take(&pipes.err[0]), pipes.take(&pipes.in[1])
	pipes.closeTheirs()
	go func() { // ends with the process, which Close kills
		defer close(w.done)
		w.said, _ = io.ReadAll(io.LimitReader(stderr, 64<<10))
		stderr.Close()
		status, err := kernel.Reap(pid)
		if err == nil && status != 0 {
			err = fmt.Errorf("work on files ended with status %d, signal %d", status.ExitStatus(), status.Signal())
		}
		w.exit = err
	}()
	w.fed = true
	go func() { // ends with in, or when nobody reads any more
		defer stdin.Close()
		if in != nil {
			defer in.Close()
			_, _ = io.Copy(stdin, in)
		}
	}()
	_ = json.NewEncoder(pipes.job[1]).Encode(job) // one that cannot read its job replies so
	return nil
}

// openProgram opens hull-runtime to be executed by descriptor: where it is executed its path may lead nowhere, or only
// those who may not look. For root it is on a read-only mount: a container without user namespace might write to the
// program through /proc (CVE-2019-5736).
func openProgram(path string) (int, error) {
	dir := unix.AT_FDCWD
	if os.Geteuid() == 0 {
		var err error
		if dir, err = kernel.ReadOnly(filepath.Dir(path)); err != nil {
			return -1, err
		}
		defer unix.Close(dir)
		path = filepath.Base(path)
	}
	fd, err := unix.Openat(dir, path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// dropCaps takes away what the job does not need of the capabilities that the process has where it is now.
func dropCaps(p *kernel.Program, job *files.Job) {
	const last = 63
	for c := range last + 1 {
		switch c {
		case unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP:
			continue
		case unix.CAP_SYS_ADMIN: // to mount, and to read overlayfs' own attributes
			if job.Root != nil || job.Upper != "" || job.Op == files.OpExport {
				continue
			}
		}
		p.Call("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0).Allow(unix.EINVAL) // there is none of that number
	}
}

// workerPipes are those between us and a worker: read end, write end.
type workerPipes struct{ in, out, err, job [2]*os.File }

func openPipes() (*workerPipes, error) {
	p := new(workerPipes)
	for _, ends := range p.all() {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, err
		}
		*ends = [2]*os.File{r, w}
	}
	return p, nil
}

func (p *workerPipes) all() []*[2]*os.File { return []*[2]*os.File{&p.in, &p.out, &p.err, &p.job} }

// take hands one end over to the caller.
func (p *workerPipes) take(f **os.File) *os.File {
	out := *f
	*f = nil
	return out
}

// closeTheirs closes the ends that the worker has inherited.
func (p *workerPipes) closeTheirs() {
	for _, f := range []**os.File{&p.in[0], &p.out[1], &p.err[1], &p.job[0]} {
		p.take(f).Close()
	}
}

func (p *workerPipes) close() {
	for _, ends := range p.all() {
		for _, f := range ends {
			if f != nil {
				f.Close()
			}
		}
	}
}
