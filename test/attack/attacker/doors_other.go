//go:build !amd64

package main

import "golang.org/x/sys/unix"

// foreign: the other architectures we build for have no second interface that carries socketcall.
func foreign(nr, family, kind uintptr) unix.Errno { return unix.ENOSYS }
