package kernel

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNewUserNS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, err := NewUserNS([]IDMap{{0, 5 << 16, 1 << 16}}, []IDMap{{0, 5 << 16, 1 << 16}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		t.Error(err)
	}
}

// TestHelperEndsWithParent: the helper that holds a new user namespace shares our descriptors. Killed in the middle, we
// must not live on in it, or whoever is connected to us would never see the end of the connection.
func TestHelperEndsWithParent(t *testing.T) {
	if os.Getenv("HULL_KERNEL_PARENT") != "" {
		parent(t)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperEndsWithParent$")
	cmd.Env = append(os.Environ(), "HULL_KERNEL_PARENT=1")
	out, err := cmd.StdoutPipe() // its other end is what the helper shares
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 1)
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		_, err := out.Read(ready)
		end <- err
	}()
	select {
	case err := <-end:
		if err != io.EOF {
			t.Errorf("want the end of its output, got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("its output is still open: the helper lives on")
	}
	cmd.Wait()
}

// parent makes a helper, says so, and is to be killed.
func parent(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cloneWait(0, &[2]unix.PollFd{{Fd: int32(pipe[0])}, {Fd: int32(self), Events: unix.POLLIN}}); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("x")
	select {}
}
