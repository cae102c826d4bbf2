package rig

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"hull/kernel/netlink"

	"golang.org/x/sys/unix"
)

// A test binary that uses this package has a network of its own: engines make bridges, and those of the host are nobody's
// to test with. All its threads have to be there and threads cannot be moved, so the binary executes itself once more,
// which leaves the namespace of the thread that does. Whatever it starts is in there too; an ordinary user has to do
// without, and needs no bridges.
func init() {
	if os.Geteuid() != 0 {
		return
	}
	if !hostNetwork() {
		runtime.LockOSThread() // the first thread is the process in /proc: no test gets it, and so none takes it elsewhere
		if fd, err := strconv.Atoi(os.Getenv(machine)); err == nil {
			unix.CloseOnExec(fd)
		}
		return
	}
	runtime.LockOSThread()
	if err := leaveNetwork(); err != nil {
		fmt.Fprintf(os.Stderr, "rig: a network for tests: %v\n", err)
		os.Exit(1)
	}
}

// own names, in the environment, the namespace that a test binary has made for itself: nothing else tells a network of
// tests from that of the machine, whose process 1 cannot be looked at everywhere.
const own = "HULL_TEST_NETWORK"

// machine names, in the environment, the descriptor of the network that a test binary has left.
const machine = "HULL_TEST_MACHINE"

// Online has cmd run in the network of the machine, for what fetches packages.
func Online(t testing.TB, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	fd := os.Getenv(machine)
	if os.Geteuid() != 0 || fd == "" {
		return cmd
	}
	nsenter := Tool(t, "nsenter")
	cmd.Path, cmd.Args = nsenter, append([]string{nsenter, fmt.Sprintf("--net=/proc/%d/fd/%s", os.Getpid(), fd), "--"}, cmd.Args...)
	return cmd
}

// hostNetwork reports whether this process is in a network that may be the machine's.
func hostNetwork() bool {
	ns, err := os.Readlink("/proc/self/ns/net")
	return err != nil || os.Getenv(own) != ns
}

func leaveNetwork() error {
	left, err := unix.Open(threadNetwork, unix.O_RDONLY, 0) // inherited
	if err != nil {
		return err
	}
	if err := newNetwork(); err != nil {
		return err
	}
	stay, err := Stay()
	if err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), stay, machine+"="+strconv.Itoa(left)))
}

const threadNetwork = "/proc/thread-self/ns/net"

// newNetwork gives the calling thread a network with nothing but its loopback.
func newNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	c, err := netlink.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	var b netlink.Batch
	b.Link("bring lo up", unix.RTM_NEWLINK, 0, netlink.Header{Index: 1, Flags: unix.IFF_UP, Change: unix.IFF_UP})
	return c.Do(&b)
}

// Network gives t a network that it shares with nobody: the goroutine that calls it, the commands started by that one and
// the census it takes are there until t ends, so that tests beside each other may publish the same port. Goroutines that
// t starts stay outside.
func Network(t testing.TB) {
	t.Helper()
	Root(t)
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := newNetwork(); err != nil {
		t.Fatal(err)
	}
}

// Stay is the variable of the environment by which a test binary, started by this one, stays in the caller's network.
func Stay() (string, error) {
	ns, err := os.Readlink(threadNetwork)
	return own + "=" + ns, err
}
