package faults

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kind says how a system call is looked at.
type kind int

const (
	plain   kind = iota
	path1        // argument 1 is the path (after a directory descriptor)
	path0        // argument 0 is the path
	onFile       // argument 0 is a descriptor
	cloning      // threads do not count
	opening      // counts when it can create or truncate
	locking      // fcntl: counts when it takes or frees a lock
)

type watch struct {
	nr   int
	name string
	kind kind
}

// watched are the calls that change something another process can see. Calls for the process alone (memory,
// signals' masks, credentials) are left out: dying there is dying before the next one here. So is tgkill, with
// which the Go runtime prods its own threads.
var watched = []watch{
	{unix.SYS_WRITE, "write", onFile}, {unix.SYS_WRITEV, "writev", onFile}, {unix.SYS_PWRITE64, "pwrite64", onFile},
	{unix.SYS_SENDTO, "sendto", onFile}, {unix.SYS_SENDMSG, "sendmsg", onFile}, {unix.SYS_SENDFILE, "sendfile", onFile},
	{unix.SYS_SPLICE, "splice", plain}, {unix.SYS_COPY_FILE_RANGE, "copy_file_range", plain},
	{unix.SYS_FSYNC, "fsync", onFile}, {unix.SYS_FDATASYNC, "fdatasync", onFile}, {unix.SYS_SYNCFS, "syncfs", onFile},
	{unix.SYS_FTRUNCATE, "ftruncate", onFile}, {unix.SYS_FALLOCATE, "fallocate", onFile}, {unix.SYS_FCHMOD, "fchmod", onFile},
	{unix.SYS_FCHOWN, "fchown", onFile}, {unix.SYS_FLOCK, "flock", onFile}, {unix.SYS_FCNTL, "fcntl", locking},
	{unix.SYS_OPENAT, "openat", opening}, {unix.SYS_OPENAT2, "openat2", opening},
	{unix.SYS_RENAMEAT, "renameat", path1}, {unix.SYS_RENAMEAT2, "renameat2", path1}, {unix.SYS_UNLINKAT, "unlinkat", path1},
	{unix.SYS_MKDIRAT, "mkdirat", path1}, {unix.SYS_MKNODAT, "mknodat", path1}, {unix.SYS_SYMLINKAT, "symlinkat", path0},
	{unix.SYS_LINKAT, "linkat", path1}, {unix.SYS_FCHMODAT, "fchmodat", path1}, {unix.SYS_FCHOWNAT, "fchownat", path1},
	{unix.SYS_MOUNT, "mount", path1}, {unix.SYS_UMOUNT2, "umount2", path0}, {unix.SYS_PIVOT_ROOT, "pivot_root", path0},
	{unix.SYS_OPEN_TREE, "open_tree", path1}, {unix.SYS_MOVE_MOUNT, "move_mount", plain}, {unix.SYS_FSOPEN, "fsopen", path0},
	{unix.SYS_FSCONFIG, "fsconfig", plain}, {unix.SYS_FSMOUNT, "fsmount", plain}, {unix.SYS_MOUNT_SETATTR, "mount_setattr", path1},
	{unix.SYS_CLONE, "clone", cloning}, {unix.SYS_CLONE3, "clone3", cloning}, {unix.SYS_EXECVE, "execve", path0},
	{unix.SYS_EXECVEAT, "execveat", path1}, {unix.SYS_SETNS, "setns", plain}, {unix.SYS_UNSHARE, "unshare", plain},
	{unix.SYS_SETHOSTNAME, "sethostname", plain}, {unix.SYS_SETSID, "setsid", plain}, {unix.SYS_PRLIMIT64, "prlimit64", plain},
	{unix.SYS_KILL, "kill", plain}, {unix.SYS_PIDFD_SEND_SIGNAL, "pidfd_send_signal", plain},
	{unix.SYS_BIND, "bind", plain}, {unix.SYS_LISTEN, "listen", plain}, {unix.SYS_CONNECT, "connect", plain},
	{unix.SYS_SETXATTR, "setxattr", path0}, {unix.SYS_FSETXATTR, "fsetxattr", onFile},
}

// find is a linear search: one call in fifty arrives here.
func find(nr int) *watch {
	for i := range watched {
		if watched[i].nr == nr {
			return &watched[i]
		}
	}
	return nil
}

// describe names a call and tells whether it counts.
func describe(req *notification) (name string, counts bool) {
	s := find(int(req.data.nr))
	if s == nil {
		return "", false
	}
	pid, a := int(req.pid), req.data.args
	switch s.kind {
	case path0:
		return s.name + " " + text(pid, a[0]), true
	case path1:
		return s.name + " " + text(pid, a[1]), true
	case onFile:
		f := file(pid, a[0])
		// An eventfd wakes the Go runtime's own poller: when and how often is chance.
		return s.name + " " + f, f != "anon_inode:[eventfd]"
	case cloning:
		flags := a[0]
		if s.nr == unix.SYS_CLONE3 {
			flags = word(pid, a[0])
		}
		return s.name, flags&unix.CLONE_THREAD == 0
	case opening:
		return s.name + " " + text(pid, a[1]), openFlags(req)&(unix.O_CREAT|unix.O_TRUNC) != 0
	case locking:
		return s.name + " lock " + file(pid, a[0]), slices.Contains([]uint64{unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_SETLK, unix.F_OFD_SETLKW}, a[1])
	}
	return s.name, true
}

func openFlags(req *notification) uint64 {
	if req.data.nr == unix.SYS_OPENAT2 {
		return word(int(req.pid), req.data.args[2]) // struct open_how begins with the flags
	}
	return req.data.args[2]
}

// natural tells whether the kernel could answer this call with errno: a disk is full for those who write to it, and
// a descriptor is missing for those who ask for one.
func natural(req *notification, errno unix.Errno) bool {
	s := find(int(req.data.nr))
	toDisk := false
	switch s.kind {
	case onFile:
		f := file(int(req.pid), req.data.args[0])
		toDisk = strings.HasPrefix(f, "/") && !strings.HasPrefix(f, "/proc") && !strings.HasPrefix(f, "/sys") && !strings.HasPrefix(f, "/dev") && !strings.HasPrefix(f, "pipe")
	case opening, path1, path0:
		toDisk = slices.Contains([]string{"openat", "openat2", "renameat", "renameat2", "mkdirat", "symlinkat", "linkat", "mknodat"}, s.name)
	}
	switch errno {
	case unix.EMFILE, unix.ENFILE:
		return slices.Contains([]string{"openat", "openat2", "fsopen", "fsmount", "open_tree"}, s.name)
	case unix.ENOMEM, unix.EAGAIN:
		return s.kind == cloning || s.name == "mount" || s.name == "fsmount"
	}
	return toDisk
}
