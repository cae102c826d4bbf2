package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// int80 makes a system call of i386.
func int80(nr, a, b, c uintptr) int32

const (
	x32         = 0x40000000
	i386Socket  = 359
	i386Call    = 102 // socketcall
	callSocket  = 1
	low4GiB     = unix.MAP_32BIT
	socketcalls = 4096
)

// foreign makes a socket through the interfaces beside x86_64's: x32, i386's socket and its socketcall, and returns
// the first answer that is not a refusal.
func foreign(nr, family, kind uintptr) unix.Errno {
	page, err := unix.Mmap(-1, 0, socketcalls, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|low4GiB)
	if err != nil {
		return err.(unix.Errno)
	}
	defer unix.Munmap(page)
	args := (*[3]uint32)(unsafe.Pointer(&page[0]))
	*args = [3]uint32{uint32(family), uint32(kind), 0}
	for _, try := range []func() unix.Errno{
		func() unix.Errno {
			fd, _, errno := unix.RawSyscall(nr|x32, family, kind, 0)
			if errno == 0 {
				unix.Close(int(fd))
			}
			return errno
		},
		func() unix.Errno { return closed(int80(i386Socket, family, kind, 0)) },
		func() unix.Errno {
			return closed(int80(i386Call, callSocket, uintptr(unsafe.Pointer(args)), 0))
		},
	} {
		if errno := try(); errno != unix.ENOSYS && errno != unix.EPERM {
			return errno
		}
	}
	return unix.ENOSYS
}

func closed(r int32) unix.Errno {
	if r >= 0 {
		unix.Close(int(r))
		return 0
	}
	return unix.Errno(-r)
}
