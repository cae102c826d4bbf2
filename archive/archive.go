// Package archive turns trees of files into tars and tars into trees, by descriptors.
//
//	w := archive.NewWriter(out)
//	err := w.Add(ctx, dir, "etc", "etc")  // the directory etc of dir, as etc/... in the tar
//	err = w.Close()
//	...
//	err = archive.Extract(ctx, dir, in, archive.Extraction{Beneath: true})
//
// Somebody may be changing either tree, or have written the tar, to lead us elsewhere (CVE-2018-15664, CVE-2019-10152).
// So a name is only ever used as (directory descriptor, one component) or resolved by openat2(2); what is opened is
// looked at before and after, and nothing but directories and regular files is opened at all.
//
// Beware: what a symbolic link met on the way to an entry means is the kernel's to say: it cannot leave the root
// directory of the process, nor, with Beneath, the directory that is extracted into. Whoever extracts into the tree of
// a container makes that tree its root directory first.
package archive

import (
	"archive/tar"
	"io"
	"os"
	"strings"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// Open opens path below the directory dir by openat2(2) with the RESOLVE_* flags, magic links never followed.
func Open(dir int, path string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(dir, path, &how)
		// EAGAIN: something on the machine was renamed or mounted while a ".." was resolved.
		if err != unix.EINTR && (err != unix.EAGAIN || tries == 100) {
			return fd, err
		}
	}
}

// Owner of files.
type Owner struct{ UID, GID int }

// Is says whether r begins as a tar does that has something in it.
func Is(r io.Reader) bool {
	_, err := tar.NewReader(r).Next()
	return err == nil
}

// Names lists the directory fd in no order. The descriptor stays the caller's.
func Names(fd int) ([]string, error) {
	again, err := Open(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

// MaxPath is how many bytes the name of an entry may have: PATH_MAX without its NUL.
const MaxPath = 4095

// CheckPath refuses the path of an entry that is too long for a path. Trees may be deeper, but who walks into them holds
// a descriptor for each level, and nobody could extract what comes of it.
func CheckPath(name string) error {
	if len(name) > MaxPath {
		return errdef.Invalid("%.100s...: the path has more than %d bytes: the directories are too deep for a tar", name, MaxPath)
	}
	return nil
}

// clean turns the name of an entry into components joined by one slash each; "" is the directory itself.
func clean(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 || len(name) > MaxPath {
		return "", errdef.Invalid("the name of an entry has a NUL byte or more than %d bytes", MaxPath)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", errdef.Invalid(`the entry %.200q has a component ".."`, name)
		default:
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), nil
}

// cut splits the last component off a clean name.
func cut(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ".", name
	}
	return name[:i], name[i+1:]
}

// xattrPrefix is how a tar carries an extended attribute, in a PAX record.
const xattrPrefix = "SCHILY.xattr."

// portable says whether an attribute belongs to the file and not to the file system or the host it lies on: never
// overlayfs' own, with which a tree could show files of others, nor the rest of trusted.* and security.*.
func portable(attr string) bool {
	switch attr {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "user.overlay.")
}
