package engine

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"hull/errdef"
	"hull/volume"
)

// volumeNames are those of all volumes.
func volumeNames(t *testing.T, e *Engine) []string {
	t.Helper()
	list, err := e.Volumes(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names
}

// withVolumes is definition of a container with the volume called named, and an anonymous one of its own.
func withVolumes(name string) *record {
	r := definition(name)
	r.Host.AutoRemove = false
	r.Mounts = []MountPoint{
		{Mount: Mount{Type: mountVolume, Source: "named", Target: "/a"}, Name: "named"},
		{Mount: Mount{Type: mountVolume, Target: "/b"}, Name: newID(), Anonymous: true},
	}
	return r
}

func placed(t *testing.T, e *Engine, r *record) *record {
	t.Helper()
	if err := e.place(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVolumeReferences: definitions keep volumes; anonymous ones go with the last container that has them, if asked.
func TestVolumeReferences(t *testing.T) {
	e := fresh(t)
	one := placed(t, e, withVolumes("one"))
	anonymous := one.Mounts[1].Name
	for _, name := range []string{"named", anonymous} {
		for _, o := range []RemoveVolumeOptions{{}, {Force: true}, {Now: true}} {
			_, err := e.RemoveVolume(t.Context(), name, o)
			_, planned := e.VolumeRemoval(t.Context(), name, o)
			for _, err := range []error{err, planned} {
				if want := "remove " + name + ": volume is in use - [" + one.ID + "]"; !errors.Is(err, errdef.ErrConflict) || err.Error() != want {
					t.Errorf("%+v: want %q, got %v", o, want, err)
				}
			}
		}
	}
	two := definition("two")
	two.Host.AutoRemove = false
	borrowed := one.Mounts[1]
	borrowed.Borrowed = true
	two.Mounts = []MountPoint{borrowed}
	placed(t, e, two)
	if err := e.take(t.Context(), one.ID, true); err != nil {
		t.Fatal(err)
	}
	if got := volumeNames(t, e); !slices.Contains(got, anonymous) || len(got) != 2 {
		t.Errorf("the volume of two is not there: %v", got)
	}
	if err := e.take(t.Context(), two.ID, true); err != nil {
		t.Fatal(err)
	}
	if got := volumeNames(t, e); !slices.Equal(got, []string{"named"}) {
		t.Errorf("want the named one only, got %v", got)
	}
	three := placed(t, e, withVolumes("three"))
	if err := e.remove(t.Context(), three.ID); err != nil {
		t.Fatal(err)
	}
	if got := volumeNames(t, e); len(got) != 2 {
		t.Errorf("remove without volumes took one: %v", got)
	}
	for _, dry := range []bool{true, false} {
		p, err := e.pruneVolumes(t.Context(), nil, dry, nil)
		if err != nil || len(p.Volumes) != 1 || p.Volumes[0].Name != three.Mounts[1].Name {
			t.Errorf("prune of what is anonymous, dry %v: %+v, %v", dry, p, err)
		}
	}
	if got := volumeNames(t, e); !slices.Equal(got, []string{"named"}) {
		t.Errorf("after prune: %v", got)
	}
}

// A killed create leaves no anonymous volume, a killed remove that was to take them neither; named ones stay.
func TestKilledWithVolumes(t *testing.T) {
	for _, tt := range []struct {
		name string
		kill func(t *testing.T, e *Engine, r *record)
	}{
		{"create", func(t *testing.T, e *Engine, r *record) {
			if err := errors.Join(os.Mkdir(e.limbo(r.ID), 0o700), os.Mkdir(e.dir(r.ID), 0o700), r.write(e.limbo(r.ID))); err != nil {
				t.Fatal(err)
			}
			release, err := e.holdVolumes(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			release()
		}},
		{"remove", func(t *testing.T, e *Engine, r *record) {
			placed(t, e, r)
			if err := errors.Join(e.markDrop(r.ID, true), os.Rename(e.dir(r.ID), e.limbo(r.ID))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := fresh(t)
			tt.kill(t, e, withVolumes("web"))
			if list, err := e.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
				t.Fatalf("listed: %v, %v", list, err)
			}
			if got := volumeNames(t, e); !slices.Equal(got, []string{"named"}) {
				t.Errorf("want the named one only, got %v", got)
			}
		})
	}
}

// A remove -v that was killed before it took the container away does not speak for a later one without.
func TestKilledMark(t *testing.T) {
	e := fresh(t)
	r := placed(t, e, withVolumes("web"))
	if err := e.markDrop(r.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := e.remove(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if got := volumeNames(t, e); len(got) != 2 {
		t.Errorf("want both volumes, got %v", got)
	}
}

// While a definition cannot be read nobody knows its volumes, so none is removed, but the unused anonymous ones of others.
func TestDamagedKeepsVolumes(t *testing.T) {
	e := fresh(t)
	r := placed(t, e, withVolumes("web"))
	if err := os.WriteFile(e.dir(r.ID)+"/"+recordFile, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := e.RemoveVolume(t.Context(), "named", RemoveVolumeOptions{})
	if !errors.Is(err, errdef.ErrConflict) || !strings.Contains(err.Error(), "is damaged, so its volumes are not known") {
		t.Errorf("named: %v", err)
	}
	if _, err := e.RemoveVolume(t.Context(), r.Mounts[1].Name, RemoveVolumeOptions{}); !errors.Is(err, errdef.ErrConflict) {
		t.Errorf("anonymous: %v", err)
	}
	u, err := e.DiskUsage(t.Context())
	if err != nil || len(u.Containers) != 1 || len(u.Volumes) != 2 || u.Volumes[0].Users != 1 {
		t.Errorf("disk usage: %+v, %v", u, err)
	}
}

// TestSettleMounts: what stands at one place when several ask for it.
func TestSettleMounts(t *testing.T) {
	e := fresh(t)
	from := definition("from")
	from.Host.Tmpfs = map[string]string{"/tmpfs": ""}
	from.Mounts = []MountPoint{
		{Mount: Mount{Type: mountBind, Source: "/srv", Target: "/bind"}},
		{Mount: Mount{Type: mountVolume, Source: "named", Target: "/a", ReadOnly: true}, Name: "named"},
		{Mount: Mount{Type: mountVolume, Target: "/b"}, Name: newID(), Anonymous: true},
		{Mount: Mount{Type: mountTmpfs, Target: "/tmpfs"}, Flag: true},
	}
	placed(t, e, from)
	r := definition("to")
	r.Host.VolumesFrom = []string{"from"}
	r.Host.Binds = []string{"other:/a:nocopy", "/x:/y:ro,rslave"}
	r.Host.Mounts = []Mount{{Type: mountVolume, Target: "/new"}}
	r.Host.Tmpfs = map[string]string{"/tmp/": "size=1m"}
	r.Config.Volumes = []string{"/b", "/tmp", "/image/", "/y"}
	if err := e.settleMounts(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range r.Mounts {
		line := m.Type + " " + m.Target
		for _, word := range []struct {
			say  string
			when bool
		}{{"ro", m.ReadOnly}, {"anonymous", m.Anonymous}, {"borrowed", m.Borrowed}, {"nocopy", m.NoCopy}, {m.Propagation, m.Propagation != ""},
			{"from " + m.Source, m.Source != ""}} {
			if word.when {
				line += " " + word.say
			}
		}
		got = append(got, line)
	}
	slices.Sort(got)
	want := []string{
		"bind /bind borrowed from /srv", "bind /y ro rslave from /x", "tmpfs /tmp", "volume /a nocopy from other",
		"volume /b anonymous borrowed", "volume /image anonymous", "volume /new anonymous",
	}
	if !slices.Equal(want, got) {
		t.Errorf("want %q\ngot  %q", want, got)
	}
	for _, m := range r.Mounts {
		if m.Anonymous && !isID(m.Name) {
			t.Errorf("%s has the name %q", m.Target, m.Name)
		}
	}
	for says, from := range map[string]string{"No such container: nobody": "nobody", "invalid mode for volumes-from: x": "from:x", "empty container name": ":ro"} {
		r := definition("bad")
		r.Host.VolumesFrom = []string{from}
		if err := e.settleMounts(t.Context(), r); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("--volumes-from %s: want %q, got %v", from, says, err)
		}
	}
}

func TestVolumeFilters(t *testing.T) {
	e := fresh(t)
	for name, labels := range map[string]map[string]string{"web": {"tier": "front"}, "db": {"tier": "back", "keep": ""}} {
		if _, err := e.CreateVolume(t.Context(), volume.Spec{Name: name, Labels: labels}); err != nil {
			t.Fatal(err)
		}
	}
	placed(t, e, withVolumes("user"))
	for _, tt := range []struct {
		key, value string
		want       string // beside the anonymous one
	}{
		{"name", "we", "web"}, {"name", "^b$", ""}, {"label", "tier", "db web"}, {"label", "tier=back", "db"}, {"label!", "keep", "named web"},
		{"driver", "local", "db named web"}, {"driver", "nfs", ""}, {"dangling", "true", "db web"}, {"dangling", "0", "named"},
	} {
		list, err := e.Volumes(t.Context(), map[string][]string{tt.key: {tt.value}})
		if err != nil {
			t.Errorf("%s=%s: %v", tt.key, tt.value, err)
			continue
		}
		var got []string
		for _, v := range list {
			if !v.Anonymous() {
				got = append(got, v.Name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s=%s: want %q, got %q", tt.key, tt.value, tt.want, got)
		}
	}
	for _, bad := range []map[string][]string{{"nosuch": {"x"}}, {"dangling": {"maybe"}}, {"dangling": {"true", "false"}}, {"name": {"("}}} {
		if _, err := e.Volumes(t.Context(), bad); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
