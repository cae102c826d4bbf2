package monitor

import (
	"errors"
	"os"
	"testing"
	"time"

	"hull/errdef"
)

func TestRun(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo out; echo err >&2; exit 7")
	s := b.attach()
	w := b.open()
	waited := make(chan *Response, 1)
	go func() {
		r, err := w.Do(t.Context(), &Request{Op: OpWait})
		if err != nil {
			t.Error(err)
		}
		waited <- r
	}()
	b.start()
	stdout, stderr, _ := demux(t, s)
	if stdout != "out\n" || stderr != "err\n" {
		t.Errorf("got stdout %q, stderr %q", stdout, stderr)
	}
	// The end of the stream promises that the state is on disk.
	st, err := ReadState(b.dir)
	must(t, err)
	if st.Status != StatusExited || st.ExitCode != 7 || st.Starts != 1 || st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) {
		t.Errorf("state on disk: %+v", st)
	}
	if r := <-waited; r == nil || r.State.ExitCode != 7 {
		t.Errorf("wait answered %+v", r)
	}
	b.gone()
}

func TestStartFails(t *testing.T) {
	notExecutable := t.TempDir() + "/file"
	must(t, os.WriteFile(notExecutable, nil, 0o600))
	for _, tt := range []struct {
		cmd  string
		code int
		kind error
	}{
		{"/nonexistent", 127, errdef.ErrNoCommand},
		{notExecutable, 126, errdef.ErrCannotRun},
	} {
		b := newBox(t, tt.cmd)
		s := b.attach()
		b.write()
		c := b.open()
		r, err := c.Do(t.Context(), &Request{Op: OpStart})
		if !errors.Is(err, tt.kind) || r.State == nil || r.State.ExitCode != tt.code {
			t.Errorf("%s: %v, %+v", tt.cmd, err, r)
		}
		demux(t, s)
		st, err := ReadState(b.dir)
		must(t, err)
		if st.ExitCode != tt.code || st.Error == "" || st.Status != StatusExited {
			t.Errorf("%s: state %+v", tt.cmd, st)
		}
		b.gone()
	}
}

func TestIdleLeaves(t *testing.T) {
	b := newBox(t, "true")
	c := b.open()
	if _, ok := Alive(b.run); !ok {
		t.Error("not alive with a client")
	}
	c.Close()
	b.gone()
	if _, err := Dial(t.Context(), b.run); !errors.Is(err, ErrNoMonitor) {
		t.Errorf("dial after the end: %v", err)
	}
}

func TestSpawnRace(t *testing.T) {
	b := newBox(t, "true")
	first := b.open()
	defer first.Close()
	if _, err := Spawn(t.Context(), testProgram(t), b.run); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("second spawn: %v", err)
	}
	eventually(t, "the monitor tells its pid", func() bool { pid, _ := Alive(b.run); return pid > 0 })
	pid, _ := Alive(b.run)
	for range 8 {
		c := b.open()
		if p, _ := Alive(b.run); p != pid {
			t.Errorf("a second monitor: %d and %d", pid, p)
		}
		c.Close()
	}
	first.Close()
	b.gone()
}

func TestSignalAndExitCode(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.start()
	w := b.open()
	b.ask(&Request{Op: OpSignal, Signal: 15})
	r, err := w.Do(t.Context(), &Request{Op: OpWait})
	must(t, err)
	if r.State.ExitCode != 128+15 {
		t.Errorf("exit code %d", r.State.ExitCode)
	}
	b.gone()
}

func TestTrace(t *testing.T) {
	b := newBox(t, "true")
	c := b.open()
	b.write()
	from := time.Now()
	r, err := c.Do(t.Context(), &Request{Op: OpStart, Trace: true})
	must(t, err)
	t.Logf("start took %v", time.Since(from))
	if len(r.Trace) < 3 {
		t.Errorf("trace %+v", r.Trace)
	}
	b.gone()
}
