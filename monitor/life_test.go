package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// TestOnExit: the command runs unless a connected engine removed the container, as it had promised.
func TestOnExit(t *testing.T) {
	for _, tt := range []struct {
		name            string
		promise, remove bool
		want            bool
	}{
		{"nobody there", false, false, true},
		{"promised and removed", true, true, false},
		{"promised and gone", true, false, true},
	} {
		b := newBox(t, "true")
		mark := filepath.Join(filepath.Dir(b.dir), "mark")
		b.cfg.OnExit = []string{"/bin/sh", "-c", "test ! -e " + b.run + " && trap >" + mark + ".traps; echo $GOMAXPROCS >" + mark}
		w := b.open()
		b.start()
		if tt.promise {
			r, err := w.Do(t.Context(), &Request{Op: OpWait, Remove: true})
			must(t, err)
			if r.State.Status != StatusExited {
				t.Errorf("%s: %+v", tt.name, r.State)
			}
			if !exists(b.run) {
				t.Errorf("%s: the monitor did not wait", tt.name)
			}
			if tt.remove {
				must(t, os.RemoveAll(b.dir))
			}
		}
		if tt.remove {
			must(t, w.Finish(t.Context()))
			if exists(b.run) {
				t.Errorf("%s: finished before the run directory was removed", tt.name)
			}
		}
		w.Close()
		b.gone()
		if tt.want {
			eventually(t, tt.name+": OnExit has run", func() bool { return exists(mark) })
			if got, _ := os.ReadFile(mark); strings.TrimSpace(string(got)) != "" {
				t.Errorf("%s: it inherited GOMAXPROCS=%s", tt.name, got)
			}
		} else if exists(mark) {
			t.Errorf("%s: OnExit has run", tt.name)
		}
	}
}

func TestMonitorKilled(t *testing.T) {
	b := newBox(t, "sleep", "30")
	s := b.attach()
	w := b.open()
	b.start()
	st, err := ReadState(b.dir)
	must(t, err)
	if !st.Running() {
		t.Errorf("not running: %+v", st)
	}
	pid, _ := Alive(b.run)
	unix.Kill(pid, unix.SIGKILL)
	if _, err := w.Do(t.Context(), &Request{Op: OpWait}); !errors.Is(err, ErrNoMonitor) {
		t.Errorf("wait: %v", err)
	}
	if out, err := io.ReadAll(s); err != nil || len(out) > 0 {
		t.Errorf("stream: %q, %v", out, err)
	}
	eventually(t, "the lock is free", func() bool { _, ok := Alive(b.run); return !ok })
	if _, err := Dial(t.Context(), b.run); !errors.Is(err, ErrNoMonitor) {
		t.Errorf("dial: %v", err)
	}
	release, err := Claim(b.run)
	must(t, err)
	if _, ok := Alive(b.run); !ok {
		t.Error("a claim does not show")
	}
	if _, err := Claim(b.run); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("second claim: %v", err)
	}
	if _, err := Spawn(t.Context(), testProgram(t), b.run); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("spawn while claimed: %v", err)
	}
	release()
	if _, err := Open(t.Context(), testProgram(t), b.run); !errors.Is(err, ErrDead) {
		t.Errorf("open before the repair: %v", err)
	}
	unix.Kill(st.Pid, unix.SIGKILL)
	eventually(t, "the state tells that the process is gone", func() bool { return !st.Running() })
}

// ignoreRaw ignores sig until the end of the test.
func ignoreRaw(t *testing.T, sig uintptr) {
	set := func(handler uint64) {
		act := [4]uint64{handler}
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, sigsetSize, 0, 0)
		if e != 0 {
			t.Errorf("rt_sigaction %d: %v", sig, e)
		}
	}
	set(1) // SIG_IGN
	t.Cleanup(func() { set(0) })
}

func TestSignalsDoNotEndTheMonitor(t *testing.T) {
	// As under nohup, whose choice the container must not inherit.
	signal.Ignore(unix.SIGHUP, unix.SIGINT)
	defer signal.Reset(unix.SIGHUP, unix.SIGINT)
	// As under GNU make. Go knows no such signal, so this goes around it.
	ignoreRaw(t, 32)
	b := newBox(t, "sleep", "30")
	c := b.open()
	b.write()
	_, err := c.Do(t.Context(), &Request{Op: OpStart})
	must(t, err)
	_, err = c.br.ReadByte() // they are caught after the answer, before the monitor hangs up
	if !errors.Is(err, io.EOF) {
		t.Fatalf("after the answer: want the end of the connection, got %v", err)
	}
	pid, _ := Alive(b.run)
	st, err := ReadState(b.dir)
	must(t, err)
	if ignored := statusHex(st.Pid, "SigIgn"); ignored != 0 {
		t.Errorf("the container ignores signals %#x", ignored)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE} {
		unix.Kill(pid, sig)
	}
	r := b.ask(&Request{Op: OpState})
	if r.State.Status != StatusRunning {
		t.Errorf("%+v", r.State)
	}
	// Caught, not ignored: the container would inherit ignored signals.
	b.ask(&Request{Op: OpSignal, Signal: int(unix.SIGTERM)})
	b.gone()
	if st, _ := ReadState(b.dir); st.ExitCode != 128+15 {
		t.Errorf("exit code %d", st.ExitCode)
	}
}

func statusHex(pid int, key string) (mask uint64) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			fmt.Sscanf(rest, "%x", &mask)
		}
	}
	return mask
}

