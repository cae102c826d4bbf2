// Package rig is what tests of the whole program stand on: a private engine that nobody else shares, its images
// made offline, a terminal, and a census of everything a container could leave behind.
//
//	func TestRun(t *testing.T) {
//		h := rig.Engine(t) // skips without root, says so; compares the census when t ends
//		h.Load(t, rig.Busybox(t))
//		got := h.Run(t, "run", "--rm", "busybox", "echo", "hi")
//		...
//	}
//
// The programs under test are those of HULL_TEST_BIN, else of the tree's bin/, built first. Beware: HULL_TEST_VM
// is set in the slow guest of make test-vm; Patience scales timeouts for it.
package rig

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Root skips t unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces, mounts and cgroups of the host")
	}
}

// Guest tells whether the test runs in the emulated guest of make test-vm.
func Guest() bool { return os.Getenv("HULL_TEST_VM") != "" }

// Patience is d, or as much longer as this machine is slower than a common one.
func Patience(d time.Duration) time.Duration {
	if Guest() {
		return 15 * d
	}
	return 2 * d
}

// Tool returns the path of a helper program, or skips t, saying what to install.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs the program %s, which make test installs as root", name)
	}
	return path
}

// Source is the root directory of the tree, where go.mod is.
func Source(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the working directory")
	return ""
}

var build struct {
	once sync.Once
	dir  string
	err  error
}

// Bin is the path of one of the programs under test: hull, hulld or hull-runtime. Built once a test binary.
func Bin(t testing.TB, name string) string {
	t.Helper()
	source := Source(t)
	build.once.Do(func() {
		if build.dir = os.Getenv("HULL_TEST_BIN"); build.dir == "" {
			build.dir = filepath.Join(source, "bin")
			build.err = buildAll(source)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	path := filepath.Join(build.dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no program to test: %v; run make build", err)
	}
	return path
}

// buildAll brings bin/ up to date. Test binaries of several packages do it at once: one after the other.
func buildAll(source string) error {
	lock, err := os.Open(filepath.Join(source, ".ci", "build"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	cmd := exec.Command(lock.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out) + err.Error())
	}
	return nil
}

// exists tells whether path is there; anything but absence counts as there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Eventually waits until cond holds, and fails t when it does not for ten seconds of a common machine.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience(10 * time.Second)); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came true: %s", what)
		}
	}
}
