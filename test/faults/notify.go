package faults

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif of linux/seccomp.h.
type notification struct {
	id    uint64
	pid   uint32 // thread, in the driver's pid namespace
	flags uint32
	data  struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

func (n *notification) receive(fd int) error {
	*n = notification{} // the kernel demands zeroes
	return ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
}

// answer fails the call with errno, or lets it go on. An error means that the caller is gone: nothing to do.
func (n *notification) answer(fd int, errno unix.Errno) {
	r := response{id: n.id, err: -int32(errno)}
	if errno == 0 {
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

const (
	offNr       = 0      // of struct seccomp_data
	offArg2     = 32     // low half of argument 2
	waitKilled  = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: no signal makes a call arrive twice
	retNotify   = unix.SECCOMP_RET_USER_NOTIF
	retAllow    = unix.SECCOMP_RET_ALLOW
	loadWord    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpAnyBit  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	returnValue = unix.BPF_RET | unix.BPF_K
)

// filter asks the driver about each watched call; openat only where it may create, because it is frequent.
func filter() []unix.SockFilter {
	f := []unix.SockFilter{{Code: loadWord, K: offNr}}
	for _, s := range watched {
		if s.nr == unix.SYS_OPENAT {
			continue
		}
		f = append(f, unix.SockFilter{Code: jumpEqual, Jf: 1, K: uint32(s.nr)}, unix.SockFilter{Code: returnValue, K: retNotify})
	}
	return append(f,
		unix.SockFilter{Code: jumpEqual, Jf: 3, K: unix.SYS_OPENAT},
		unix.SockFilter{Code: loadWord, K: offArg2},
		unix.SockFilter{Code: jumpAnyBit, Jf: 1, K: unix.O_CREAT | unix.O_TRUNC},
		unix.SockFilter{Code: returnValue, K: retNotify},
		unix.SockFilter{Code: returnValue, K: retAllow})
}

// install puts the calling thread under the filter and returns its listener.
func install() (int, error) {
	f := filter()
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|waitKilled, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
