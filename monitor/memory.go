package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/kernel"
	"hull/runtime"
	"hull/state"

	"golang.org/x/sys/unix"
)

// A memory file system that containers have in common, a volume of type tmpfs or the /dev/shm of --ipc shareable, is a
// mount of the host in the run directory of the engine, for as long as somebody uses it:
//
//	<run>/memory/volumes/<name>/      locked by who comes or goes
//	<run>/memory/shm/<container id>/
//	    users/<container id>          claim of each user: a symbolic link to its run directory
//	    fs                            the mount, which the containers bind
//
// Who finds no living user makes it anew, and the last one that leaves unmounts it. What is left of a monitor that was
// killed is a claim: the repair of its container gives that back, and until then nobody is kept from anything.

// MemoryDir is, beside the directory of run directories, where memory file systems are.
const MemoryDir = "memory"

// Memory is such a file system, for one of its users.
type Memory struct {
	Dir     string   `json:"dir"`               // absolute, below MemoryDir
	Options []string `json:"options,omitempty"` // of the tmpfs, for the first user
	// Owner is the container whose file system it is, which has to run; "" lets every user be the first.
	Owner string `json:"owner,omitempty"`
}

// Mounted is the directory that containers bind.
func (m *Memory) Mounted() string { return filepath.Join(m.Dir, "fs") }

func (m *Memory) users() string { return filepath.Join(m.Dir, "users") }

// memoryWait bounds the wait for those who come and go at the same time.
const memoryWait = 10 * time.Second

// Enter makes the container of run directory dir a user of m, which is mounted then. Idempotent. Leave has to follow.
func (m *Memory) Enter(dir string) error {
	l, err := m.lock(true)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if err := state.SweepClaims(m.users()); err != nil {
		return err
	}
	users, err := m.countUsers()
	if err != nil {
		return err
	}
	if m.Owner != "" && m.Owner != filepath.Base(dir) {
		if _, alive, err := state.Holder(m.users(), m.Owner); err != nil || !alive {
			return errors.Join(errdef.Conflict("cannot join ipc of a non running container: %s", m.Owner), m.end(users))
		}
	}
	if users == 0 {
		if err := m.unmount(); err != nil { // that of users who were killed
			return err
		}
	}
	if err := state.Claim(m.users(), filepath.Base(dir), dir); err != nil {
		return errors.Join(err, m.end(users))
	}
	if err := m.mount(); err != nil {
		return errors.Join(err, m.drop(dir))
	}
	return nil
}

// Leave gives back what Enter took; with the last user the file system goes. Idempotent.
func (m *Memory) Leave(dir string) error {
	l, err := m.lock(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	return m.drop(dir)
}

// drop is Leave of who has the lock.
func (m *Memory) drop(dir string) error {
	if err := state.Release(m.users(), filepath.Base(dir), dir); err != nil {
		return err
	}
	if err := state.SweepClaims(m.users()); err != nil {
		return err
	}
	users, err := m.countUsers()
	if err != nil {
		return err
	}
	return m.end(users)
}

// end takes the file system away when it has no users.
func (m *Memory) end(users int) error {
	if users > 0 {
		return nil
	}
	if err := m.unmount(); err != nil {
		return err
	}
	return errors.Join(remove(m.Mounted()), remove(m.users()), remove(m.Dir))
}

// remove removes an empty directory, if it is there.
func remove(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock keeps others from coming and going. Whoever held it last may have removed the directory.
func (m *Memory) lock(create bool) (*state.Locked, error) {
	ctx, cancel := context.WithTimeout(context.Background(), memoryWait)
	defer cancel()
	for {
		if create {
			if err := os.MkdirAll(m.Dir, 0o700); err != nil {
				return nil, err
			}
		}
		l, err := state.Lock(ctx, m.Dir)
		if create && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || !create {
			return l, err
		}
		if err := os.MkdirAll(m.users(), 0o700); err != nil {
			l.Unlock()
			return nil, err
		}
		return l, nil
	}
}

func (m *Memory) countUsers() (int, error) {
	entries, err := os.ReadDir(m.users())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return len(entries), err
}

// mount makes the file system where none is. The directory above is root's alone: nobody of the host but root comes by the
// files of the containers.
func (m *Memory) mount() error {
	if err := os.Mkdir(m.Mounted(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if there, err := m.isMounted(); there || err != nil {
		return err
	}
	fd, err := kernel.Mount("tmpfs", "tmpfs", runtime.FileSystemOptions(m.Options))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, m.Mounted(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", m.Mounted(), err)
	}
	return nil
}

// unmount takes it away from the host. In containers that still end it stays as long as they do.
func (m *Memory) unmount() error {
	for {
		there, err := m.isMounted()
		if !there || err != nil {
			return err
		}
		if err := unix.Unmount(m.Mounted(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", m.Mounted(), err)
		}
	}
}

// isMounted reports whether fs is a mount point, as seen from the mount namespace of this process.
func (m *Memory) isMounted() (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.Mounted(), unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: m.Mounted(), Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// enterMemory makes the container a user of the memory file systems in cfg.
func (c *Config) enterMemory(dir string) error {
	for i := range c.Memory {
		if err := c.Memory[i].Enter(dir); err != nil {
			c.leaveMemory(dir)
			return err
		}
	}
	return nil
}

// leaveMemory is what undoes it. What it cannot do now is tried again as the monitor's last act.
func (c *Config) leaveMemory(dir string) {
	for i := range c.Memory {
		if err := c.Memory[i].Leave(dir); err != nil {
			fmt.Fprintf(os.Stderr, "hull-runtime monitor: %v\n", err)
		}
	}
}

// releaseMemory gives back what the end of the container has not, and no repair will: the monitor leaves in good order.
func (s *server) releaseMemory() error {
	if !exists(filepath.Join(filepath.Dir(s.path), "..", MemoryDir)) { // where nothing was ever shared
		return nil
	}
	return LeaveMemory(s.path)
}

// LeaveMemory does what the monitor of run directory dir, which was killed, has not: its container uses no memory file
// system any more.
func LeaveMemory(dir string) error {
	var c Config
	err := readJSON(filepath.Join(dir, ConfigFile), &c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errdef.ErrCorrupt) {
		return nil // there was no start
	}
	if err != nil {
		return err
	}
	var errs []error
	for i := range c.Memory {
		errs = append(errs, c.Memory[i].Leave(dir))
	}
	return errors.Join(errs...)
}
