package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// ErrSilent says that there is a monitor and it does not answer: somebody stopped it, or its machine is out of something.
// Its container runs on. The kind is errdef.ErrDeadline.
var ErrSilent = errors.New("the monitor does not answer")

// answerWait is how long an answer may take for which the monitor waits for nobody.
const answerWait = 15 * time.Second

// patience is how long the answer to r may take, 0 for as long as the container runs.
func (r *Request) patience() time.Duration {
	switch r.Op {
	case OpWait:
		return 0
	case OpStart:
		return 2*createTimeout + answerWait // prepared and made
	case OpExecStart:
		return execTimeout + answerWait
	case OpFreeze:
		return freezeTimeout + answerWait
	}
	return answerWait
}

// A monitor that is seen stopped this often in a row will not answer. A tracer stops it for moments only.
const (
	stoppedLooks = 10
	stoppedPause = 100 * time.Millisecond
)

// patient bounds what is asked of the monitor of run directory dir: the context ends with ErrSilent after d, 0 for never,
// and after a second in which the monitor was stopped.
func patient(ctx context.Context, dir string, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, silent := context.WithCancelCause(ctx)
	l := &lookout{dir: dir, silent: silent}
	l.begin()
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if d > 0 {
		bounded, cancel = context.WithTimeoutCause(ctx, d, ErrSilent)
	}
	return bounded, func() {
		l.end()
		cancel()
		silent(nil)
	}
}

// lookout looks from time to time whether a monitor is stopped.
type lookout struct {
	dir    string
	silent context.CancelCauseFunc

	mu    sync.Mutex // protects the following
	timer *time.Timer
	over  bool
	start uint64 // of the process that was stopped when last looked at
	seen  int    // so often in a row
}

func (l *lookout) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(stoppedPause, l.look)
}

func (l *lookout) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.timer.Stop()
}

func (l *lookout) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	start := stoppedMonitor(l.dir)
	if start == 0 || start != l.start {
		l.seen = 0
	}
	l.start = start
	if start != 0 {
		l.seen++
	}
	if l.seen == stoppedLooks {
		l.silent(ErrSilent)
		return
	}
	l.timer.Reset(stoppedPause)
}

// stoppedMonitor returns when the monitor of run directory dir was started if it is stopped, and 0 if it is not or there
// is none.
func stoppedMonitor(dir string) (start uint64) {
	pid, _ := Alive(dir)
	if pid == 0 {
		return 0
	}
	start, st, err := startTime(pid)
	if err != nil || !isStopped(st) {
		return 0
	}
	if now, _ := Alive(dir); now != pid { // or it was of another process
		return 0
	}
	return start
}

// explain makes of ErrSilent a sentence about the monitor of run directory dir, and returns other errors as they are.
func explain(err error, dir string, begun time.Time) error {
	if !errors.Is(err, ErrSilent) {
		return err
	}
	id, waited := filepath.Base(dir), time.Since(begun).Round(100*time.Millisecond)
	who, cure := "", ""
	if pid, _ := Alive(dir); pid > 0 {
		who = fmt.Sprintf(" (process %d)", pid)
		if stopped(pid) {
			cure = fmt.Sprintf(": it is stopped, and goes on after `kill -CONT %d`", pid)
		}
	}
	return errdef.As(errdef.ErrDeadline, fmt.Errorf(
		"%w: container %.12s%s, waited %s%s; `hull kill %.12s` ends the container without it", ErrSilent, id, who, waited, cure, id))
}

// stopped reports whether a signal or a debugger keeps process pid from running.
func stopped(pid int) bool {
	_, st, err := startTime(pid)
	return err == nil && isStopped(st)
}

// isStopped is for a state of /proc/PID/stat.
func isStopped(st byte) bool { return st == 'T' || st == 't' }

// Kill ends the monitor of run directory dir, for one that is ErrSilent, and waits until its place is free: a Claim can be
// had then. The container is left to whoever claims. No error when there is no monitor any more.
func Kill(ctx context.Context, dir string) error {
	pid, alive := Alive(dir)
	if !alive {
		return nil
	}
	if pid == 0 {
		return errdef.Conflict("the monitor of container %.12s is just being started, or its processes cannot be seen from here", filepath.Base(dir))
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil && err != unix.ESRCH {
		return os.NewSyscallError("pidfd_open", err)
	}
	if err == nil {
		defer unix.Close(fd)
		// If the process is the monitor now, the descriptor is of it.
		if now, _ := Alive(dir); now == pid {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill the monitor of container %.12s, process %d: %w", filepath.Base(dir), pid, err)
			}
		}
	}
	for { // a child that it was just making holds the place until it is another program
		if now, alive := Alive(dir); !alive || now != pid && now != 0 {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}
