package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stage says how far into the world this process is: "init" is its process 1, "bench" the one that measures.
const stage = "HULL_BENCH_STAGE"

// enterWorld runs this program again in network, mount and pid namespaces of its own, where engines may make bridges,
// firewall tables, mounts and daemons: with the namespaces all of it goes. It returns the exit code, and false if this
// is that process already.
func enterWorld() (code int, entered bool) {
	var err error
	switch os.Getenv(stage) {
	case "bench":
		return 0, false
	case "init":
		code, err = reap()
	default:
		cmd := again("init")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
		}
		var exit *exec.ExitError
		if err = cmd.Run(); errors.As(err, &exit) {
			return exit.ExitCode(), true
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1, true
	}
	return code, true
}

func again(as string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"="+as)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// reap is process 1: it furnishes the world and waits for the bench and for everybody's orphans.
func reap() (code int, err error) {
	if err := furnish(); err != nil {
		return 1, err
	}
	cmd := again("bench")
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err != nil && err != syscall.EINTR {
			return 1, err
		}
		if err == nil && pid == cmd.Process.Pid {
			return ws.ExitStatus(), nil
		}
	}
}

// furnish makes the world one that engines work in: its own /proc, loopback, mounts that propagate within it, and
// a tmpfs at /run, as on a machine with systemd.
func furnish() error {
	for _, m := range []struct {
		source, target, fs string
		flags              uintptr
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"", "/", "", syscall.MS_REC | syscall.MS_SHARED},
	} {
		if err := syscall.Mount(m.source, m.target, m.fs, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// On a machine with systemd it is one; engines make sockets, locks and claims there.
	var run syscall.Statfs_t
	if err := syscall.Statfs("/run", &run); err != nil {
		return fmt.Errorf("statfs /run: %w", err)
	}
	if run.Type != unix.TMPFS_MAGIC {
		if err := syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount /run: %w", err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
