// Package disk is a file system whose power can be cut, for tests of what survives. It knows nothing of Hull, so that the
// tests of every package can use it.
package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is one file system, mounted at Dir.
type Disk struct {
	Dir string

	t    *testing.T
	file string
}

// New has to be called in a process with mounts of its own: see OwnMounts. The disk goes with t.
func New(t *testing.T) *Disk {
	t.Helper()
	d := &Disk{t: t, file: filepath.Join(t.TempDir(), "disk"), Dir: t.TempDir()}
	if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.file, 128<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", d.file).CombinedOutput(); err != nil {
		t.Skipf("no mkfs.ext4: %v %s", err, out)
	}
	d.mount()
	t.Cleanup(func() { unix.Unmount(d.Dir, unix.MNT_DETACH) })
	return d
}

func (d *Disk) mount() {
	d.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", d.file, d.Dir).CombinedOutput(); err != nil {
		d.t.Skipf("no loop mount: %v %s", err, out)
	}
}

// Off turns the power off: whatever is not on the disk yet is lost, journal included, and nothing is written any more.
func (d *Disk) Off() error {
	fd, err := unix.Open(d.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	return unix.IoctlSetPointerInt(fd, shutdown, noLogFlush)
}

// Cut turns the power off and mounts again as after a boot.
func (d *Disk) Cut() {
	d.t.Helper()
	if err := d.Off(); err != nil {
		d.t.Skipf("this kernel does not cut the power of ext4: %v", err)
	}
	var err error
	for range 100 { // until who still has a file open is gone
		if err = unix.Unmount(d.Dir, 0); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.mount()
}

// OwnMounts runs the test again in a mount namespace of its own and returns false; there it returns true. If some
// other process copied the mount meanwhile (each container does), the file system would live on after its umount.
func OwnMounts(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if os.Getenv("HULL_TEST_OWN_MOUNTS") != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "HULL_TEST_OWN_MOUNTS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("%s", out)
	}
	t.Logf("%s", out)
	return false
}
