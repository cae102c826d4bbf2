package files

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"hull/archive"
	"hull/errdef"

	"golang.org/x/sys/unix"
)

// object is a file that was found: what is called base in the directory dir.
type object struct {
	dir  int
	base string
	stat Stat
}

func (o *object) close() { unix.Close(o.dir) }

// name is what the file is called in a tar.
func (o *object) name() string {
	if o.stat.Mode.IsDir() && o.stat.Name == "/" {
		return "."
	}
	return o.stat.Name
}

// rooted is the path from the root directory, cleaned without looking at files as Docker does, except that a slash or a
// dot at the end stays: it says that a directory is meant.
func rooted(p string) string {
	clean := path.Clean("/" + p)
	switch {
	case clean == "/":
	case strings.HasSuffix(p, "/."):
		clean += "/."
	case strings.HasSuffix(p, "/"):
		clean += "/"
	}
	return clean
}

// find looks a path up. Symbolic links are followed on the way, the last one only where the path has a slash or a dot
// behind it.
func (s *server) find(p string) (_ *object, err error) {
	full := rooted(p)
	dir, base := path.Split(full)
	if base == "" {
		base = "."
	}
	o := &object{base: base}
	if o.dir, err = archive.Open(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, missing(p, err)
	}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstatat(o.dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, missing(p, err)
	}
	if s.foreign(o.dir) {
		return nil, errdef.Forbidden("%s belongs to the kernel: it is not copied (hull exec can read it)", p)
	}
	o.stat = Stat{Name: path.Base(full), Size: st.Size, Mode: fileMode(st.Mode), ModTime: time.Unix(st.Mtim.Unix())}
	if o.stat.Mode&fs.ModeSymlink != 0 {
		o.stat.Link = follow(full)
	}
	return o, nil
}

// missing says that there is nothing at p; the engine adds in which container.
func missing(p string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return errdef.As(errdef.ErrNotFound, fs.ErrNotExist)
	case errors.Is(err, unix.ENOTDIR):
		return errdef.Invalid("%s: not a directory", p)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return errdef.Invalid("%s: %w", p, err)
	}
	return err
}

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

// follow returns where the symbolic link p leads in the end, as far as there is something.
func follow(p string) string {
	left := strings.Split(strings.Trim(p, "/"), "/")
	at := "/"
	buf := make([]byte, 4096)
	for links := 0; len(left) > 0 && links < maxLinks; {
		next := path.Join(at, left[0])
		left = left[1:]
		n, err := unix.Readlink(next, buf)
		if err != nil {
			at = next
			continue
		}
		links++
		target := string(buf[:n])
		if path.IsAbs(target) {
			at = "/"
		}
		left = append(slices.DeleteFunc(strings.Split(target, "/"), func(s string) bool { return s == "" }), left...)
	}
	return path.Join(append([]string{at}, left...)...)
}

// fileMode is Go's word for st_mode.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// foreign says whether the file is of a file system through which the kernel is asked and told things, or whose content
// is the answer of a process of the container. To read there may have no end, or an effect.
func (s *server) foreign(fd int) bool {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(fd, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return true
		}
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.BINFMTFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.NSFS_MAGIC,
		mqueueMagic, configfsMagic, fusectlMagic:
		return true
	case fuseMagic:
		var file unix.Stat_t
		return unix.Fstat(fd, &file) != nil || !slices.Contains(s.job.FUSE, file.Dev)
	}
	return false
}

// Of linux/magic.h and the file systems themselves; package unix does not have them.
const (
	mqueueMagic   = 0x19800202
	configfsMagic = 0x62656570
	fusectlMagic  = 0x65735543
	fuseMagic     = 0x65735546
)
