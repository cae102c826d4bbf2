package faults

import (
	"strings"
	"testing"

	"hull/test/rig"
)

// TestRestartEveryCall disturbs what happens to a container with a restart policy, at calls spread over its whole
// length. After each, the container has to come to the state that its policy and what people were told ask for, with
// nothing but common commands.
func TestRestartEveryCall(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	archive := rig.Busybox(t)
	dies := []string{"busybox", "sh", "-c", "while ! [ -e /die ]; do sleep 0.02; done; rm /die; exit 1"}
	run := append([]string{"run", "-d", "--name", "target", "--network", "none", "--restart", "unless-stopped", "--stop-timeout", "0"}, dies...)
	runs := func(*Fault, bool) string { return "running" }
	for _, v := range []struct {
		name    string
		prepare [][]string
		args    []string
		next    [][]string // commands that a person or the machine gives next
		// want is the status it has to come to, one of these words; done says that the command told of success.
		want func(f *Fault, done bool) string
	}{
		{"end", [][]string{run}, []string{"exec", "target", "touch", "/die"}, nil, runs},
		{"stop", [][]string{run}, []string{"stop", "-t", "0", "target"}, nil, func(_ *Fault, done bool) string {
			if done {
				return "exited"
			}
			return "running exited"
		}},
		{"shutdown", [][]string{run}, []string{"event", "shutdown"}, [][]string{{"event", "boot"}}, runs},
		{"boot", [][]string{run, {"event", "shutdown"}}, []string{"event", "boot"}, [][]string{{"event", "boot"}}, runs},
		{"update", [][]string{run}, []string{"update", "--restart", "no", "target"}, nil, func(f *Fault, _ bool) string {
			if f == nil || f.Do == Fail {
				return "running"
			}
			return "running exited" // the container was killed too, before its policy changed or after
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			rig.Network(t)
			h := rig.Engine(t)
			h.Load(t, archive)
			d := New(t, h)
			once := func(f *Fault) (n int, hit *Call) {
				for _, p := range v.prepare {
					if r, _, _ := d.Run(t, nil, p...); r.Code != 0 {
						t.Fatalf("prepare: %+v", r)
					}
				}
				r, calls, hit := d.Run(t, f, v.args...)
				for _, next := range v.next {
					h.Run(t, next...)
				}
				want := v.want(f, r.Code == 0 && (f == nil || f.Do != KillAll)) // that kills the container, too
				got := ""
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("last %s; the command: %+v", got, r)
					}
				})
				rig.Eventually(t, "the container comes to "+want+" after "+describeFault(f, hit), func() bool {
					h.Must(t, "ps")
					got = h.Must(t, "inspect", "-f", "{{.State.Status}}", "target")
					return strings.Contains(want, got)
				})
				h.Must(t, "ps")
				if again := h.Must(t, "inspect", "-f", "{{.State.Status}}", "target"); got == "exited" && again != got {
					t.Errorf("%s: it was %s and is %s", describeFault(f, hit), got, again)
				}
				if msg := repaired(t, h); msg != "" {
					t.Errorf("%s: %s", describeFault(f, hit), msg)
					h.Mark(t)
				}
				return len(calls), hit
			}
			disturb(t, once)
		})
	}
}

func describeFault(f *Fault, hit *Call) string {
	if f == nil {
		return "nothing"
	}
	if hit == nil {
		return f.String() + " (not reached)"
	}
	return f.String() + ": " + hit.String()
}
