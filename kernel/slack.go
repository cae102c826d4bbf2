package kernel

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Timer slack is by how much the kernel may wake a thread later than it asked for (PR_SET_TIMERSLACK(2const)). A thread
// has that of its creator, through fork and execve.
//
// Go's monitor thread, which looks for goroutines to take a processor from, sleeps 20 µs at a time while anything
// happens: in a process that lives for some milliseconds that is most of its context switches, and a fifth of a start's
// processor time. With Slack it wakes together with the others. Nothing of ours needs an earlier wake.
const (
	Slack        = time.Millisecond
	DefaultSlack = 50 * time.Microsecond // the kernel's own
)

// RelaxTimers gives Slack to all threads of the process. Without CAP_SYS_NICE only the caller's and those it makes get it.
func RelaxTimers() {
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(Slack), 0)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	text := []byte(strconv.FormatInt(int64(Slack), 10))
	for _, t := range tasks {
		// Below /proc itself: the directory of a thread has no such file.
		fd, err := unix.Open("/proc/"+t.Name()+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it has ended
		}
		_, _ = unix.Write(fd, text)
		_ = unix.Close(fd)
	}
}
