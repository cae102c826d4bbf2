package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hull/test/rig"
)

// thing is something that can be removed and restored.
type thing struct {
	kind   string
	make   [][]string
	remove []string
	there  []string // succeeds when it is not removed
	use    []string // prints "whole" when it is as it was
	forget []string // removes it for good
}

var things = []thing{
	{kind: "container",
		make:   [][]string{{"create", "--name", "target", "--network", "none", "-v", "/anon", "busybox", "echo", "whole"}},
		remove: []string{"rm", "-v", "target"}, there: []string{"inspect", "--type", "container", "target"},
		use: []string{"start", "-a", "target"}, forget: []string{"rm", "-v", "--no-trash", "target"}},
	{kind: "volume",
		make: [][]string{{"volume", "create", "target"},
			{"run", "--rm", "--network", "none", "-v", "target:/v", "busybox", "sh", "-c", "echo whole >/v/f"}},
		remove: []string{"volume", "rm", "target"}, there: []string{"volume", "inspect", "target"},
		use:    []string{"run", "--rm", "--network", "none", "-v", "target:/v", "busybox", "cat", "/v/f"},
		forget: []string{"volume", "rm", "--no-trash", "target"}},
	{kind: "image",
		make:   [][]string{{"load", "-q", "-i", "LAYERED"}, {"tag", "layered:3", "target"}, {"rmi", "--no-trash", "layered:3"}},
		remove: []string{"rmi", "target"}, there: []string{"image", "inspect", "target"},
		use:    []string{"run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", "target", "-c", "echo whole"},
		forget: []string{"rmi", "-f", "--no-trash", "target"}},
}

// TestEveryCallOfUndo kills or fails removals into the trash, restores, and the emptying of the trash. After each, the thing
// is there, or can be restored; as it was in both cases.
func TestEveryCallOfUndo(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	archive, layered := rig.Busybox(t), rig.Layered(t).OCI(t)
	for _, th := range things {
		for _, verb := range []string{"remove", "undo", "empty"} {
			t.Run(th.kind+" "+verb, func(t *testing.T) {
				t.Parallel()
				rig.Network(t)
				h := rig.Engine(t)
				h.Load(t, archive)
				d := New(t, h)
				args := th.remove
				switch verb {
				case "undo":
					args = []string{"undo"}
				case "empty":
					args = []string{"trash", "empty", "--force"}
				}
				disturb(t, func(f *Fault) (int, *Call) {
					for _, m := range th.make {
						m = slices.Clone(m)
						if i := slices.Index(m, "LAYERED"); i >= 0 {
							m[i] = layered
						}
						h.Must(t, m...)
					}
					if verb != "remove" {
						h.Must(t, th.remove...)
					}
					r, calls, hit := d.Run(t, f, args...)
					if f == nil && r.Code != 0 {
						t.Fatalf("undisturbed: %+v", r)
					}
					// Emptying is the one removal of these for good, and a removal that fails to go into the trash another.
					mayBeGone := verb == "empty" || verb == "remove" && f != nil && f.Do == Fail && r.Code == 0
					if msg := th.check(t, h, mayBeGone); msg != "" {
						t.Errorf("%v: %v\n%s\nit had said: exit status %d\n%s%s", f, hit, msg, r.Code, r.Stdout, r.Stderr)
						h.Mark(t)
					}
					return len(calls), hit
				})
			})
		}
	}
}

// check does what a person would do next and says what is wrong, or nothing.
func (th *thing) check(t *testing.T, h *rig.Hull, mayBeGone bool) string {
	t.Helper()
	for _, args := range [][]string{{"ps", "-a"}, {"images"}, {"volume", "ls"}} {
		if r := h.Run(t, args...); r.Code != 0 {
			return fmt.Sprintf("the next command, %s, fails: %+v", args[0], r)
		}
	}
	if r := h.Run(t, th.there...); r.Code != 0 {
		switch r := h.Run(t, "undo", "target"); {
		case r.Code == 0:
		case mayBeGone && strings.Contains(r.Stderr, "nothing in the trash"):
			return strings.Join(h.Difference(), "\n")
		default:
			return fmt.Sprintf("it is not there, and undo says %+v", r)
		}
	}
	if r := h.Run(t, th.use...); !strings.HasSuffix(r.Stdout, "whole\n") {
		return fmt.Sprintf("it is not as it was: %+v", r)
	}
	if r := h.Run(t, th.forget...); r.Code != 0 {
		return fmt.Sprintf("it is there and cannot be removed: %+v", r)
	}
	return strings.Join(h.Difference(), "\n")
}
