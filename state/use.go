package state

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// DiskUse adds up what trees take of their file system, as du -x does: the blocks of files and directories, each file with
// several names once, nothing of what is mounted there. It follows no symbolic link and opens nothing but directories.
type DiskUse struct {
	Files  int64 // files and directories counted so far
	Closed int64 // directories that only others may look into
	seen   map[inode]bool
	dev    uint64
}

// Add returns the bytes of the tree path, but for files that an earlier Add has counted. What vanishes meanwhile does not
// count, and neither do the names in path itself that leave reports true for.
func (u *DiskUse) Add(ctx context.Context, path string, leave func(name string) bool) (sum int64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if err == unix.ENOENT {
			return 0, nil
		}
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if u.seen == nil {
		u.seen, u.dev = map[inode]bool{}, uint64(st.Dev)
	}
	if uint64(st.Dev) != u.dev {
		return 0, nil
	}
	sum = u.one(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return sum, nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return 0, nil
	}
	if err == unix.EACCES {
		u.Closed++
		return sum, nil
	}
	if err != nil {
		return sum, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	below, err := u.dir(ctx, fd, leave)
	if err != nil {
		var told *fs.PathError
		if !errors.As(err, &told) && ctx.Err() == nil {
			err = &fs.PathError{Op: "read", Path: path, Err: err}
		}
	}
	return sum + below, err
}

// one counts a file that is not counted yet.
func (u *DiskUse) one(st *unix.Stat_t) int64 {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		key := inode{uint64(st.Dev), st.Ino}
		if u.seen[key] {
			return 0
		}
		u.seen[key] = true
	}
	u.Files++
	return st.Blocks * 512
}

// dir counts what is in the directory fd, and closes it.
func (u *DiskUse) dir(ctx context.Context, fd int, leave func(string) bool) (sum int64, err error) {
	closed := false
	defer func() {
		if !closed {
			unix.Close(fd)
		}
	}()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var dirs []string
	l := level{fd: fd}
	for {
		name, _, ok, err := l.next()
		if err != nil {
			return sum, err
		}
		if !ok {
			break
		}
		var st unix.Stat_t
		if leave != nil && leave(name) || unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || uint64(st.Dev) != u.dev {
			continue
		}
		sum += u.one(&st)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, name)
		}
	}
	for i, name := range dirs {
		sub, err := beneath(fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if i == len(dirs)-1 { // a container can make trees deeper than there are descriptors
			unix.Close(fd)
			closed = true
		}
		if err == unix.ENOENT || err == unix.EXDEV || err == unix.ENOTDIR {
			continue
		}
		if err == unix.EACCES {
			u.Closed++
			continue
		}
		if err != nil {
			return sum, err
		}
		n, err := u.dir(ctx, sub, nil)
		sum += n
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}
