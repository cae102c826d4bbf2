package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroups tries what CVE-2022-0492 needs: a writable release_agent, or a mount of the hierarchy of one's own.
func cgroups() {
	for _, ns := range []struct {
		name string
		flag int
	}{{"user", unix.CLONE_NEWUSER}, {"mount", unix.CLONE_NEWNS}, {"cgroup", unix.CLONE_NEWCGROUP}} {
		// The runtime's threads would make user and mount fail with EINVAL; only EPERM and success count.
		if err := unix.Unshare(ns.flag); err != unix.EPERM {
			success("unshare %s: %v", ns.name, err)
		}
	}
	os.Mkdir("/tmp/cg", 0o755)
	for _, m := range []struct{ fstype, data string }{{"cgroup", "rdma"}, {"cgroup", "memory"}, {"cgroup", "none,name=mine"}, {"cgroup2", ""}, {"tmpfs", ""}, {"proc", ""}} {
		if unix.Mount("none", "/tmp/cg", m.fstype, 0, m.data) == nil {
			success("mounted %s %s", m.fstype, m.data)
			unix.Unmount("/tmp/cg", unix.MNT_DETACH)
		}
	}
	if fd, err := unix.Fsopen("cgroup2", 0); err == nil {
		success("fsopen cgroup2: %d", fd)
	}
	files := 0
	filepath.Walk("/sys/fs/cgroup", func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return nil
		}
		switch filepath.Base(path) {
		case "release_agent", "notify_on_release", "cgroup.procs", "tasks", "devices.allow", "pids.max", "memory.limit_in_bytes", "memory.max", "cgroup.freeze":
			files++
			if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
				success("opened %s for writing", path)
				f.Close()
			}
		}
		if info.IsDir() && os.Mkdir(path+"/attack", 0o755) == nil {
			success("made a cgroup in %s", path)
			os.Remove(path + "/attack")
		}
		return nil
	})
	note("%d control files", files)
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(b)) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(f) == 3 && f[2] != "/" {
				success("knows its place on the host: %s", strings.TrimSpace(line))
			}
		}
	}
}

// devices opens nodes: of the numbers given, made here, and those the image brought in /dev-evil.
func devices(numbers []string) {
	for _, n := range numbers {
		var major, minor uint32
		fmt.Sscanf(n, "%d:%d", &major, &minor)
		for kind, mode := range map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR} {
			path := fmt.Sprintf("/tmp/node-%s-%d-%d", kind, major, minor)
			err := unix.Mknod(path, mode|0o666, int(unix.Mkdev(major, minor)))
			note("mknod %s %s: %v", kind, n, err)
			if err == nil {
				tryOpen(path)
			}
		}
	}
	nodes, _ := filepath.Glob("/dev-evil/*")
	for _, path := range nodes {
		tryOpen(path)
	}
	note("%d nodes in the image", len(nodes))
}

func tryOpen(path string) {
	for _, flag := range []int{unix.O_RDONLY, unix.O_WRONLY} {
		fd, err := unix.Open(path, flag|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			success("opened %s (flags %d)", path, flag)
			unix.Close(fd)
		}
	}
}

// sockets makes sockets of every family. UNIX, INET, INET6 and NETLINK are no success.
func sockets() {
	made := 0
	for family := range 48 {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET} {
			fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
			switch family {
			case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK:
				if err == nil {
					made++
					unix.Close(fd)
				}
				continue
			}
			if err != unix.EPERM { // any other error comes from the family's own code
				success("socket family %d kind %d reached the kernel: %v", family, kind, err)
			}
			if _, err := unix.Socketpair(family, kind, 0); err != unix.EPERM {
				success("socketpair family %d kind %d reached the kernel: %v", family, kind, err)
			}
		}
	}
	note("%d sockets of the allowed families", made)
	for family := range uintptr(48) {
		if errno := foreign(unix.SYS_SOCKET, family, unix.SOCK_STREAM); errno != unix.ENOSYS && errno != unix.EPERM {
			success("socket family %d through another interface reached the kernel: %v", family, errno)
		}
	}
}

// secrets of the host that a container has no business with: reading gives nothing.
var secrets = []string{
	"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/interrupts",
	"/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/slab", "/sys/fs/selinux",
	"/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/proc/kmsg",
}

// switches of the host: writing fails.
var switches = []string{
	"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/vm/drop_caches",
	"/proc/sys/fs/binfmt_misc/register", "/proc/bus", "/proc/fs", "/proc/irq/default_smp_affinity", "/proc/sys/kernel/panic", "/proc/sys/kernel/printk",
	"/proc/sys/vm/overcommit_memory", "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state", "/sys/class/net/lo/ifalias",
	"/proc/mtrr",
}

func paths() {
	thermal, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	for _, path := range append(secrets, thermal...) {
		for _, alias := range []string{path, "/proc/self/root" + path, "/proc/1/root" + path} {
			readSecret(alias)
		}
	}
	for _, path := range switches {
		for _, alias := range []string{path, "/proc/self/root" + path, "/proc/1/root" + path} {
			if info, err := os.Stat(alias); err == nil && !info.IsDir() {
				if f, err := os.OpenFile(alias, os.O_WRONLY, 0); err == nil {
					success("opened %s for writing", alias)
					f.Close()
				}
			}
		}
	}
	// Taking the covers off.
	for _, path := range append(append([]string{"/proc", "/sys", "/proc/sys", "/sys/fs/cgroup"}, secrets...), switches...) {
		if unix.Unmount(path, unix.MNT_DETACH) == nil {
			success("unmounted %s", path)
		}
		if unix.Mount("none", path, "", unix.MS_REMOUNT|unix.MS_BIND, "") == nil {
			success("remounted %s writable", path)
		}
		if unix.Mount("/tmp", path, "", unix.MS_BIND, "") == nil {
			success("mounted over %s", path)
		}
		if unix.Rename(path, path+"x") == nil {
			success("renamed %s", path)
		}
	}
}

func readSecret(path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	if info.IsDir() {
		if entries, _ := os.ReadDir(path); len(entries) > 0 {
			success("%s lists %d entries, %s first", path, len(entries), entries[0].Name())
		}
		return
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if n, _ := unix.Read(fd, make([]byte, 64)); n > 0 {
		success("read %d bytes of %s", n, path)
	}
}

func domain() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		success("uname: %v", err)
	}
	note("domain %q", unix.ByteSliceToString(u.Domainname[:]))
}
