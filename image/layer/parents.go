package layer

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// parents keeps directories of the layer open by their names: the entries of a tar come directory by directory.
type parents struct {
	root  int
	fds   map[string]int
	stale bool // a name may mean another directory by now
}

const maxParents = 128

// open returns a file descriptor of the directory name, valid until the next call of a method. With create it
// makes missing directories, as layers without entries for them expect.
func (p *parents) open(name string, create bool) (int, error) {
	if name == "" {
		return p.root, nil
	}
	if p.stale {
		p.flush()
	}
	if fd, ok := p.fds[name]; ok {
		return fd, nil
	}
	fd, err := openDir(p.root, name, unix.O_PATH)
	if err == unix.ENOENT && create {
		fd, err = p.makeAll(name)
	}
	if err != nil {
		return -1, openError(name, err)
	}
	p.put(name, fd)
	return fd, nil
}

func openError(name string, err error) error {
	if err == unix.ENOTDIR {
		return errdef.Invalid("%s is not a directory in this layer", quote(name))
	}
	if err == unix.ELOOP {
		return errdef.Invalid("%s goes round in symbolic links", quote(name))
	}
	return err
}

// put gives p the open directory fd of that name.
func (p *parents) put(name string, fd int) {
	if p.stale || len(p.fds) >= maxParents {
		p.flush()
	}
	if old, ok := p.fds[name]; ok {
		unix.Close(old)
	}
	p.fds[name] = fd
}

func (p *parents) flush() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
	clear(p.fds)
	p.stale = false
}

// makeAll makes the missing directories of name and returns the last one, open.
func (p *parents) makeAll(name string) (int, error) {
	at := p.root
	for end := 0; end < len(name); {
		start := end
		if i := strings.IndexByte(name[start:], '/'); i >= 0 {
			end = start + i
		} else {
			end = len(name)
		}
		fd, err := openDir(p.root, name[:end], unix.O_PATH)
		if err == unix.ENOENT {
			if err = unix.Mkdirat(at, name[start:end], 0o755); err == nil {
				// The umask may have taken some of it; the directory is ours and just made.
				err = unix.Fchmodat(at, name[start:end], 0o755, 0)
			}
			if err == unix.EEXIST { // a symbolic link to nothing: no directory can be made there
				err = unix.ENOTDIR
			}
			if err == nil {
				fd, err = openDir(p.root, name[:end], unix.O_PATH)
			}
		}
		if at != p.root {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = fd
		end++ // over the slash
	}
	return at, nil
}

// openDir opens the directory name as a process sees it whose root directory is root.
func openDir(root int, name string, flags uint64) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{
		Flags:   flags | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(root, name, &how)
		// EAGAIN: something on the machine was renamed or mounted while a ".." was resolved.
		if err != unix.EINTR && (err != unix.EAGAIN || tries == 100) {
			return fd, err
		}
	}
}

func procFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// childrenFirst orders names so that no directory loses its x before those in it are done.
func childrenFirst(m map[string]dirMeta) []string {
	names := slices.Sorted(maps.Keys(m))
	slices.Reverse(names)
	return names
}
