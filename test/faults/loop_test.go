package faults

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// verb is a command of which every call is disturbed in turn.
type verb struct {
	name    string
	args    []string
	prepare []string // the command that makes what args needs; run before each disturbance
}

var verbs = []verb{
	{name: "run --rm", args: []string{"run", "--rm", "--network", "none", "busybox", "true"}},
	{name: "run -d", args: []string{"run", "-d", "--name", "target", "--network", "none", "busybox", "sleep", "1000"}},
	{name: "run --rm on the bridge", args: []string{"run", "--rm", "busybox", "true"}},
	{name: "run -d in another's network", args: []string{"run", "-d", "--network", "container:target", "busybox", "sleep", "1000"},
		prepare: []string{"run", "-d", "--name", "target", "busybox", "sleep", "1000"}},
	{name: "run -d with ports", args: []string{"run", "-d", "--name", "target", "-p", "8080:80", "-p", "81/udp", "busybox", "sleep", "1000"}},
	{name: "rm -f with ports", args: []string{"rm", "-f", "target"},
		prepare: []string{"run", "-d", "--name", "target", "-p", "8080:80", "-p", "81/udp", "busybox", "sleep", "1000"}},
	{name: "exec", args: []string{"exec", "target", "true"}, prepare: []string{"run", "-d", "--name", "target", "busybox", "sleep", "1000"}},
	{name: "rm -f", args: []string{"rm", "-f", "target"}, prepare: []string{"run", "-d", "--name", "target", "busybox", "sleep", "1000"}},
	{name: "volume create", args: []string{"volume", "create", "target"}},
	{name: "run with copy-up", args: []string{"run", "--rm", "--network", "none", "-v", "target:/etc", "-v", "/home", "busybox", "true"}},
	{name: "run in shared memory", args: []string{"run", "--rm", "--network", "none", "--ipc", "shareable", "-v", "target:/m", "busybox", "true"},
		prepare: []string{"volume", "create", "target", "-o", "type=tmpfs", "-o", "device=tmpfs"}},
	{name: "volume rm", args: []string{"volume", "rm", "target"}, prepare: []string{"run", "--rm", "--network", "none", "-v", "target:/etc", "busybox", "true"}},
	{name: "rm -v", args: []string{"rm", "-v", "target"}, prepare: []string{"create", "--name", "target", "-v", "/home", "-v", "/etc", "busybox"}},
	{name: "cp", args: []string{"cp", "/etc/hostname", "target:/f"}, prepare: []string{"create", "--name", "target", "busybox"}},
	{name: "rm", args: []string{"rm", "target"}, prepare: []string{"create", "--name", "target", "busybox"}},
}

var disturbances = []Fault{
	{Do: KillCaller},
	{Do: KillAll},
	{Do: Fail, Errno: unix.ENOSPC},
	{Do: Fail, Errno: unix.EIO},
	{Do: Fail, Errno: unix.EMFILE},
}

// points is how many of a verb's calls are disturbed; HULL_FAULTS=full takes every one.
func points() int {
	switch {
	case os.Getenv("HULL_FAULTS") == "full":
		return 1 << 20
	case rig.Guest(), testing.Short():
		return 3
	}
	return 7
}

// TestEveryCall kills or fails each command at calls spread over its whole length. After each, the next command
// has to work, what is listed has to be removable, and then the census must be as if nothing had been.
func TestEveryCall(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	archive := rig.Busybox(t)
	for _, v := range verbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			rig.Network(t)
			h := rig.Engine(t)
			h.Load(t, archive)
			d := New(t, h)
			once := func(f *Fault) (n int, hit *Call) {
				if v.prepare != nil {
					// Under the filter, but not counted: its monitor does part of the work of args.
					if r, _, _ := d.Run(t, nil, v.prepare...); r.Code != 0 {
						t.Fatalf("prepare: %+v", r)
					}
				}
				r, calls, hit := d.Run(t, f, v.args...)
				if f == nil && r.Code != 0 {
					t.Fatalf("undisturbed: %+v", r)
				}
				if hit == nil && f != nil && f.Do != Fail && r.Code != 0 {
					t.Errorf("%v was not reached, but exit status %d\n%s", f, r.Code, r.Stderr)
				}
				if msg := repaired(t, h); msg != "" {
					if f == nil {
						t.Fatalf("undisturbed: %s", msg)
					}
					t.Errorf("%v: %v\n%s\nit had said: exit status %d\n%s%s", f, hit, msg, r.Code, r.Stdout, r.Stderr)
					h.Mark(t) // each point is judged by itself
				}
				return len(calls), hit
			}
			disturb(t, once)
		})
	}
}

