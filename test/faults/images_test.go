package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hull/registry/registrytest"
	"hull/test/rig"
)

// TestEveryCallOfImages kills or fails what brings images in and takes them away. After each, every listed image
// runs and can be removed, the same command works, and when all images are gone so is every file of theirs.
func TestEveryCallOfImages(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	layered := rig.Layered(t)
	archive, rootfs := layered.OCI(t), layered.Rootfs(t)
	for _, v := range []verb{
		{name: "load", args: []string{"load", "-q", "-i", archive}},
		{name: "import", args: []string{"import", "--change", "CMD true", rootfs, "target"}},
		{name: "tag", args: []string{"tag", "layered:3", "target"}, prepare: []string{"load", "-q", "-i", archive}},
		{name: "pull", args: []string{"pull", "-q", "REMOTE"}},
		{name: "rmi", args: []string{"rmi", "layered:3"}, prepare: []string{"load", "-q", "-i", archive}},
		{name: "gc", args: []string{"gc", "--keep", "0", "--unused-for", "0s"}, prepare: []string{"load", "-q", "-i", archive}},
		{name: "pin", args: []string{"image", "pin", "layered:3"}, prepare: []string{"load", "-q", "-i", archive}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			rig.Network(t)
			h := rig.Engine(t)
			v.atRegistry(t)
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
			stride := max(1, total*3/points()) // the five verbs together take as long as one of a container
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

// atRegistry has v use an image of a registry, if it names one.
func (v *verb) atRegistry(t *testing.T) {
	t.Helper()
	i := slices.Index(v.args, "REMOTE")
	if i < 0 {
		return
	}
	remote := rig.Layered(t)
	remote.Tag = registrytest.New(t, registrytest.Options{}).Addr + "/team/app:1"
	away := remote.OCI(t)
	v.args[i] = remote.Tag
	if i := slices.Index(v.prepare, "AWAY"); i >= 0 {
		v.prepare[i] = away
	}
	other := rig.Engine(t)
	other.Load(t, away)
	other.Must(t, "push", "-q", "--compress", "none", remote.Tag)
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

// TestEveryCallOfRollback kills or fails a rollback. After each the tag names the one version or the other, its log agrees,
// and the same command works.
func TestEveryCallOfRollback(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	h := rig.Engine(t)
	layered := rig.Layered(t)
	h.Must(t, "load", "-q", "-i", layered.OCI(t))
	h.Must(t, "rmi", "layered:3")
	h.Mark(t)
	h.Must(t, "load", "-q", "-i", layered.OCI(t))
	h.Must(t, "import", layered.Rootfs(t), "other")
	h.Must(t, "tag", "layered:3", "app")
	h.Must(t, "tag", "other", "app")
	id := func(name string) string { return h.Must(t, "image", "inspect", "-f", "{{.Id}}", name) }
	old, young := id("layered:3"), id("other")
	d := New(t, h)
	rollback := []string{"image", "rollback", "app", old[:len("sha256:")+12]}
	check := func(what any, code int) {
		t.Helper()
		at := id("app")
		log := strings.Fields(h.Must(t, "image", "log", "--format", "{{.ID}}", "--no-trunc", "app"))
		switch {
		case at != old && at != young:
			t.Errorf("%v: app is %s", what, at)
		case code == 0 && at != old:
			t.Errorf("%v: it returned 0 and did nothing", what)
		case log[0] != at:
			t.Errorf("%v: app is %s, its log says %s", what, at, log[0])
		case len(log) > 1 && log[1] == log[0]:
			t.Errorf("%v: the log has a change that was none: %v", what, log)
		}
		if r := h.Run(t, rollback...); r.Code != 0 {
			t.Errorf("%v: and then: %+v", what, r)
		}
		if id("app") != old {
			t.Errorf("%v: the next rollback did nothing", what)
		}
		h.Must(t, "tag", "other", "app")
	}
	r, calls, _ := d.Run(t, nil, rollback...)
	if r.Code != 0 || len(calls) < 10 {
		t.Fatalf("undisturbed: %d calls, %+v", len(calls), r)
	}
	check("undisturbed", 0)
	stride := max(1, len(calls)*3/points())
	for _, f := range disturbances {
		for at := 1 + int(f.Errno)%stride; at <= len(calls); at += stride {
			f.At = at
			r, _, hit := d.Run(t, &f, rollback...)
			if hit == nil && f.Do == Fail {
				break
			}
			check(fmt.Sprintf("%v: %v", f, hit), r.Code)
		}
	}
	h.Must(t, "rmi", "app", "other", "layered:3") // sweeps what the killed ones left
	if diff := h.Difference(); len(diff) > 0 {
		t.Errorf("left behind: %v", diff)
	}
}
