package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IDMap is a line of uid_map or gid_map, user_namespaces(7): Size ids from Inside are Outside in the parent namespace.
type IDMap struct{ Inside, Outside, Size uint32 }

// NewUserNS makes a user namespace with these maps and returns a descriptor of it. The namespace lives as long as
// somebody holds the descriptor or a process is in it.
//
// Without CAP_SETUID in the caller's namespace a map of the caller's own single id is written by itself (setgroups
// is denied then), any other through newuidmap(1) and newgidmap(1), which need entries in /etc/subuid and /etc/subgid.
func NewUserNS(uids, gids []IDMap) (ns *os.File, err error) {
	ns, _, err = newNamespaces(unix.CLONE_NEWUSER, uids, gids)
	return ns, err
}

// NewUserNetNS is NewUserNS together with a network namespace that belongs to it.
func NewUserNetNS(uids, gids []IDMap) (user, net *os.File, err error) {
	return newNamespaces(unix.CLONE_NEWUSER|unix.CLONE_NEWNET, uids, gids)
}

// NewNetNS makes a network namespace of the caller's user namespace.
func NewNetNS() (ns *os.File, err error) {
	_, ns, err = newNamespaces(unix.CLONE_NEWNET, nil, nil)
	return ns, err
}

// newNamespaces makes one or both kinds, in a child that lives only as long as this takes.
func newNamespaces(flags uint64, uids, gids []IDMap) (user, net *os.File, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		unix.Close(pipe[1])
		return nil, nil, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(self)
	// The kernel writes to it when the child's wait ends, which is before Reap returns, or after our own end.
	until := &[2]unix.PollFd{{Fd: int32(pipe[0])}, {Fd: int32(self), Events: unix.POLLIN}}
	defer runtime.KeepAlive(until)
	pid, err := cloneWait(flags, until)
	if err != nil {
		unix.Close(pipe[1])
		what := "network"
		if flags&unix.CLONE_NEWUSER != 0 {
			what = "user"
		}
		return nil, nil, fmt.Errorf("create %s namespace: %w (hull doctor says what forbids it)", what, err)
	}
	defer func() {
		unix.Close(pipe[1])
		if _, e := Reap(pid); e != nil && err == nil {
			err = fmt.Errorf("reap helper of new namespaces: %w", e)
		}
	}()
	dir := "/proc/" + strconv.Itoa(pid) + "/ns/"
	if flags&unix.CLONE_NEWUSER != 0 {
		if err := writeMaps(pid, uids, gids); err != nil {
			return nil, nil, err
		}
		if user, err = os.OpenFile(dir+"user", os.O_RDONLY, 0); err != nil {
			return nil, nil, fmt.Errorf("open user namespace: %w", err)
		}
	}
	if flags&unix.CLONE_NEWNET != 0 {
		if net, err = os.OpenFile(dir+"net", os.O_RDONLY, 0); err != nil {
			if user != nil {
				user.Close()
			}
			return nil, nil, fmt.Errorf("open network namespace: %w", err)
		}
	}
	return user, net, nil
}

// cloneWait starts a process that shares our memory and descriptors (a copy of the pipe's other end would keep it from
// ending) and does nothing but exit when the pipe ends or we do. If we are killed, it is the only one that holds our
// descriptors: it must not, or whoever is connected to us would wait for an answer for ever.
func cloneWait(flags uint64, until *[2]unix.PollFd) (int, error) {
	a := CloneArgs{Flags: flags | unix.CLONE_VM | unix.CLONE_FILES, ExitSignal: uint64(unix.SIGCHLD)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	runtimeBeforeFork()
	r, e := rawCloneWait(&a, unsafe.Sizeof(a), until)
	runtimeAfterFork()
	if e != 0 {
		return 0, syscall.Errno(e)
	}
	return int(r), nil
}

func writeMaps(pid int, uids, gids []IDMap) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if own(uids, os.Geteuid()) && own(gids, os.Getegid()) && os.Geteuid() != 0 {
		// Since Linux 3.19 (CVE-2014-8989) a gid map without privilege needs setgroups denied first.
		if err := writeFile(dir+"setgroups", []byte("deny")); err != nil {
			return err
		}
	} else if os.Geteuid() != 0 {
		if err := mapTool("newuidmap", pid, uids); err != nil {
			return err
		}
		return mapTool("newgidmap", pid, gids)
	}
	if err := writeFile(dir+"uid_map", mapText(uids)); err != nil {
		return err
	}
	return writeFile(dir+"gid_map", mapText(gids))
}

func own(m []IDMap, id int) bool { return len(m) == 1 && m[0].Size == 1 && m[0].Outside == uint32(id) }

func mapText(m []IDMap) []byte {
	var b []byte
	for _, l := range m {
		b = fmt.Appendf(b, "%d %d %d\n", l.Inside, l.Outside, l.Size)
	}
	return b
}

// writeFile is one write(2): a map is taken whole or not at all.
func writeFile(path string, b []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, b); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func mapTool(tool string, pid int, m []IDMap) error {
	args := []string{strconv.Itoa(pid)}
	for _, l := range m {
		for _, n := range []uint32{l.Inside, l.Outside, l.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("map user ids: %s is not installed (Debian package uidmap)", tool)
	}
	if err != nil {
		return fmt.Errorf("map user ids: %s: %w: %s", tool, err, bytes.TrimSpace(out))
	}
	return nil
}
