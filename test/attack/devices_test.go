package attack

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostDevices are the numbers of devices that would be the end of the host: its disks, memory, kernel log, kvm.
func hostDevices(t *testing.T) []string {
	t.Helper()
	list := []string{"1:1", "1:2", "1:4", "1:11", "10:232"} // mem, kmem, port, kmsg, kvm
	b, err := os.ReadFile("/proc/partitions")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var major, minor int
		if n, _ := fmt.Sscanf(line, "%d %d", &major, &minor); n == 2 {
			list = append(list, fmt.Sprintf("%d:%d", major, minor))
		}
	}
	return list
}

// makeNodes makes a node of each kind in dir.
func makeNodes(t *testing.T, dir string) {
	t.Helper()
	for _, n := range hostDevices(t) {
		var major, minor uint32
		fmt.Sscanf(n, "%d:%d", &major, &minor)
		for kind, mode := range map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR} {
			if err := unix.Mknod(fmt.Sprintf("%s/%s%d-%d", dir, kind, major, minor), mode|0o666, int(unix.Mkdev(major, minor))); err != nil {
				t.Fatal(err)
			}
		}
	}
}
