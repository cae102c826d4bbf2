package builds

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"
)

// Sharing says what becomes of a cache mount that several steps want at once.
type Sharing string

const (
	Shared  Sharing = "shared"  // all have it
	Private Sharing = "private" // each has one of its own, kept for the next
	Locked  Sharing = "locked"  // one after the other
)

// Mount is a cache mount in use. Close it.
type Mount struct {
	dir  string
	lock *state.Locked
}

// Path is the directory.
func (m *Mount) Path() string { return filepath.Join(m.dir, snapshotFS) }

// Close gives it back.
func (m *Mount) Close() error {
	_ = os.Chtimes(m.dir, time.Time{}, time.Now()) // when it was used, for those who prune
	m.lock.Unlock()
	return nil
}

// mountRecord is mount.json.
type mountRecord struct {
	ID   string    `json:"id"`
	Made time.Time `json:"made"`
}

const mountFile = "mount.json"

// Mount returns the cache mount with the id, which people choose. A new one is filled by fill, which makes dir/fs.
func (s *Store) Mount(ctx context.Context, id string, sharing Sharing, fill func(dir string) error) (*Mount, error) {
	if id == "" || len(id) > 4096 {
		return nil, errdef.Invalid("invalid id of a cache mount: %.100q", id)
	}
	sum := sha256.Sum256([]byte(id))
	name := fmt.Sprintf("%x", sum[:16])
	for n := 0; ; n++ {
		dir := s.path("mounts", name)
		if n > 0 {
			dir += "-" + strconv.Itoa(n)
		}
		if err := s.makeMount(dir, id, fill); err != nil {
			return nil, err
		}
		var l *state.Locked
		var err error
		switch sharing {
		case Shared:
			l, err = state.LockShared(ctx, dir)
		case Locked:
			l, err = state.Lock(ctx, dir)
		default:
			var ok bool
			if l, ok, err = state.TryLock(dir); err == nil && !ok {
				continue // somebody's
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // pruned meanwhile
			n--
			continue
		}
		if err != nil {
			return nil, err
		}
		return &Mount{dir, l}, nil
	}
}

// makeMount makes the directory of a cache mount unless it is there. It appears filled.
func (s *Store) makeMount(dir, id string, fill func(string) error) (err error) {
	if _, err := os.Lstat(filepath.Join(dir, mountFile)); err == nil {
		return nil
	}
	tmp := s.path("mounts", state.TempName())
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, state.Remove(tmp))
		}
	}()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(tmp, mountFile), &mountRecord{id, time.Now().UTC()}); err != nil {
		return err
	}
	err = os.Rename(tmp, dir)
	if errors.Is(err, fs.ErrExist) { // somebody was quicker
		return state.Remove(tmp)
	}
	return err
}

// MountInfo is a cache mount as lists show it.
type MountInfo struct {
	Name  string // of its directory
	ID    string
	Made  time.Time
	Used  time.Time
	Bytes int64
	InUse bool
}

// Mounts lists the cache mounts.
func (s *Store) Mounts(ctx context.Context) ([]MountInfo, error) {
	entries, err := os.ReadDir(s.path("mounts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []MountInfo
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), state.TempPrefix) {
			continue
		}
		dir := s.path("mounts", e.Name())
		var r mountRecord
		st, err := os.Stat(dir)
		if err != nil || readJSON(filepath.Join(dir, mountFile), &r) != nil {
			continue
		}
		m := MountInfo{Name: e.Name(), ID: r.ID, Made: r.Made, Used: st.ModTime(), InUse: !Dead(dir)}
		if m.Bytes, err = new(state.DiskUse).Add(ctx, dir, nil); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// RemoveMount removes the cache mount of that name, unless a step uses it: then the kind of the error is
// errdef.ErrConflict.
func (s *Store) RemoveMount(name string) error {
	dir := s.path("mounts", filepath.Base(name))
	l, ok, err := state.TryLock(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.NotFound("no cache mount %s", name)
	}
	if err != nil {
		return err
	}
	if !ok {
		return errdef.Conflict("the cache mount %s is in use by a build", name)
	}
	defer l.Unlock()
	tmp := s.path("mounts", state.TempName())
	if err := os.Rename(dir, tmp); err != nil {
		return err
	}
	return state.Remove(tmp)
}
