package kernel

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Every thread, Go's own among them, has the slack, and a child that resets it has the kernel's default.
func TestRelaxTimers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the slack of another thread needs CAP_SYS_NICE")
	}
	RelaxTimers()
	want := fmt.Sprint(int64(Slack / time.Nanosecond))
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if os.IsNotExist(err) {
			continue
		}
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("thread %s has slack %q (%v), want %s", task.Name(), got, err, want)
		}
	}
}
