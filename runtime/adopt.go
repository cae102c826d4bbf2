package runtime

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// adopted are the children that a caller of this package waits for, once it is a subreaper. The others, which a runtime of
// others left behind, have nobody who waits: as zombies they would keep the pid namespace of their container from ending.
var adopted struct {
	once sync.Once
	// mu is held while a child may be ours that is not in pids yet. It protects the following.
	mu   sync.Mutex
	pids map[int]bool
	err  error
}

// adopt makes this process a subreaper that waits for those children nobody else does, for the rest of its life.
func adopt() error {
	a := &adopted
	a.once.Do(func() {
		a.pids = map[int]bool{}
		if a.err = os.NewSyscallError("become subreaper", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); a.err != nil {
			return
		}
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, unix.SIGCHLD)
		go func() {
			for range ended {
				reapOrphans()
			}
		}()
	})
	return a.err
}

// reapOrphans waits for the dead children that are not waited for by others.
func reapOrphans() {
	a := &adopted
	a.mu.Lock()
	defer a.mu.Unlock()
	children := map[int]bool{}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range tasks {
		b, _ := os.ReadFile(name)
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				children[pid] = true
			}
		}
	}
	for pid := range a.pids {
		if !children[pid] {
			delete(a.pids, pid) // waited for: the number may come again
		}
	}
	for pid := range children {
		if !a.pids[pid] {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
		}
	}
}

// runOwn is cmd.Run, with cmd known to be waited for. start starts it. The caller holds adopted.mu.
func runOwn(cmd *exec.Cmd, start func(func() error) error) error {
	if err := start(cmd.Start); err != nil {
		return err
	}
	adopted.pids[cmd.Process.Pid] = true
	return cmd.Wait()
}
