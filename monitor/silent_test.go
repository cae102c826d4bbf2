package monitor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// TestSilent: a monitor that took the connection and does not answer keeps nobody waiting for ever.
func TestSilent(t *testing.T) {
	b := newBox(t)
	must(t, unix.Mkdir(b.run, 0o700))
	d, err := openDir(b.run)
	must(t, err)
	defer d.Close()
	lock, err := claim(d)
	must(t, err)
	defer lock.Close()
	ln, err := listen(d)
	must(t, err)
	defer ln.Close()
	go func() {
		f, err := accept(ln)
		if err != nil {
			t.Error(err)
			return
		}
		f.WriteString(greetHere + " 2\n")
		t.Cleanup(func() { f.Close() })
	}()
	c, err := Dial(t.Context(), b.run)
	must(t, err)
	defer c.Close()
	_, err = c.Do(t.Context(), &Request{Op: OpState})
	if !errors.Is(err, ErrSilent) || !errors.Is(err, errdef.ErrDeadline) || !strings.Contains(err.Error(), "`hull kill run`") {
		t.Fatalf("want ErrSilent and what to do, got %v", err)
	}
}

// TestStopped: whoever asks a monitor that is stopped hears of it without waiting for the deadline, and from one that was
// stopped for a moment he has his answer.
func TestStopped(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.start()
	eventually(t, "the monitor tells its pid", func() bool { pid, _ := Alive(b.run); return pid > 0 })
	pid, _ := Alive(b.run)
	t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) })
	must(t, unix.Kill(pid, unix.SIGSTOP))
	eventually(t, "the monitor is stopped", func() bool { return stoppedMonitor(b.run) != 0 })
	ctx, cancel := patient(t.Context(), b.run, 0)
	defer cancel()
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, ErrSilent) {
		t.Errorf("want ErrSilent, got %v", err)
	}
	_, err := Dial(t.Context(), b.run)
	if want := fmt.Sprintf("`kill -CONT %d`", pid); !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, got %v", want, err)
	}
	must(t, unix.Kill(pid, unix.SIGCONT))
	c, err := Dial(t.Context(), b.run)
	must(t, err)
	defer c.Close()
	_, err = c.Do(t.Context(), &Request{Op: OpState})
	must(t, err)
	if stoppedMonitor(b.run) != 0 {
		t.Error("it goes on and counts as stopped")
	}
}

// TestKill: a monitor that is killed leaves its place to whoever repairs the container.
func TestKill(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.start()
	eventually(t, "the monitor tells its pid", func() bool { pid, _ := Alive(b.run); return pid > 0 })
	pid, _ := Alive(b.run)
	st, err := ReadState(b.dir)
	must(t, err)
	t.Cleanup(func() { unix.Kill(st.Pid, unix.SIGKILL) })
	must(t, unix.Kill(pid, unix.SIGSTOP))
	must(t, Kill(t.Context(), b.run))
	release, err := Claim(b.run)
	must(t, err)
	release()
	must(t, Kill(t.Context(), b.run)) // once more is no mistake
}
