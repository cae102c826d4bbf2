// Package state keeps objects as directories and files, so that many short processes can share them and any
// of them may die at any instruction.
//
//	if err := state.Open(root); err != nil { ... }         // right schema, or a sentence saying why not
//	l, err := state.Lock(ctx, filepath.Join(root, "refs")) // other processes wait
//	defer l.Unlock()
//	err = state.WriteDurable(filepath.Join(dir, "config.json"), data)
//	err = state.Claim(names, "web", "../containers/"+id)   // exactly one of many wins
//	err = state.Remove(dir)                                // whatever a container put into it
//
// Beware: a write is atomic, not durable, unless its name says so. Names that begin with ".tmp-" are works in
// progress or what a killed process left of one: no reader may take them for objects.
package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// TempPrefix begins the name of every file and directory that is not yet, or no longer, an object.
const TempPrefix = ".tmp-"

// TempName returns a name nobody else uses, beginning with TempPrefix.
func TempName() string {
	return TempPrefix + strconv.FormatUint(rand.Uint64(), 36)
}

// Write replaces the file path by one with the content data, mode 0600. Readers see old or new, never half;
// after a power cut the file may be old, new or empty.
func Write(path string, data []byte) error { return write(path, data, whole) }

// WriteDurable is Write that survives a power cut once it has returned.
func WriteDurable(path string, data []byte) error { return write(path, data, durable) }

// WriteVolatile is Write for what nobody needs after a power cut and is likely to be replaced or removed soon. It spares
// the disk: a rename over an existing file makes ext4 write the new one at once (auto_da_alloc), for the sake of programs
// that forgot to sync.
func WriteVolatile(path string, data []byte) error { return write(path, data, volatile) }

// care is how much becomes of a write in a power cut.
type care int

const (
	volatile care = iota
	whole
	durable
)

// write makes raw calls: it is on the way to every container, and an os.File asks the poller first.
func write(path string, data []byte, c care) (err error) {
	dir, _ := filepath.Split(path)
	tmp := dir + TempName()
	fd, err := unix.Open(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	err = writeAll(fd, data)
	if err == nil && c == durable {
		err = unix.Fsync(fd)
	}
	err = errors.Join(err, unix.Close(fd))
	if err == nil {
		err = place(tmp, path, c)
	}
	if err != nil {
		unix.Unlink(tmp)
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	if c == durable {
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

// place puts the finished file tmp where path is.
func place(tmp, path string, c care) error {
	if c == volatile && unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE) == nil {
		return unix.Unlink(tmp) // which is the old one now
	}
	return unix.Rename(tmp, path) // there is no old one, or the file system cannot exchange
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// SyncDir makes the names in dir survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// SyncTree makes everything below dir survive a power cut, by syncing the file system it is on: for a tree of
// many files that is much faster than a sync of each.
func SyncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}

// Read returns the content of the regular file path, at most limit bytes: a longer one is errdef.ErrCorrupt.
// It follows no symbolic link in the last component and does not wait for a FIFO.
func Read(path string, limit int64) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == unix.ELOOP || err == unix.ENXIO { // a symbolic link, a socket
		return nil, errdef.As(errdef.ErrCorrupt, &fs.PathError{Op: "open", Path: path, Err: err})
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	// Not an os.File: state is read on the way to every container, and a regular file needs no poller.
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s is not a regular file", path))
	}
	if st.Size > limit {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s has %d bytes, more than the %d it may have", path, st.Size, limit))
	}
	buf := make([]byte, st.Size+1)
	n := 0
	for {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n += m; m == 0 || n == len(buf) {
			break
		}
	}
	if int64(n) > st.Size { // it grew: nobody of ours writes in place
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s changed while it was read", path))
	}
	return buf[:n], nil
}

// Version is the schema of the store that this program writes.
const Version = 1

// versionFile holds the schema of a store, as a decimal number and a newline.
const versionFile = "version"

// migrations[i] brings a store from schema i+1 to i+2, idempotently: it may have been killed half way.
var migrations = [Version - 1]func(root string) error{}

// Open makes sure that root is a store of schema Version: it is created if absent (mode 0700), migrated if
// older, refused if newer or if it is somebody else's directory. The common case costs one small read.
func Open(root string) error {
	v, err := schema(root)
	if err == nil && v == Version {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if v > Version {
		return errdef.Unavailable("%s was written by a newer hull (store schema %d, this one knows %d): use that hull, or another directory with --root", root, v, Version)
	}
	return create(root)
}

func schema(root string) (int, error) {
	path := filepath.Join(root, versionFile)
	data, err := Read(path, 32)
	if err != nil {
		return 0, err
	}
	v, err := strconv.Atoi(strings.TrimSuffix(string(data), "\n"))
	if err != nil || v < 1 {
		return 0, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s does not hold the number of a store schema", path))
	}
	return v, nil
}

// create writes or raises the schema of root under its lock, since several first commands may run at once.
func create(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	l, err := lock(root, unix.LOCK_EX, time.Minute)
	if err != nil {
		return err
	}
	defer l.Unlock()
	v, err := schema(root)
	if errors.Is(err, fs.ErrNotExist) {
		if err := vacant(root); err != nil {
			return err
		}
		v, err = Version, nil
		// A directory somebody made for us may be open to others; a layer's setuid file must not be.
		if err := os.Chmod(root, 0o700); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	for ; v < Version; v++ {
		if err := migrations[v-1](root); err != nil {
			return fmt.Errorf("migrate %s from schema %d: %w", root, v, err)
		}
	}
	return WriteDurable(filepath.Join(root, versionFile), fmt.Appendf(nil, "%d\n", Version))
}

// vacant refuses a directory that holds something but no version file: a store made there would mix with it.
func vacant(root string) error {
	d, err := os.Open(root)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(64)
		for _, n := range names {
			if n != "lost+found" && !strings.HasPrefix(n, TempPrefix) {
				return errdef.Invalid("%s is not empty and not a hull store (no file %q): choose another directory with --root", root, versionFile)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
