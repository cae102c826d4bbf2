package faults

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"hull/test/rig"

	"golang.org/x/sys/unix"
)

// stageEnv names the socket over which the stage hands the listener to the driver.
const stageEnv = "HULL_FAULT_STAGE"

// Stage turns this process into the command under test when the driver started it for that. Call it first in
// TestMain.
func Stage() {
	value, ok := os.LookupEnv(stageEnv)
	if !ok {
		return
	}
	err := become(value)
	fmt.Fprintln(os.Stderr, "fault stage:", err)
	os.Exit(99)
}

// Beside has more tests run beside each other than there are processors, unless the command line says how many: they
// mostly wait. Call it after Stage.
func Beside() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.NumCPU())) // a flag of package testing
	}
}

// become filters one thread, lets another one send the listener (the filtered one would wait for an answer), and
// executes the command from the filtered thread, which is then the only one.
func become(socket string) error {
	fd, err := strconv.Atoi(socket)
	if err != nil {
		return err
	}
	unix.CloseOnExec(fd)
	listener, sent := make(chan int), make(chan error)
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(ready)
		rights := unix.UnixRights(<-listener)
		err := unix.Sendmsg(fd, []byte{0}, rights, nil, 0)
		for err == unix.EINTR {
			err = unix.Sendmsg(fd, []byte{0}, rights, nil, 0)
		}
		sent <- err
	}()
	<-ready
	runtime.LockOSThread()
	l, err := install()
	if err != nil {
		return fmt.Errorf("install the filter: %w", err)
	}
	listener <- l
	if err := <-sent; err != nil {
		return fmt.Errorf("send the listener: %w", err)
	}
	if err := os.Unsetenv(stageEnv); err != nil {
		return err
	}
	return unix.Exec(os.Args[1], os.Args[1:], os.Environ())
}

type received struct {
	fd  int
	err error
}

// stage changes cmd, not started yet, to run under the filter; its listener arrives on the channel.
func stage(cmd *exec.Cmd) (<-chan received, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// A stage that dies before it sends must not hang the driver.
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}); err != nil {
		return nil, err
	}
	stay, err := rig.Stay() // where the census looks
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "stage")
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.Env = append(cmd.Env, stay, stageEnv+"="+strconv.Itoa(2+len(cmd.ExtraFiles)))
	c := make(chan received, 1)
	go func() { // ends with the message or the time-out
		defer unix.Close(pair[0])
		fd, err := receive(pair[0])
		theirs.Close()
		c <- received{fd, err}
	}()
	return c, nil
}

func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var n int
	var err error
	for again := true; again; again = err == unix.EINTR { // the Go runtime's signals
		_, n, _, _, err = unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	if len(msgs) != 1 {
		return -1, errors.New("the stage ended before it sent its listener")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}
