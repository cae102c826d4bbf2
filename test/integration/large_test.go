package integration

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hull/test/rig"
)

// TestManyLayers runs an image of as many layers as one overlayfs takes, and refuses one more with a reason.
func TestManyLayers(t *testing.T) {
	h := rig.Engine(t)
	base := rig.Layered(t)
	many := func(n int) string {
		img := *base
		img.Tag, img.Layers, img.Tars = fmt.Sprintf("many:%d", n), base.Layers[:1], nil
		for i := 1; i < n; i++ {
			name := fmt.Sprintf("layer%d", i)
			img.Tars = append(img.Tars, packed(t, []tar.Header{{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, {Name: "top", Typeflag: tar.TypeReg, Mode: 0o644, Uid: i}}))
		}
		img.User, img.Entry, img.Dir = "", nil, ""
		return img.OCI(t)
	}
	for _, n := range []int{128, 500} {
		h.Load(t, many(n))
		run := h.Run(t, "run", "--rm", "--network", "none", fmt.Sprintf("many:%d", n), "sh", "-c", "ls / | grep -c ^layer; stat -c %u /top")
		if n == 500 && rig.Guest() { // without lowerdir+ all their names have to fit on a page
			if run.Code != 125 || !strings.Contains(run.Stderr, "too many for this kernel") {
				t.Errorf("500 layers: got %+v", run)
			}
			continue
		}
		got := strings.TrimSuffix(run.Stdout, "\n")
		if want := fmt.Sprintf("%d\n%d", n-1, n-1); got != want {
			t.Errorf("%d layers: want %q, got %q %s", n, want, got, run.Stderr)
		}
	}
	h.Mark(t)
	if r := h.Run(t, "load", "-i", many(501)); r.Code == 0 || !strings.Contains(r.Stderr, "overlayfs takes 500 at most") {
		t.Errorf("501 layers: got %+v", r)
	}
}

// TestMillionFiles loads one layer of a million files: memory does not grow with their number. It takes minutes, more than
// the ten that go test allows by itself:
//
//	HULL_TEST_MILLION=1 go test ./test/integration -run TestMillionFiles -timeout 60m -v
func TestMillionFiles(t *testing.T) {
	if os.Getenv("HULL_TEST_MILLION") == "" {
		t.Skip("set HULL_TEST_MILLION=1: it makes a million files")
	}
	h := rig.Engine(t)
	const files = 1_000_000
	archive := filepath.Join(h.Dir, "million.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for i := range files {
		if i%1000 == 0 {
			w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/", i/1000), Typeflag: tar.TypeDir, Mode: 0o755})
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/file%d", i/1000, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: 4}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "data")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, args := range [][]string{{"import", archive, "million"}, {"save", "-o", filepath.Join(h.Dir, "saved.tar"), "million"}, {"rmi", "million"}} {
		cmd := exec.Command(h.Program, args...)
		cmd.Env = h.Env
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		begin := time.Now()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, &out)
		}
		peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		t.Logf("%s: %.1f s, %.1f s CPU, at most %d MiB", args[0], time.Since(begin).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), peak>>10)
		if peak > 100<<10 {
			t.Errorf("%s took %d MiB of memory", args[0], peak>>10)
		}
	}
}
