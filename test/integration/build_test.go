package integration

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"hull/test/rig"
)

// dockerfile writes a context with one file and this Dockerfile.
func dockerfile(t *testing.T, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": strings.Join(lines, "\n") + "\n", "file": "content\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pruned removes all that builds leave, so that a census sees the rest.
func pruned(t *testing.T, h *rig.Hull) {
	t.Helper()
	h.Must(t, "builder", "prune", "-af")
	h.Must(t, "image", "prune", "-f")
	h.Must(t, "trash", "empty", "-f")
}

// TestBuildKilled: a build that ends in the middle of a step takes the step with it, and the next one succeeds.
func TestBuildKilled(t *testing.T) {
	rig.Root(t)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			h := rig.Engine(t)
			h.Load(t, rig.Busybox(t))
			marker := t.TempDir()
			dir := dockerfile(t, "FROM busybox", "COPY file /", "RUN --mount=type=cache,target=/c touch /c/begun; test -e /c/quick || sleep 600")
			cmd := h.Cmd(t, "build", "--iidfile", filepath.Join(marker, "id"), dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			begun := filepath.Join(h.Root, "builds/mounts/*/fs/begun")
			rig.Eventually(t, "the step begins", func() bool {
				found, _ := filepath.Glob(begun)
				return len(found) > 0
			})
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			found, _ := filepath.Glob(begun)
			if err := os.WriteFile(filepath.Join(filepath.Dir(found[0]), "quick"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(marker, "id")); err == nil {
				t.Error("a build that was killed says it made an image")
			}
			rig.Eventually(t, "the step ends", func() bool { return len(h.Pids()) == 0 })
			if out := h.Must(t, "ps", "-aq"); out != "" {
				t.Errorf("containers are left: %s", out)
			}
			h.Must(t, "build", "-q", dir)
			if left, _ := os.ReadDir(filepath.Join(h.Root, "builds/running")); len(left) > 0 {
				t.Errorf("left of the build: %v", left)
			}
			pruned(t, h)
			h.Check(t)
		})
	}
}

// TestBuildFirst: a build may be the first command of a store.
func TestBuildFirst(t *testing.T) {
	rig.Root(t)
	h := rig.Engine(t)
	dir := dockerfile(t, "FROM scratch", "COPY file /")
	h.Must(t, "build", "-q", "-t", "first", dir)
	h.Must(t, "rmi", "first")
	pruned(t, h)
	if left := h.Difference(); len(left) != 1 || !strings.HasSuffix(left[0], "root/events/journal") { // which a store has from its first event on
		t.Errorf("left behind: %q", left)
	}
	h.Mark(t)
}

// TestBuildsAtOnce: several of the same at once all succeed, with the same image.
func TestBuildsAtOnce(t *testing.T) {
	rig.Root(t)
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	dir := dockerfile(t, "FROM busybox", "COPY file /", "RUN --mount=type=cache,target=/c,sharing=locked echo x >> /c/log; cat /c/log | wc -l > /n")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if r := h.Run(t, "build", "-q", "-t", "app", dir); r.Code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	first := h.Must(t, "build", "-q", "-t", "app", dir)
	if again := h.Must(t, "build", "-q", "-t", "app", dir); again != first {
		t.Errorf("built again it is %s, not %s", again, first)
	}
	h.Must(t, "rmi", "app")
	pruned(t, h)
	h.Check(t)
}

// TestBuildJail: what a context and a stage have of links leads nowhere outside of them.
func TestBuildJail(t *testing.T) {
	rig.Root(t)
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "canary"), []byte("canary\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, lines := range map[string][]string{
		"link to a file":           {"COPY evil/canary /got"},
		"link to a directory":      {"COPY evil/ /got/"},
		"wildcard":                 {"COPY evil/* /got/"},
		"relative":                 {"COPY up/canary /got"},
		"bind":                     {"RUN --mount=type=bind,source=evil,target=/m cat /m/canary > /got"},
		"proc":                     {"COPY --from=s /p/" + strings.TrimPrefix(outside, "/") + "/canary /got"},
		"written through":          {"RUN ln -s " + outside + " /out", "COPY file /out/written"},
		"archive through":          {"ADD a.tar /"},
		"removed through the stub": {"RUN --mount=type=tmpfs,target=/d/t mv /d /e 2>/dev/null; ln -s " + outside + " /d 2>/dev/null; true"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dockerfile(t, append([]string{"FROM busybox AS s", "RUN ln -s /proc/self/root /p", "FROM busybox"}, lines...)...)
			for link, to := range map[string]string{"evil": outside, "up": "../" + filepath.Base(outside)} {
				if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "a.tar"), linkTar(t, outside), 0o644); err != nil {
				t.Fatal(err)
			}
			r := h.Run(t, "build", "-t", "jail", dir)
			if r.Code == 0 {
				if out := h.Run(t, "run", "--rm", "--network", "none", "jail", "sh", "-c", "cat /got /got/* 2>/dev/null; true"); strings.Contains(out.Stdout, "canary") {
					t.Errorf("a file of the host is in the image:\n%s%s", out.Stdout, r.Stderr)
				}
			}
			left, err := os.ReadDir(outside)
			if err != nil || len(left) != 1 || left[0].Name() != "canary" {
				t.Fatalf("the directory outside has %v, %v", left, err)
			}
		})
	}
	h.Run(t, "rmi", "jail")
	pruned(t, h)
	h.Check(t)
}

// linkTar is an archive that makes a link and writes through it.
func linkTar(t *testing.T, to string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Name: "out2", Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777},
		{Name: "out2/written", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "../../../../../../../../" + to + "/up", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
