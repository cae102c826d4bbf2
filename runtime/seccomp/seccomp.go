// Package seccomp turns the seccomp section of an OCI configuration into the classic BPF program the kernel runs
// on every system call. It needs no libseccomp and compiles for architectures other than the one it runs on.
//
//	p, warnings, err := seccomp.Compile(spec.Linux.Seccomp)
//	...
//	seccomp(SECCOMP_SET_MODE_FILTER, p.Flags, p.Filter)
//
// What a profile means is what runc and libseccomp make of it, because profiles were tested with them; each place
// where the OCI runtime-spec leaves room, or where we are stricter, says so (see Compile).
//
// Beware: arguments behind a pointer (clone3, i386 socketcall) cannot be seen by a filter.
package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is a compiled filter.
type Program struct {
	Filter []unix.SockFilter // at most 4096 instructions, never empty
	Flags  uint              // SECCOMP_FILTER_FLAG_* the profile asks for
	Notify bool              // some rule has the action notify: load with SECCOMP_FILTER_FLAG_NEW_LISTENER
}

// Bytes returns the filter as the kernel reads it: an array of struct sock_filter in native byte order.
func (p *Program) Bytes() []byte {
	size := len(p.Filter) * insnSize
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(p.Filter))), size)
}
