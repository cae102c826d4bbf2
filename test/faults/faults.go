// Package faults stops Hull at any of its system calls that change something outside the calling process, and
// looks at what is left.
//
//	func TestMain(m *testing.M) { faults.Stage(); faults.Beside(); os.Exit(m.Run()) }
//
//	d := faults.New(t, h)
//	result, hit := d.Run(t, &faults.Fault{At: 17, Do: faults.KillAll}, "run", "--rm", "busybox", "true")
//
// A seccomp filter, inherited by everything a command starts, hands each such call to the driver, which counts it
// and lets it go on, or kills, or answers an error. It follows hull, monitors and forked children across setsid and
// namespaces. Processes of containers are under the filter too and are let through uncounted: after execve their
// program is not ours.
//
// Beware: when a listener is closed its processes get ENOSYS, so a Driver lives as long as its engine. What a call
// does with memory it names (openat2, clone3) is read from the caller, which is safe only because the caller waits.
package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// Action is what happens at the chosen call.
type Action int

const (
	KillCaller Action = iota // SIGKILL for the calling process
	KillAll                  // SIGKILL for every process of ours, as when the machine's memory is gone
	Fail                     // the call returns Errno
)

// Fault says where and how to disturb.
type Fault struct {
	At    int // counted from 1
	Do    Action
	Errno unix.Errno
}

func (f *Fault) String() string {
	switch f.Do {
	case KillCaller:
		return fmt.Sprintf("kill the caller of call %d", f.At)
	case KillAll:
		return fmt.Sprintf("kill all at call %d", f.At)
	}
	return fmt.Sprintf("%v from call %d", f.Errno, f.At)
}

// Call is one counted system call.
type Call struct {
	Pid  int
	Exe  string // base name of the program
	Name string // with what tells it apart: path or file
}

func (c Call) String() string { return fmt.Sprintf("%s[%d] %s", c.Exe, c.Pid, c.Name) }

// Driver runs commands of one engine under the filter.
type Driver struct {
	h        *rig.Hull
	stop     atomic.Bool
	serving  sync.WaitGroup
	filters  atomic.Int64 // those with a process under them
	lastCall atomic.Int64 // UnixNano of the last counted call

	mu    sync.Mutex // protects the following
	armed bool
	fault *Fault
	calls []Call
	hit   *Call
}

// New makes a driver that lives until t ends. The engine's processes are killed before.
func New(t testing.TB, h *rig.Hull) *Driver {
	d := &Driver{h: h}
	t.Cleanup(func() {
		h.Kill(t) // while somebody still answers them
		d.stop.Store(true)
		d.serving.Wait()
	})
	return d
}

