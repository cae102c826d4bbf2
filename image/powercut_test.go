package image

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/test/rig/disk"
)

// newDiskStore is a store on a disk of its own that holds bigSample "one" as app. Call it where disk.New may be.
func newDiskStore(t *testing.T) (*disk.Disk, *Store) {
	t.Helper()
	d := disk.New(t)
	root := d.Dir + "/root"
	if err := state.Open(root); err != nil {
		t.Fatal(err)
	}
	s := Open(root)
	s.Kept = func() (map[string]bool, error) { return nil, nil }
	load(t, s, bigSample(t, "one").docker(t, "app"))
	return d, s
}

// bigSample is an image with many files, some of which are surely still in memory when a Load returns.
func bigSample(t testing.TB, mark string) sample {
	smp := newSample(t, mark)
	var files []string
	for i := range 60 {
		files = append(files, fmt.Sprintf("data/%d", i), strings.Repeat(fmt.Sprintf("%s %d\n", mark, i), 200*i))
	}
	smp.layers = append(smp.layers, tarOf(t, append([]string{"data/", ""}, files...)...))
	smp.config.RootFS.DiffIDs = append(smp.config.RootFS.DiffIDs, sumOf(smp.layers[2]))
	return smp
}

// checkBig compares all content of a bigSample.
func checkBig(t *testing.T, s *Store, img *Image, mark string) {
	t.Helper()
	want := bigSample(t, mark)
	if img.ID != want.id(t) || len(img.Layers) != 3 {
		t.Fatalf("want %s, got %+v", want.id(t), img)
	}
	for i := range 60 {
		path := fmt.Sprintf("%s/data/%d", img.Layers[2].Dir, i)
		if data, err := os.ReadFile(path); err != nil || string(data) != strings.Repeat(fmt.Sprintf("%s %d\n", mark, i), 200*i) {
			t.Errorf("%s: %d bytes, %v", path, len(data), err)
		}
	}
	for path, content := range map[string]string{img.Layers[0].Dir + "/bin/sh": "#!shell " + mark, img.Layers[1].Dir + "/etc/new": mark} {
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
}

// Law 7: what Load, Tag and Remove returned for is there after the power was cut the moment after.
func TestPowerCutAfter(t *testing.T) {
	if !disk.OwnMounts(t) {
		return
	}
	d, s := newDiskStore(t)
	d.Cut()
	checkBig(t, s, resolve(t, s, "app"), "one")
	must(s.List(t.Context())) // that temporary files went is no promise: the next command removes them again
	checkLayout(t, s)
	if err := s.Tag(t.Context(), "app", "other", ""); err != nil {
		t.Fatal(err)
	}
	d.Cut()
	checkBig(t, s, resolve(t, s, "other"), "one")
	load(t, s, bigSample(t, "two").layout(t, gz, "+gzip", map[string]string{annotationContainerd: "docker.io/library/app:latest"}))
	d.Cut()
	checkBig(t, s, resolve(t, s, "app"), "two")
	checkBig(t, s, resolve(t, s, "app@{1}"), "one")
	if _, err := s.Remove(t.Context(), "other", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	d.Cut()
	if _, err := s.Resolve(t.Context(), "other"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("want it removed, got %v", err)
	}
	checkBig(t, s, resolve(t, s, "app"), "two")
}

// A power cut in the middle: old or new, and all that is listed is whole.
func TestPowerCutDuring(t *testing.T) {
	if !disk.OwnMounts(t) {
		return
	}
	d, s := newDiskStore(t)
	archives := t.TempDir()
	for _, mark := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(archives, mark), bigSample(t, mark).docker(t, "app"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 8 {
		cmd := startChild(t, "load", d.Dir+"/root", filepath.Join(archives, []string{"two", "one"}[round%2]))
		time.Sleep(rand.N(60 * time.Millisecond))
		t.Log(cutUnder(t, d, cmd))
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sum := range list {
			img := resolve(t, s, sum.ID)
			checkBig(t, s, img, img.Config.Run.Labels["mark"])
		}
		if img := resolve(t, s, "app"); img.Config.Run.Labels["mark"] == "" {
			t.Errorf("got %+v", img)
		}
		for _, sum := range list { // so that the next round has work to do
			if len(sum.RepoTags) == 0 {
				if _, err := s.Remove(t.Context(), sum.ID, RemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// cutUnder cuts the power under a running command and returns what that said. A command that does not end shows where it
// hangs: its deadlines are a minute at most.
func cutUnder(t *testing.T, d *disk.Disk, cmd *exec.Cmd) string {
	t.Helper()
	_ = d.Off() // d.Cut says why not
	quit := time.AfterFunc(90*time.Second, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	waitErr := cmd.Wait()
	if !quit.Stop() {
		t.Fatalf("it hangs on a disk that fails: %s", cmd.Stderr)
	}
	d.Cut()
	out, _, _ := bytes.Cut(cmd.Stderr.(*bytes.Buffer).Bytes(), []byte("\n"))
	return fmt.Sprintf("%v %s", waitErr, out)
}