func TestRequestsRefused(t *testing.T) {
	b := newBox(t, "sleep", "30")
	idle := b.open()
	defer idle.Close()
	for _, tt := range []struct {
		name string
		req  Request
		want error
	}{
		{"unknown", Request{Op: "dance"}, errdef.ErrInvalid},
		{"signal before the start", Request{Op: OpSignal, Signal: 9}, errdef.ErrConflict},
		{"start without files", Request{Op: OpStart}, nil},
	} {
		c := b.open()
		if _, err := c.Do(t.Context(), &tt.req); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		c.Close()
	}
	idle.Close()
	b.gone()

	b = newBox(t, "sleep", "30")
	b.start()
	for _, tt := range []struct {
		name string
		req  Request
		want error
	}{
		{"start again", Request{Op: OpStart}, errdef.ErrNotModified},
		{"no such signal", Request{Op: OpSignal, Signal: 99}, errdef.ErrInvalid},
		{"resize without terminal", Request{Op: OpResize, Width: 1, Height: 1}, errdef.ErrInvalid},
		{"unknown exec", Request{Op: OpExecStart, Exec: "x"}, errdef.ErrNotFound},
		{"exec without command", Request{Op: OpExecCreate}, errdef.ErrInvalid},
	} {
		c := b.open()
		if _, err := c.Do(t.Context(), &tt.req); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		c.Close()
	}
	b.ask(&Request{Op: OpSignal, Signal: 9})
	b.gone()
}

// TestLongPath: a run directory longer than sun_path has one too.
func TestLongPath(t *testing.T) {
	b := newBox(t, "true")
	b.run = filepath.Join(filepath.Dir(b.run), strings.Repeat("d", 200))
	b.start()
	b.gone()
}

// TestRestartAtOnce: opening the directory while the monitor before leaves it gives a new one, always.
func TestRestartAtOnce(t *testing.T) {
	b := newBox(t, "true")
	for i := range 100 {
		c := b.open()
		b.write()
		if _, err := c.Do(t.Context(), &Request{Op: OpStart}); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		c.Close()
		eventually(t, "exit is on disk", func() bool { st, _ := ReadState(b.dir); return st.Status == StatusExited })
	}
	b.gone()
}

// TestStranger: another user is turned away, even where the file modes would let him in.
func TestStranger(t *testing.T) {
	needRoot(t, "it becomes another user")
	b := newBox(t, "sleep", "30")
	b.start()
	for dir := b.run; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Chmod(filepath.Join(b.run, SocketFile), 0o777))
	exe, err := os.Open(testProgram(t).Path) // it lies in a directory of ours
	must(t, err)
	defer exe.Close()
	cmd := osexec.Command("/proc/self/fd/3", "ask", b.run)
	cmd.ExtraFiles = []*os.File{exe}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrNoMonitor.Error()) {
		t.Errorf("%v, %s", err, out)
	}
	cmd = osexec.Command(testProgram(t).Path, "ask", b.run)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the owner is turned away: %v, %s", err, out)
	}
	b.ask(&Request{Op: OpSignal, Signal: 9})
	b.gone()
}

// TestRepairRace: opening the directory of a dead monitor while somebody repairs it gives a monitor that stays whole.
func TestRepairRace(t *testing.T) {
	b := newBox(t, "sleep", "30")
	for i := range 30 {
		c := b.open()
		b.write()
		b.ask(&Request{Op: OpState})
		pid, ok := Alive(b.run)
		if pid <= 0 {
			t.Fatalf("round %d: pid %d, %v", i, pid, ok)
		}
		unix.Kill(pid, unix.SIGKILL)
		var openers sync.WaitGroup
		for range 3 {
			openers.Go(func() {
				for {
					d, err := Open(t.Context(), testProgram(t), b.run)
					if errors.Is(err, ErrDead) {
						if release, err := Claim(b.run); err == nil {
							if err := Clear(b.run); err != nil {
								t.Errorf("clear: %v", err)
							}
							release()
						}
						continue
					}
					if err != nil {
						t.Errorf("open: %v", err)
						return
					}
					defer d.Close()
					if _, err := d.Do(t.Context(), &Request{Op: OpState}); err != nil {
						t.Errorf("round %d: %v", i, err)
					}
					return
				}
			})
		}
		openers.Wait()
		c.Close()
		b.gone()
	}
}

// What was made ahead is used by the start it was made for, and given back when another or none follows.
func TestPrepare(t *testing.T) {
	for _, tt := range []struct {
		name      string
		start     *Request
		discarded bool
	}{
		{"used", &Request{Op: OpStart, Prepared: true}, false},
		{"written anew", &Request{Op: OpStart}, true},
		{"nobody starts it", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "sh", "-c", "exit $CODE")
			b.process.Env = append(b.process.Env, "CODE=3")
			c := b.open()
			b.write()
			c.Prepare(false)
			if tt.start != nil {
				if !tt.start.Prepared {
					b.process.Env = append(b.process.Env[:1], "CODE=4")
					b.write()
				}
				_, err := c.Do(t.Context(), tt.start)
				must(t, err)
			}
			c.Close()
			b.gone()
			if got := exists(filepath.Join(filepath.Dir(b.run), "discarded")); got != tt.discarded {
				t.Errorf("discarded: %t, want %t", got, tt.discarded)
			}
			if tt.start == nil {
				return
			}
			st, err := ReadState(b.dir)
			must(t, err)
			if want := map[bool]int{true: 3, false: 4}[tt.start.Prepared]; st.ExitCode != want {
				t.Errorf("exit code %d, want %d: the wrong files were used", st.ExitCode, want)
			}
		})
	}
}
