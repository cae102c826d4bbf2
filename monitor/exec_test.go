package monitor

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// exec registers a command and returns its id.
func (b *testBox) exec(tty bool, args ...string) string {
	b.t.Helper()
	return b.ask(&Request{Op: OpExecCreate, Stdin: true, Stdout: true, Stderr: true,
		Process: &specs.Process{Args: args, Env: b.process.Env, Terminal: tty}}).Exec
}

func (b *testBox) execStart(id string) *Stream {
	b.t.Helper()
	c := b.open()
	r, err := c.Do(b.t.Context(), &Request{Op: OpExecStart, Exec: id})
	must(b.t, err)
	if r.ExecState.Pid == 0 || !r.ExecState.Running {
		b.t.Errorf("%+v", r.ExecState)
	}
	return c.Stream()
}

func (b *testBox) execCode(id string) int {
	b.t.Helper()
	st := b.ask(&Request{Op: OpExecState, Exec: id}).ExecState
	if st.Running || !st.Started {
		b.t.Errorf("%+v", st)
	}
	return st.ExitCode
}

func newRunning(t *testing.T) *testBox {
	t.Helper()
	b := newBox(t, "sleep", "100")
	b.start()
	return b
}

func (b *testBox) stop() {
	b.t.Helper()
	b.ask(&Request{Op: OpSignal, Signal: 9})
	b.gone()
}

func TestExec(t *testing.T) {
	b := newRunning(t)
	id := b.exec(false, "sh", "-c", "cat; echo err >&2; exit 5")
	s := b.execStart(id)
	io.WriteString(s, "in")
	s.CloseWrite()
	if out, errs, _ := demux(t, s); out != "in" || errs != "err\n" {
		t.Errorf("%q, %q", out, errs)
	}
	if code := b.execCode(id); code != 5 {
		t.Errorf("exit code %d", code)
	}
	c := b.open()
	if _, err := c.Do(t.Context(), &Request{Op: OpExecStart, Exec: id}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("second start: %v", err)
	}
	c.Close()
	b.stop()
}

func TestExecDetached(t *testing.T) {
	b := newRunning(t)
	id := b.exec(false, "sh", "-c", "echo nobody; exit 6")
	b.ask(&Request{Op: OpExecStart, Exec: id, Detach: true})
	eventually(t, "it ends", func() bool { return !b.ask(&Request{Op: OpExecState, Exec: id}).ExecState.Running })
	if code := b.execCode(id); code != 6 {
		t.Errorf("exit code %d", code)
	}
	b.stop()
}

func TestExecFails(t *testing.T) {
	b := newRunning(t)
	id := b.exec(false, "/nonexistent")
	c := b.open()
	if _, err := c.Do(t.Context(), &Request{Op: OpExecStart, Exec: id}); !errors.Is(err, errdef.ErrNoCommand) {
		t.Errorf("%v", err)
	}
	c.Close()
	if code := b.execCode(id); code != 127 {
		t.Errorf("exit code %d", code)
	}
	b.stop()
}

func TestExecTerminal(t *testing.T) {
	b := newRunning(t)
	id := b.exec(true, "sh", "-c", "stty -echo; echo ready; read l; stty size")
	s := b.execStart(id)
	readUntil(t, s, "ready\r\n")
	b.ask(&Request{Op: OpResize, Exec: id, Width: 99, Height: 11})
	fmt.Fprintln(s)
	if out, err := io.ReadAll(s); string(out) != "11 99\r\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	b.execCode(id)
	b.stop()
}

func TestExecsAtOnce(t *testing.T) {
	needRoot(t, "a monitor hides its descriptors from everybody else")
	b := newRunning(t)
	pid, _ := Alive(b.run)
	before := fds(t, pid)
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			id := b.exec(false, "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			out, _, _ := demux(t, b.execStart(id))
			if code := b.execCode(id); strings.TrimSpace(out) != fmt.Sprint(i) || code != i {
				t.Errorf("exec %d: %q, exit code %d", i, out, code)
			}
		})
	}
	all.Wait()
	eventually(t, "all descriptors are given back", func() bool { return fds(t, pid) <= before })
	b.stop()
}

// TestExecDiesWithContainer: its stream ends and its exit code can still be asked for.
func TestExecDiesWithContainer(t *testing.T) {
	b := newRunning(t)
	id := b.exec(false, "sh", "-c", "echo up; sleep 100")
	s := b.execStart(id)
	readUntil(t, s, "up\n")
	b.ask(&Request{Op: OpSignal, Signal: 9})
	if out, err := io.ReadAll(s); err != nil || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	if code := b.execCode(id); code != 128+9 {
		t.Errorf("exit code %d", code)
	}
	b.gone()
}

func TestExecsKept(t *testing.T) {
	x := new(execs)
	for i := range maxExecs {
		must(t, x.add(&exec{state: ExecState{ID: fmt.Sprint(i), Running: i != 3}}))
	}
	must(t, x.add(&exec{state: ExecState{ID: "more", Running: true}}))
	if _, err := x.find("3"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("the one that had ended is still there: %v", err)
	}
	if err := x.add(&exec{}); !errors.Is(err, errdef.ErrUnavailable) {
		t.Errorf("%d running and one more: %v", maxExecs, err)
	}
}
