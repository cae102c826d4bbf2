package faults

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/registry/registrytest"
	"hull/test/rig"
)

// TestEveryCallOfPush kills or fails a push to a registry that has another image under the name. After each, the registry
// has the old image or the new one, whole, the store is as it was, and the same command works.
func TestEveryCallOfPush(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	const repo = "team/app"
	s := registrytest.New(t, registrytest.Options{})
	image := rig.Layered(t)
	image.Tag = s.Addr + "/" + repo + ":1"
	h := rig.Engine(t)
	h.Must(t, "load", "-q", "-i", image.OCI(t))
	push := []string{"push", "-q", image.Tag}
	h.Must(t, push...)
	young, _ := s.Manifest(repo, "1")
	h.Mark(t)
	d := New(t, h)
	once := func(f *Fault) (int, *Call) {
		s.Delete(repo)
		old := s.AddImage(repo, "1", registrytest.Platform{}, nil, registrytest.Layer{Blob: []byte("old"), DiffID: registrytest.Digest([]byte("old"))})
		r, calls, hit := d.Run(t, f, push...)
		if f == nil && r.Code != 0 {
			t.Fatalf("undisturbed: %+v", r)
		}
		what := fmt.Sprintf("%v: %v\nit had said: exit status %d\n%s%s", f, hit, r.Code, r.Stdout, r.Stderr)
		data, _ := s.Manifest(repo, "1")
		isNew := registrytest.Digest(data) == registrytest.Digest(young)
		switch {
		case !isNew && registrytest.Digest(data) != old.Digest:
			t.Errorf("the registry has neither the old image nor the new one: %s\n%s", data, what)
		case !isNew && r.Code == 0:
			t.Errorf("it returned 0 and the registry has the old image\n%s", what)
		case isNew:
			wholeAt(t, s, repo, data, what)
		}
		if r := h.Run(t, "system", "check"); r.Code != 0 {
			t.Errorf("the store is not whole: %s%s\n%s", r.Stdout, r.Stderr, what)
		}
		if r := h.Run(t, push...); r.Code != 0 {
			t.Errorf("the next push: %+v\n%s", r, what)
		}
		data, _ = s.Manifest(repo, "1")
		if string(data) != string(young) {
			t.Errorf("the next push leaves %s\n%s", data, what)
		}
		wholeAt(t, s, repo, data, what)
		if diff := h.Difference(); len(diff) > 0 {
			t.Errorf("%s\n%s", strings.Join(diff, "\n"), what)
			h.Mark(t)
		}
		return len(calls), hit
	}
	disturbAt(t, max(2, points()/3), once)
}

// TestEveryCallOfPushCompressing kills or fails a push of an image that is not compressed yet. After each, all names of it name
// it plain or compressed, whole, its version of before is there, and the next push of each sends what it always sends and leaves
// nothing plain.
func TestEveryCallOfPushCompressing(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	const repo = "team/app"
	s := registrytest.New(t, registrytest.Options{})
	image := rig.Layered(t)
	image.Tag = s.Addr + "/" + repo + ":1"
	second := s.Addr + "/" + repo + ":2"
	archive := image.OCI(t)
	h := rig.Engine(t)
	h.Must(t, "load", "-q", "-i", archive)
	plain := strings.Fields(h.Must(t, "image", "inspect", "-f", `{{join .RootFS.Layers " "}}`, image.Tag))
	h.Must(t, "push", "-q", image.Tag) // so that no place in a log leads to what is plain
	h.Must(t, "rmi", image.Tag)
	h.Mark(t)
	id := func(name string) string {
		return strings.TrimSpace(h.Run(t, "image", "inspect", "-f", "{{.Id}}", name).Stdout)
	}
	push := []string{"push", "-q", image.Tag}
	d := New(t, h)
	var want []byte
	var wantID string
	once := func(f *Fault) (int, *Call) {
		h.Must(t, "load", "-q", "-i", archive)
		h.Must(t, "tag", image.Tag, second)
		s.Delete(repo)
		r, calls, hit := d.Run(t, f, push...)
		if f == nil {
			if r.Code != 0 {
				t.Fatalf("undisturbed: %+v", r)
			}
			want, _ = s.Manifest(repo, "1")
			wantID = id(image.Tag)
		}
		what := fmt.Sprintf("%v: %v\nit had said: exit status %d\n%s%s", f, hit, r.Code, r.Stdout, r.Stderr)
		if data, _ := s.Manifest(repo, "1"); data != nil && string(data) != string(want) || data == nil && r.Code == 0 {
			t.Errorf("the registry has %q\n%s", data, what)
		}
		if r := h.Run(t, "system", "check"); r.Code != 0 {
			t.Errorf("the store is not whole: %s%s\n%s", r.Stdout, r.Stderr, what)
		}
		for _, name := range []string{image.Tag, second, image.Tag + "@{0}"} {
			if got := id(name); got != wantID {
				t.Errorf("%s is %q\n%s", name, got, what)
			}
		}
		if r := h.Run(t, "run", "--rm", "--network", "none", "--entrypoint", "/bin/true", second); r.Code != 0 {
			t.Errorf("it does not run: %s\n%s", r.Stderr, what)
		}
		for _, name := range []string{image.Tag, second} { // which a killed push may have left as it was
			if r := h.Run(t, "push", "-q", name); r.Code != 0 {
				t.Errorf("the next push of %s: %+v\n%s", name, r, what)
			}
			data, _ := s.Manifest(repo, name[strings.LastIndexByte(name, ':')+1:])
			if string(data) != string(want) {
				t.Errorf("the next push of %s leaves %s\n%s", name, data, what)
			}
			wholeAt(t, s, repo, data, what)
		}
		for _, l := range plain {
			if _, err := os.Stat(filepath.Join(h.Root, "blobs", strings.Replace(l, ":", "/", 1))); err == nil {
				t.Errorf("the plain blob %s is still here\n%s", l, what)
			}
		}
		h.Must(t, "rmi", second, image.Tag)
		if diff := h.Difference(); len(diff) > 0 {
			t.Errorf("%s\n%s", strings.Join(diff, "\n"), what)
			h.Mark(t)
		}
		return len(calls), hit
	}
	disturbAt(t, max(2, points()/3), once)
}