// disturb calls once without a fault, to count the calls of a command, and then with each disturbance at calls spread over
// its whole length.
func disturb(t *testing.T, once func(*Fault) (calls int, hit *Call)) {
	t.Helper()
	disturbAt(t, points(), once)
}

// disturbAt is disturb with so many calls for each disturbance.
func disturbAt(t *testing.T, points int, once func(*Fault) (calls int, hit *Call)) {
	t.Helper()
	total, _ := once(nil)
	if total < 10 {
		t.Fatalf("only %d calls were counted: the driver does not see this command", total)
	}
	t.Logf("%d calls", total)
	stride := max(1, total/points)
	for _, f := range disturbances {
		// A different offset for each kind, so that together they visit more calls.
		for at := 1 + int(f.Errno)%stride; at <= total; at += stride {
			f := f
			f.At = at
			if _, hit := once(&f); hit == nil && f.Do == Fail {
				break // no call after this one can fail like that
			}
			if t.Context().Err() != nil {
				return
			}
		}
	}
}

// repaired does what a person would do next and says what is wrong, or nothing.
func repaired(t *testing.T, h *rig.Hull) string {
	t.Helper()
	ps := h.Run(t, "ps", "-a", "--format", "{{.ID}} {{.Names}} {{.State}}")
	if ps.Code != 0 {
		return fmt.Sprintf("the next command, ps, fails: %d %s", ps.Code, ps.Stderr)
	}
	for line := range strings.Lines(ps.Stdout) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return fmt.Sprintf("ps lists %q", line)
		}
		if r := h.Run(t, "rm", "-f", "-v", f[0]); r.Code != 0 {
			return fmt.Sprintf("%s is listed but rm -f says: %s", line, r.Stderr)
		}
	}
	if msg := volumesRepaired(t, h); msg != "" {
		return msg
	}
	if r := h.Run(t, "run", "--rm", "--network", "none", "--name", "target", "busybox", "echo", "works"); r.Stdout != "works\n" {
		return fmt.Sprintf("the same thing does not work afterwards: %+v", r)
	}
	return strings.Join(h.Difference(), "\n")
}

// volumesRepaired removes the volumes that are listed. Each has nothing of its image or all of it, and none is listed
// that belonged to a container which is gone.
func volumesRepaired(t *testing.T, h *rig.Hull) string {
	t.Helper()
	ls := h.Run(t, "volume", "ls", "-q")
	if ls.Code != 0 {
		return fmt.Sprintf("volume ls fails: %d %s", ls.Code, ls.Stderr)
	}
	const whole = "group\nnot-executable\npasswd\n"
	ours := strings.NewReplacer("hostname\n", "", "hosts\n", "", "resolv.conf\n", "") // where files of a container's own were bound
	for name := range strings.FieldsSeq(ls.Stdout) {
		if name != "target" {
			return "an anonymous volume is left: " + name
		}
		r := h.Run(t, "run", "--rm", "--network", "none", "-v", "target:/v:nocopy", "busybox", "ls", "/v")
		if names := ours.Replace(r.Stdout); names != "" && names != whole || r.Code != 0 {
			return fmt.Sprintf("half a volume: %+v", r)
		}
		if r := h.Run(t, "volume", "rm", name); r.Code != 0 {
			return fmt.Sprintf("%s is listed but volume rm says: %s", name, r.Stderr)
		}
	}
	return ""
}
