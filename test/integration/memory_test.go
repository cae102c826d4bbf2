package integration

import (
	"strings"
	"sync"
	"testing"

	"hull/test/rig"
)

// TestMemoryVolume: a volume of type tmpfs is one for all who use it at the same time, however many come and go at once, and
// goes with the last of them, however that ends.
func TestMemoryVolume(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	h.Must(t, "volume", "create", "mem", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,mode=1777")
	run := func(args ...string) string {
		return h.Must(t, append([]string{"run", "--network", "none", "-v", "mem:/m"}, args...)...)
	}
	left := func() string { return run("--rm", "busybox", "ls", "/m") }

	run("-d", "--name", "first", "busybox", "sleep", "1000")
	var wg sync.WaitGroup
	for _, name := range strings.Fields("a b c d e f g h") {
		wg.Go(func() {
			r := h.Run(t, "run", "--rm", "--network", "none", "-v", "mem:/m", "busybox", "touch", "/m/"+name)
			if r.Code != 0 {
				t.Errorf("%s: %+v", name, r)
			}
		})
	}
	wg.Wait()
	if got := strings.Fields(left()); len(got) != 8 {
		t.Errorf("eight containers wrote a file each, there is %q", got)
	}

	// A monitor that is killed leaves its claim, until the next command finds that out.
	run("-d", "--name", "second", "busybox", "sleep", "1000")
	killMonitor(t, monitorOf(t, h, "second"))
	if got := left(); got == "" {
		t.Error("the first container's files went with the second one")
	}
	killMonitor(t, monitorOf(t, h, "first"))
	h.Must(t, "ps")
	if got := left(); got != "" {
		t.Errorf("nobody used it any more, and there is %q", got)
	}
	h.Must(t, "rm", "-f", "first", "second")

	// Everybody leaves while somebody comes: it is there for whoever has it. A file each: before Linux 6.3 a tmpfs cannot map
	// ids, so that nobody may write what another container made.
	for range 8 {
		wg.Go(func() {
			if r := h.Run(t, "run", "--rm", "--network", "none", "-v", "mem:/m", "busybox", "sh", "-c", "echo x >/m/$HOSTNAME && cat /m/$HOSTNAME"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "x\n") {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	if got := left(); got != "" {
		t.Errorf("nobody uses it any more, and there is %q", got)
	}

	// Also where the start fails.
	if r := h.Run(t, "run", "--rm", "--network", "none", "-v", "mem:/m", "busybox", "nosuch"); r.Code != 127 {
		t.Errorf("%+v", r)
	}
	h.Must(t, "volume", "rm", "mem")
	h.Check(t)
}

// TestSharedMemory: --ipc container: has the /dev/shm of the donor, also after that has ended, and nobody else has.
func TestSharedMemory(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	start := func(name, ipc string) {
		h.Must(t, "run", "-d", "--name", name, "--network", "none", "--ipc", ipc, "busybox", "sleep", "1000")
	}
	start("donor", "shareable")
	start("guest", "container:donor")
	start("other", "shareable")
	h.Must(t, "exec", "guest", "sh", "-c", "echo x >/dev/shm/f")
	if got := h.Must(t, "exec", "donor", "cat", "/dev/shm/f"); got != "x" {
		t.Errorf("the donor reads %q", got)
	}
	if got := h.Must(t, "exec", "other", "ls", "/dev/shm"); got != "" {
		t.Errorf("another container sees %q", got)
	}
	killMonitor(t, monitorOf(t, h, "donor"))
	if r := h.Run(t, "run", "--rm", "--network", "none", "--ipc", "container:donor", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "cannot join") {
		t.Errorf("the donor has ended: %+v", r)
	}
	if got := h.Must(t, "exec", "guest", "cat", "/dev/shm/f"); got != "x" {
		t.Errorf("after the donor's end the guest reads %q", got)
	}
	h.Must(t, "start", "donor") // its group lives on without it: one of the two is gone for who joins
	h.Must(t, "rm", "-f", "donor", "guest", "other")
	h.Check(t)
}
