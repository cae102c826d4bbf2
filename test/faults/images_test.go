package faults

import (
	"fmt"
	"strings"
	"testing"

	"hull/test/rig"
)

// TestEveryCallOfImages kills or fails what brings images in and takes them away. After each, every listed image
// runs and can be removed, the same command works, and when all images are gone so is every file of theirs.
func TestEveryCallOfImages(t *testing.T) {
	rig.Root(t)
	layered := rig.Layered(t)
	archive, rootfs := layered.OCI(t), layered.Rootfs(t)
	for _, v := range []verb{
		{name: "load", args: []string{"load", "-q", "-i", archive}},
		{name: "import", args: []string{"import", "--change", "CMD true", rootfs, "target"}},
		{name: "tag", args: []string{"tag", "layered:3", "target"}, prepare: []string{"load", "-q", "-i", archive}},
		{name: "rmi", args: []string{"rmi", "layered:3"}, prepare: []string{"load", "-q", "-i", archive}},
	} {
		t.Run(v.name, func(t *testing.T) {
			h := rig.Engine(t)
			h.Load(t, archive)
			h.Must(t, "rmi", "layered:3")
			h.Mark(t)
			d := New(t, h)
			once := func(f *Fault) (n int, hit *Call) {
				if v.prepare != nil {
					h.Must(t, v.prepare...)
				}
				r, calls, hit := d.Run(t, f, v.args...)
				if f == nil && r.Code != 0 {
					t.Fatalf("undisturbed: %+v", r)
				}
				if msg := imagesWhole(t, h, v); msg != "" {
					t.Errorf("%v: %v\n%s\nit had said: exit status %d\n%s%s", f, hit, msg, r.Code, r.Stdout, r.Stderr)
					h.Mark(t)
				}
				return len(calls), hit
			}
			total, _ := once(nil)
			if total < 10 {
				t.Fatalf("only %d calls were counted: the driver does not see this command", total)
			}
			t.Logf("%d calls", total)
			stride := max(1, total*3/points()) // the four verbs together take as long as one of a container
			for _, f := range disturbances {
				for at := 1 + int(f.Errno)%stride; at <= total; at += stride {
					f.At = at
					if _, hit := once(&f); hit == nil && f.Do == Fail {
						break
					}
					if t.Context().Err() != nil {
						return
					}
				}
			}
		})
	}
}

// imagesWhole does what a person would do next and says what is wrong, or nothing.
func imagesWhole(t *testing.T, h *rig.Hull, v verb) string {
	t.Helper()
	list := h.Run(t, "images", "-aq", "--no-trunc")
	if list.Code != 0 {
		return fmt.Sprintf("the next command, images, fails: %d %s", list.Code, list.Stderr)
	}
	for id := range strings.FieldsSeq(list.Stdout) {
		if r := h.Run(t, "run", "--rm", "--network", "none", "--entrypoint", "/bin/true", id); r.Code != 0 {
			return fmt.Sprintf("%s is listed but does not run: %s", id, r.Stderr)
		}
	}
	if v.prepare == nil {
		if r := h.Run(t, v.args...); r.Code != 0 {
			return fmt.Sprintf("the same thing does not work afterwards: %+v", r)
		}
	}
	for id := range strings.FieldsSeq(h.Run(t, "images", "-aq", "--no-trunc").Stdout) {
		if r := h.Run(t, "rmi", "-f", id); r.Code != 0 && !strings.Contains(r.Stderr, "No such image") {
			return fmt.Sprintf("%s is listed but rmi says: %s", id, r.Stderr)
		}
	}
	return strings.Join(h.Difference(), "\n")
}
