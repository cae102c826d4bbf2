package state

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// du is what du(1) says of a tree.
func du(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("du", "-sx", "--block-size=1", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDiskUse(t *testing.T) {
	if _, err := exec.LookPath("du"); err != nil {
		t.Skip("no du(1)")
	}
	dir := t.TempDir()
	for _, d := range []string{"/a/b/c", "/d"} {
		os.MkdirAll(dir+d, 0o755)
	}
	os.WriteFile(dir+"/a/file", bytes.Repeat([]byte("x"), 10_000), 0o644)
	os.WriteFile(dir+"/a/b/small", []byte("x"), 0o644)
	os.Link(dir+"/a/file", dir+"/d/again")
	os.Symlink("/", dir+"/d/root")
	unix.Mkfifo(dir+"/d/fifo", 0o600)
	sparse, err := os.Create(dir + "/d/sparse")
	if err != nil {
		t.Fatal(err)
	}
	sparse.Truncate(1 << 30)
	sparse.Close()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 1200 { // deeper than PATH_MAX
		if err := unix.Mkdirat(at, "deep", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "deep", unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	unix.Close(at)
	t.Cleanup(func() { Remove(dir + "/deep") })
	want := du(t, dir)
	var u DiskUse
	got, err := u.Add(t.Context(), dir, nil)
	if err != nil || got != want {
		t.Errorf("want %d as du says, got %d, %v", want, got, err)
	}
	// In parts it is the same, in whatever order.
	u = DiskUse{}
	var sum int64
	for _, part := range []string{"/d", "/a", "/deep", "/none"} {
		n, err := u.Add(t.Context(), dir+part, nil)
		if err != nil {
			t.Error(err)
		}
		sum += n
	}
	n, err := u.Add(t.Context(), dir, func(name string) bool { return name == "a" || name == "d" || name == "deep" })
	if err != nil || sum+n != want {
		t.Errorf("want %d, got %d, %v", want, sum+n, err)
	}
}
