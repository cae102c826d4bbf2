package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
	"hull/test/rig/nobody"
)

// TestMain lets the test binary be the process that a test kills: HULL_IMAGE_CHILD names what it is to do.
func TestMain(m *testing.M) {
	if what := os.Getenv("HULL_IMAGE_CHILD"); what != "" {
		if err := child(what, os.Getenv("HULL_IMAGE_ROOT"), os.Getenv("HULL_IMAGE_ARCHIVE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(what, root, archive string) error {
	s := Open(root)
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errors.New("the child hangs"))
	defer cancel()
	switch what {
	case "load", "import":
		f, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer f.Close()
		if what == "import" {
			_, err = s.Import(ctx, f, ImportOptions{Ref: "imported"})
		} else {
			_, err = s.Load(ctx, f, LoadOptions{})
		}
		return err
	case "pull":
		_, err := tryPull(ctx, s, directory(archive), "app")
		return err
	case "check": // archive is how many files it may open
		return childCheck(ctx, s, archive)
	case "remove":
		_, err := s.Remove(ctx, "app", RemoveOptions{Force: true})
		return err
	}
	return errors.New("unknown child")
}

func childCheck(ctx context.Context, s *Store, files string) error {
	n, err := strconv.ParseUint(files, 10, 64)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return err
	}
	found, err := s.Check(ctx, CheckOptions{Repair: true})
	for _, d := range found {
		if !d.Unchecked {
			fmt.Fprint(os.Stderr, "DAMAGE: ")
		}
		fmt.Fprintln(os.Stderr, d.Object, d.Problem)
	}
	return err
}

func startChild(t *testing.T, what, root, archive string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "HULL_IMAGE_CHILD="+what, "HULL_IMAGE_ROOT="+root, "HULL_IMAGE_ARCHIVE="+archive)
	cmd.Stderr = &bytes.Buffer{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// killer runs a child again and again: the first time shows how long that takes, the next ones are killed somewhere.
type killer struct {
	longest time.Duration // 0 before the first
	killed  int
}

func (k *killer) run(t *testing.T, what, root, archive string) {
	t.Helper()
	start := time.Now()
	cmd := startChild(t, what, root, archive)
	if k.longest > 0 {
		timer := time.AfterFunc(rand.N(k.longest*11/10), func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	if k.longest == 0 {
		if err != nil {
			t.Fatalf("%v\n%s", err, cmd.Stderr)
		}
		k.longest = time.Since(start)
	}
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		k.killed++
	}
}

// Law 7: a command killed at any point leaves old or new, never half; the next ones work, and nothing stays.
func TestKilled(t *testing.T) {
	one, two := newSample(t, "one"), newSample(t, "two")
	dir := t.TempDir()
	for name, data := range map[string][]byte{"one": one.docker(t, "app"), "two": two.layout(t, gz, "+gzip", map[string]string{annotationContainerd: "docker.io/library/app:latest"}), "root": two.layers[0]} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what, archive string
		rounds        int
	}{{"load", "two", 40}, {"import", "root", 25}, {"remove", "", 25}} {
		t.Run(c.what, func(t *testing.T) {
			var k killer
			for range c.rounds {
				s := memoryStore(t)
				load(t, s, one.docker(t, "app"))
				k.run(t, c.what, s.root, filepath.Join(dir, c.archive))
				afterKill(t, s, one, two)
			}
			t.Logf("killed in %d of %d rounds within %v", k.killed, c.rounds, k.longest)
			if k.killed == 0 {
				t.Error("no round was killed: the test proves nothing")
			}
		})
	}
}

// afterKill verifies a store in which a process was killed.
func afterKill(t *testing.T, s *Store, one, two sample) {
	t.Helper()
	s.Kept = func() (map[string]bool, error) { return nil, nil }
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sum := range list {
		whole(t, s, sum.ID)
	}
	checkLayout(t, s) // listing was enough to repair
	img, err := s.Resolve(t.Context(), "app")
	if err == nil && img.ID != one.id(t) && img.ID != two.id(t) || err != nil && !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %+v, %v", img, err)
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, sum := range list {
		whole(t, s, sum.ID)
	}
	load(t, s, two.docker(t, "app"))
	checkImage(t, s, resolve(t, s, "app"), two)
	for _, sum := range must(s.List(t.Context())) {
		if _, err := s.Remove(t.Context(), sum.ID, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	wantEmpty(t, s)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// whole makes sure that each layer of an image is what its digest says: the content of a layer's files is
// compared by size with what was recorded when it was verified.
func whole(t *testing.T, s *Store, id string) {
	t.Helper()
	img := resolve(t, s, id)
	for _, l := range img.Layers {
		rec, err := s.readLayer(l.ChainID)
		if err != nil || rec.DiffID != l.DiffID {
			t.Errorf("%s: %+v, %v", l.ChainID, rec, err)
		}
		var sum int64
		filepath.WalkDir(l.Dir, func(path string, d os.DirEntry, err error) error {
			if st, err := d.Info(); err == nil && st.Mode().IsRegular() {
				sum += st.Size()
			}
			return err
		})
		if sum != rec.Size {
			t.Errorf("%s: want %d bytes, got %d", l.Dir, rec.Size, sum)
		}
	}
}

// F22: many processes bring and remove the same image at once.
func TestManyProcesses(t *testing.T) {
	smp := newSample(t, "x")
	archive := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(archive, smp.docker(t, "app"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	var wg sync.WaitGroup
	for i := range 12 {
		what := "load"
		if i%3 == 2 {
			what = "remove"
		}
		cmd := startChild(t, what, s.root, archive)
		wg.Go(func() {
			if err := cmd.Wait(); err != nil && !strings.Contains(fmt.Sprint(cmd.Stderr), "No such image") {
				t.Errorf("%s: %v: %s", what, err, cmd.Stderr)
			}
		})
	}
	wg.Wait()
	load(t, s, smp.docker(t, "app"))
	checkImage(t, s, resolve(t, s, "app"), smp)
	if _, err := s.Remove(t.Context(), "app", RemoveOptions{}); err != nil {
		t.Error(err)
	}
	wantEmpty(t, s)
}

// F12: a full disk is said, and leaves nothing; with room again the same command works.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	smp := newSample(t, "x")
	smp.layers[1] = tarOf(t, "etc/", "", "etc/.wh.old", "", "etc/new", "x", "big", strings.Repeat("0123456789abcdef", 1<<16))
	smp.config.RootFS.DiffIDs[1] = sumOf(smp.layers[1])
	data := smp.docker(t, "app")
	for _, kib := range []int{300, 1200, 1900} {
		size := fmt.Sprintf("size=%dk", kib)
		if err := unix.Mount("none", dir, "tmpfs", 0, size); err != nil {
			t.Skip(err)
		}
		func() {
			defer unix.Unmount(dir, unix.MNT_DETACH)
			root := dir + "/root"
			if err := state.Open(root); err != nil {
				t.Fatal(err)
			}
			s := Open(root)
			for what, bring := range map[string]func() error{
				"load": func() error { _, err := s.Load(t.Context(), bytes.NewReader(data), LoadOptions{}); return err },
				"import": func() error {
					_, err := s.Import(t.Context(), bytes.NewReader(smp.layers[1]), ImportOptions{})
					return err
				},
			} {
				err := bring()
				if !errors.Is(err, unix.ENOSPC) || errors.Is(err, errdef.ErrInvalid) {
					t.Errorf("%s, %d KiB: want the disk blamed, got %v", what, kib, err)
				}
				wantEmpty(t, s)
			}
			if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
				t.Fatal(err)
			}
			load(t, s, data)
			resolve(t, s, "app")
			checkLayout(t, s)
		}()
	}
}

// The store of an ordinary user.
func TestUnprivileged(t *testing.T) {
	nobody.Runs(t, "^Test(Load|Pull|Push|Import|Remove|Resolve|Reflog|Damaged|Busybox|Modes|Merged)", "TestLoad")
}

// A real userland: the machine's static busybox as an image.
func TestBusybox(t *testing.T) {
	var data []byte
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if d, err := os.ReadFile(path); err == nil {
			data = d
		}
	}
	if data == nil {
		t.Skip("busybox-static is not installed")
	}
	smp := newSample(t, "busybox")
	smp.layers[0] = tarOf(t, "./", "", "bin/", "", "bin/busybox", string(data), "bin/sh->busybox", "", "bin/true->busybox", "")
	smp.config.RootFS.DiffIDs[0] = sumOf(smp.layers[0])
	s := newStore(t)
	start := time.Now()
	load(t, s, gz(smp.docker(t, "busybox:1.35")))
	t.Logf("loaded in %v", time.Since(start))
	img := resolve(t, s, "busybox:1.35")
	got, err := os.ReadFile(filepath.Join(img.Layers[0].Dir, "bin/busybox"))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A Debian root file system imports; the tar is the one image/layer's tests cache.
func TestImportDebian(t *testing.T) {
	f, err := os.Open(filepath.Join(os.TempDir(), "hull-test-bookworm-essential.tar"))
	if err != nil {
		t.Skip("the tests of image/layer have not made a Debian root file system")
	}
	defer f.Close()
	s := newStore(t)
	start := time.Now()
	if _, err := s.Import(t.Context(), f, ImportOptions{Ref: "debian:bookworm"}); err != nil {
		t.Fatal(err)
	}
	t.Logf("imported in %v", time.Since(start))
	img := resolve(t, s, "debian:bookworm")
	if data, err := os.ReadFile(img.Layers[0].Dir + "/etc/debian_version"); err != nil || !strings.HasPrefix(string(data), "12") {
		t.Errorf("got %q, %v", data, err)
	}
}

func FuzzTarget(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"`+typeConfig+`","digest":"`+sumOf(nil)+`","size":1},"layers":[null]}`), typeManifest)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"`+typeIndex+`","manifests":[{"digest":"`+sumOf(nil)+`","platform":null}]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"layers":[],"manifests":[]}`), typeIndex)
	f.Fuzz(func(t *testing.T, data []byte, declared string) {
		m, x, err := parseTarget(data, declared)
		if err != nil {
			if !errors.Is(err, errdef.ErrInvalid) && !errors.Is(err, errdef.ErrUnavailable) {
				t.Fatal(err)
			}
			return
		}
		if (m == nil) == (x == nil) {
			t.Fatal("neither or both")
		}
		var all []descriptor
		if m != nil {
			all = append(m.Layers, m.Config)
		} else {
			all = x.Manifests
			x.choose(platform{OS: "linux", Architecture: "amd64"})
		}
		for _, d := range all {
			if _, err := ref.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
				t.Fatalf("%+v", d)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["` + sumOf(nil) + `"]},"config":{"Env":["A=b"],"Healthcheck":{"Test":["CMD"],"Interval":1}}}`))
	f.Add([]byte(`{"rootfs":{"type":"layers"},"config":{"Volumes":{"/a/../b":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"RTMIN+3"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		for _, d := range chainIDs(c.RootFS.DiffIDs) {
			if _, err := ref.ParseDigest(d); err != nil {
				t.Fatal(err)
			}
		}
		if c.Validate() != nil {
			return
		}
		for _, e := range c.Run.Env {
			if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsAny(e, "\x00") || strings.Contains(name, "\n") {
				t.Fatalf("%q", e)
			}
		}
		for v := range c.Run.Volumes {
			if !filepath.IsAbs(v) || strings.Contains(v, "/../") {
				t.Fatalf("%q", v)
			}
		}
	})
}

func FuzzChange(f *testing.F) {
	f.Add(`ENV A=b "c d"='e f'`)
	f.Add(`HEALTHCHECK --interval=5s --retries=3 CMD ["a","b"]`)
	f.Add(`VOLUME ["/a"]`)
	f.Fuzz(func(t *testing.T, s string) {
		var r Run
		if err := r.Change([]string{s}); err != nil && !errors.Is(err, errdef.ErrInvalid) {
			t.Fatal(err)
		}
	})
}

func FuzzLog(f *testing.F) {
	f.Add("2026-11-23T10:30:00Z - " + sumOf(nil) + " load\n2026-11-23T10:31:00Z " + sumOf(nil) + " - rmi x\n2026")
	f.Add("2026-11-23T10:30:00Z - " + sumOf(nil) + " revision=v1%20%x load")
	f.Fuzz(func(t *testing.T, s string) {
		for _, e := range parseLog(s) {
			for _, d := range []string{e.Old, e.New} {
				if _, err := ref.ParseDigest(d); d != "" && err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func FuzzLoad(f *testing.F) {
	smp := newSample(f, "x")
	f.Add(smp.docker(f, "app"))
	f.Add(smp.layout(f, gz, "+gzip"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := memoryStore(t)
		if _, err := s.Load(t.Context(), bytes.NewReader(data), LoadOptions{}); err != nil {
			wantEmpty(t, s)
			return
		}
		for _, sum := range must(s.List(t.Context())) {
			whole(t, s, sum.ID)
		}
	})
}

// The layers as overlayfs shows them: what a layer hides is hidden, what it makes anew shows nothing old.
func TestMerged(t *testing.T) {
	layers := [][]byte{
		tarOf(t, "./", "", "a/", "", "a/x", "1", "a/y", "1", "b/", "", "b/z", "1", "c", "1", "d/", "", "d/q", "1", "e/", "", "e/f/", "", "e/f/g", "1", "h/", "", "h/i", "1", "keep", "1"),
		tarOf(t, ".wh.c", "", "a/", "", "a/.wh.x", "", "b/", "", "b/.wh..wh..opq", "", "b/new", "2", ".wh.d", "", "d/", "", "d/r", "2", "e/.wh.f", "", "h/", "", "h/i/", "", "h/i/j", "2"),
		tarOf(t, "c/", "", "c/again", "3", "e/f", "3"),
	}
	var smp sample
	smp.config = Config{OS: "linux", RootFS: RootFS{Type: "layers"}}
	for _, c := range []struct {
		add  []byte
		want string
	}{
		{layers[0], ""},
		{layers[1], "a a/y=1 b b/new=2 d d/r=2 e h h/i h/i/j=2 keep=1"},
		{layers[2], "a a/y=1 b b/new=2 c c/again=3 d d/r=2 e e/f=3 h h/i h/i/j=2 keep=1"},
		{tarOf(t, ".wh..wh..opq", "", "a/", "", "n", "4"), "a n=4"},
	} {
		smp.layers = append(smp.layers, c.add)
		smp.config.RootFS.DiffIDs = append(smp.config.RootFS.DiffIDs, sumOf(c.add))
		if c.want == "" {
			continue
		}
		s := newStore(t)
		load(t, s, smp.docker(t, "app"))
		if got := merged(t, resolve(t, s, "app")); got != c.want {
			t.Errorf("%d layers: want %s\n got %s", len(smp.layers), c.want, got)
		}
	}
}

// merged lists the files of an overlay mount of img, made in a mount namespace of its own; an ordinary user needs a
// user namespace too, and overlayfs then reads the attributes that a user can set.
func merged(t *testing.T, img *Image) string {
	t.Helper()
	var lower []string
	for _, l := range img.Layers {
		lower = append([]string{l.Dir}, lower...)
	}
	args, opts := []string{"-m"}, ""
	if os.Geteuid() != 0 {
		args, opts = []string{"-U", "-r", "-m"}, "userxattr,"
	}
	const script = `mount -t overlay -o "$1" none "$2" && cd "$2" && find . -mindepth 1 | sort | while read f; do
		f=${f#./}; if test -f "$f"; then echo "$f=$(cat "$f")"; else echo "$f"; fi; done`
	cmd := exec.Command("unshare", append(args, "sh", "-c", script, "sh", opts+"lowerdir="+strings.Join(lower, ":"), t.TempDir())...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("no overlay mount here: %v: %s", err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}
