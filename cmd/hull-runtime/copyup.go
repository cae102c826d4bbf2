package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"hull/state"

	"golang.org/x/sys/unix"
)

// copyUp is `hull-runtime copy-up SCRATCH TARGET DST LOWER...`: it copies what an image has at TARGET into the directory
// DST. An ordinary user's hull runs it as root of the containers' user namespace and in a mount namespace of its own,
// where the image is mounted over SCRATCH. The exit status is an errno.
func copyUp(args []string) int {
	if len(args) < 4 {
		return int(unix.EINVAL)
	}
	scratch, target, dst, lower := args[0], args[1], args[2], args[3:]
	if err := unix.Mount("overlay", scratch, "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+strings.Join(lower, ":")); err != nil {
		return errno(err)
	}
	root, err := unix.Open(scratch, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errno(err)
	}
	// The image's links lead where they lead in the container: nowhere outside of the image.
	src, err := unix.Openat2(root, target, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return errno(err)
	}
	to, err := os.Open(dst)
	if err != nil {
		return errno(err)
	}
	return errno(state.CopyTree(context.Background(), src, int(to.Fd())))
}

// moveInto is `hull-runtime move-into FROM TO`, run like copyUp.
func moveInto(args []string) int {
	if len(args) != 2 {
		return int(unix.EINVAL)
	}
	return errno(state.MoveInto(args[0], args[1]))
}

// errno is the exit status that tells err.
func errno(err error) int {
	var e unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int(e)
	}
	return int(unix.EIO)
}
