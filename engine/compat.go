package engine

import (
	"runtime"

	"hull/image"

	"golang.org/x/sys/unix"
)

// loaders returns where the dynamic loader of a 32-bit program on this machine is, of glibc and musl. A program is
// linked to its absolute path, so an image with such programs has it there.
func loaders() []string {
	switch runtime.GOARCH {
	case "amd64":
		return []string{"lib/ld-linux.so.2", "usr/lib/ld-linux.so.2", "lib/ld-musl-i386.so.1", "usr/lib/ld-musl-i386.so.1"}
	case "arm64":
		return []string{"lib/ld-linux-armhf.so.3", "usr/lib/ld-linux-armhf.so.3", "lib/ld-linux.so.3", "usr/lib/ld-linux.so.3",
			"lib/ld-musl-armhf.so.1", "usr/lib/ld-musl-armhf.so.1"}
	}
	return nil
}

// compat32 tells whether the image has 32-bit programs, for which the seccomp profile opens the 32-bit system calls.
// Statically linked ones in an image of another architecture go unnoticed.
func (e *Engine) compat32(img *image.Image) bool {
	if a := img.Config.Architecture; a == "386" || a == "arm" {
		return true
	}
	for _, l := range img.Layers {
		if hasLoader(e.layerDir(l.ChainID)) {
			return true
		}
	}
	return false
}

func hasLoader(layer string) bool {
	dir, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	for _, path := range loaders() {
		// The loader may be a link to a place in another layer: it is not followed. Directories on the way may be links too.
		how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		if fd, err := unix.Openat2(dir, path, how); err == nil {
			unix.Close(fd)
			return true
		}
	}
	return false
}