// wholeAt fails t if the registry lacks something of the image whose manifest is data.
func wholeAt(t *testing.T, s *registrytest.Server, repo string, data []byte, what string) {
	t.Helper()
	var m struct {
		Config registrytest.Descriptor
		Layers []registrytest.Descriptor
	}
	if err := json.Unmarshal(data, &m); err != nil || len(m.Layers) == 0 {
		t.Fatalf("%s: %v", data, err)
	}
	for _, d := range append(m.Layers, m.Config) {
		if b := s.Blob(repo, d.Digest); int64(len(b)) != d.Size {
			t.Errorf("the registry has %d bytes of blob %s, which are %d\n%s", len(b), d.Digest, d.Size, what)
		}
	}
}

// TestEveryCallOfPushToPeer kills or fails a push to another engine, on either side of the connection. After each, the
// other engine has the old image or the new one and runs it, the same command works, and a day later nothing is left of what
// broke.
func TestEveryCallOfPushToPeer(t *testing.T) {
	rig.Root(t)
	t.Parallel()
	rig.Network(t)
	here, there := rig.Engine(t), rig.Engine(t)
	bySSH(t, here, there)
	image := rig.Layered(t)
	image.Tag = "app:1"
	here.Load(t, image.OCI(t))
	there.Must(t, "import", "--change", `ENTRYPOINT ["/bin/true"]`, image.Rootfs(t), "old:1")
	there.Mark(t)
	id := func(h *rig.Hull, name string) string {
		return h.Run(t, "image", "inspect", "-f", "{{.Id}}", name).Stdout
	}
	old, young := id(there, "old:1"), id(here, "app:1")
	push := []string{"push", "-q", "ssh://box/app:1"}
	d := New(t, here)
	once := func(f *Fault) (int, *Call) {
		there.Must(t, "tag", "old:1", "app:1")
		r, calls, hit := d.Run(t, f, push...)
		if f == nil && r.Code != 0 {
			t.Fatalf("undisturbed: %+v", r)
		}
		what := fmt.Sprintf("%v: %v\nit had said: exit status %d\n%s%s", f, hit, r.Code, r.Stdout, r.Stderr)
		rig.Eventually(t, "the other side ends", func() bool { return len(there.Pids()) == 0 })
		switch got := id(there, "app:1"); {
		case got != old && got != young:
			t.Errorf("app:1 is %q there\n%s", got, what)
		case got != young && r.Code == 0:
			t.Errorf("it returned 0 and the old image is there\n%s", what)
		}
		for _, h := range []*rig.Hull{here, there} {
			if r := h.Run(t, "system", "check"); r.Code != 0 {
				t.Errorf("a store is not whole: %s%s\n%s", r.Stdout, r.Stderr, what)
			}
		}
		if r := there.Run(t, "run", "--rm", "--network", "none", "--entrypoint", "/bin/true", "app:1"); r.Code != 0 {
			t.Errorf("app:1 does not run there: %s\n%s", r.Stderr, what)
		}
		if r := here.Run(t, push...); r.Code != 0 {
			t.Errorf("the next push: %+v\n%s", r, what)
		}
		if got := id(there, "app:1"); got != young {
			t.Errorf("the next push leaves app:1 as %q there\n%s", got, what)
		}
		there.Must(t, "rmi", "app:1")
		aged(t, there)
		there.Must(t, "gc", "--keep", "1TB")
		for _, h := range []*rig.Hull{here, there} {
			if diff := h.Difference(); len(diff) > 0 {
				t.Errorf("%s\n%s", strings.Join(diff, "\n"), what)
				h.Mark(t)
			}
		}
		return len(calls), hit
	}
	disturbAt(t, max(2, points()/3), once)
}

// bySSH lets the one engine reach the other as host box, through an ssh that is none: the shell of the other side is here.
func bySSH(t *testing.T, here, there *rig.Hull) {
	t.Helper()
	bin := t.TempDir()
	script := "#!/bin/sh\nfor command; do :; done\nexec sh -c \"exec $command\"\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, v := range here.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			here.Env[i] = "PATH=" + bin + ":" + path
		}
	}
	here.Env = append(here.Env, "HULL_SSH_COMMAND="+strings.Join([]string{
		there.Program, "--root", there.Root, "--run", there.RunDir, "--config", there.Dir + "/hull.toml"}, " "))
}

// aged makes what clients pushed, and never finished, two days old.
func aged(t *testing.T, h *rig.Hull) {
	t.Helper()
	when := time.Now().Add(-48 * time.Hour)
	for _, dir := range []string{"pushed", "ingest"} {
		filepath.WalkDir(filepath.Join(h.Root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = os.Chtimes(path, when, when)
			}
			return nil
		})
	}
}