// Run runs hull with args and does what f says (nothing when f is nil). It returns when the command and what it
// set in motion have come to rest: the calls counted, and the one that was hit, if there were as many.
func (d *Driver) Run(t testing.TB, f *Fault, args ...string) (r rig.Result, calls []Call, hit *Call) {
	t.Helper()
	d.mu.Lock()
	d.armed, d.fault, d.calls, d.hit = true, f, nil, nil
	d.mu.Unlock()

	ended := false
	defer func() {
		if ended {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		t.Logf("%v: hit %v, the last calls were %v", f, d.hit, d.calls[max(0, len(d.calls)-5):])
	}()
	cmd := d.h.Cmd(t, args...)
	listener, err := stage(cmd)
	if err != nil {
		t.Fatal(err)
	}
	d.filters.Add(1)
	d.serving.Go(func() {
		defer d.filters.Add(-1)
		l := <-listener
		if l.err != nil {
			t.Errorf("fault driver: %v", l.err)
			return
		}
		d.serve(l.fd)
	})
	r = rig.Do(t, cmd)
	d.rest()
	if f != nil && f.Do == KillAll {
		d.dead()
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, ended = false, true
	return r, d.calls, d.hit
}

// rest waits until nobody is left who could do something, or nothing has been counted for a while.
func (d *Driver) rest() {
	quiet := rig.Patience(40 * time.Millisecond)
	for end := time.Now().Add(rig.Patience(5 * time.Second)); time.Now().Before(end); time.Sleep(quiet / 16) {
		if d.filters.Load() == 0 || time.Since(time.Unix(0, d.lastCall.Load())) > quiet {
			return
		}
	}
}

// dead waits until those that were killed have ended, locks and all: until then the next command has nothing to repair.
func (d *Driver) dead() {
	for end := time.Now().Add(rig.Patience(5 * time.Second)); len(d.ours(true)) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// serve answers the notifications of one filter until nobody is under it any more, or the driver stops.
func (d *Driver) serve(fd int) {
	defer unix.Close(fd)
	for !d.stop.Load() {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 100)
		if err == unix.EINTR || n == 0 {
			continue
		}
		if err != nil || p[0].Revents&unix.POLLIN == 0 {
			return // POLLHUP: the last process under the filter is gone
		}
		var req notification
		if err := req.receive(fd); err != nil {
			continue // ENOENT: the caller died meanwhile
		}
		req.answer(fd, d.judge(&req))
	}
}

// judge counts a call and returns the errno it shall fail with; 0 lets it go on.
func (d *Driver) judge(req *notification) unix.Errno {
	pid := int(req.pid)
	exe := program(pid)
	if !ours(exe) {
		return 0
	}
	name, counts := describe(req)
	if !counts {
		return 0
	}
	d.lastCall.Store(time.Now().UnixNano())
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.armed {
		return 0
	}
	call := Call{pid, exe, name}
	d.calls = append(d.calls, call)
	if d.fault == nil || d.hit != nil || len(d.calls) < d.fault.At {
		return 0
	}
	switch d.fault.Do {
	case KillCaller:
		d.hit = &call
		unix.Kill(leader(pid), unix.SIGKILL)
	case KillAll:
		d.hit = &call
		for again := true; again; { // whoever was forked meanwhile, too
			again = false
			for _, p := range d.ours(false) {
				again = unix.Kill(p, unix.SIGKILL) == nil || again
			}
		}
	case Fail:
		// The first call from here that can fail like this.
		if !natural(req, d.fault.Errno) {
			return 0
		}
		d.hit = &call
		return d.fault.Errno
	}
	return 0
}

// ours are the processes of our programs that belong to this engine; dying says whether those count that are on their
// way out. Of such a one the kernel first takes the memory, and with it what says whose it is, and its locks only later:
// by its name alone it counts, be it another engine's.
func (d *Driver) ours(dying bool) []int {
	owned := d.h.Pids()
	entries, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, e := range entries {
		pid, _ := strconv.Atoi(filepath.Base(e))
		exe := program(pid)
		if exe == "" && dying {
			if comm, ended := passing(e); ours(comm) && !ended {
				out = append(out, pid)
			}
			continue
		}
		if !ours(exe) || !dying && fatal(e) {
			continue
		}
		env, _ := os.ReadFile(e + "/environ")
		if slices.Contains(owned, pid) || bytes.Contains(env, []byte(d.h.Dir+"/")) {
			out = append(out, pid)
		}
	}
	return out
}

// passing is the name of the process without memory whose /proc directory is proc, and whether it has given back all
// that it held: each of its threads is a zombie.
func passing(proc string) (comm string, ended bool) {
	tasks, _ := filepath.Glob(proc + "/task/[0-9]*/stat")
	for _, t := range tasks {
		stat, _ := os.ReadFile(t)
		name, rest, ok := bytes.Cut(stat, []byte(") "))
		if !ok {
			continue // gone
		}
		if _, after, ok := bytes.Cut(name, []byte("(")); ok && comm == "" {
			comm = string(after)
		}
		if rest[0] != 'Z' && rest[0] != 'X' {
			return comm, false
		}
	}
	return comm, true
}

// fatal tells whether SIGKILL is pending for the process whose /proc directory is proc.
func fatal(proc string) bool {
	b, _ := os.ReadFile(proc + "/status")
	for line := range strings.Lines(string(b)) {
		if mask, ok := strings.CutPrefix(line, "ShdPnd:"); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return v&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return true
}

func ours(exe string) bool { return exe == "hull" || exe == "hulld" || exe == "hull-runtime" }

// program is the base name of what pid executes.
func program(pid int) string {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(filepath.Base(exe), " (deleted)")
}

// leader is the process that thread tid belongs to.
func leader(tid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	for line := range strings.Lines(string(b)) {
		if id, ok := strings.CutPrefix(line, "Tgid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(id)); err == nil {
				return pid
			}
		}
	}
	return tid
}

// word reads 8 bytes of the caller's memory.
func word(pid int, addr uint64) uint64 {
	var b [8]byte
	local := []unix.Iovec{{Base: &b[0], Len: 8}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: 8}}
	if _, err := unix.ProcessVMReadv(pid, local, remote, 0); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint64(b[:])
}

// text reads a string of the caller's memory, for messages.
func text(pid int, addr uint64) string {
	if addr == 0 {
		return ""
	}
	b := make([]byte, 256)
	// Not past the page: the next one may not be there.
	n := min(256, 4096-int(addr%4096))
	local := []unix.Iovec{{Base: &b[0], Len: uint64(n)}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}
	got, err := unix.ProcessVMReadv(pid, local, remote, 0)
	if err != nil {
		return "?"
	}
	s, _, _ := bytes.Cut(b[:got], []byte{0})
	return string(s)
}

// file is what descriptor fd of pid is.
func file(pid int, fd uint64) string {
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(fd)))
	if errors.Is(err, os.ErrNotExist) {
		return "fd " + strconv.Itoa(int(int32(fd)))
	}
	return to
}
