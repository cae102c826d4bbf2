// Package builds keeps what builds leave behind: the file systems that steps made, which results belong to which cache keys,
// the directories of cache mounts, and what happened in each build. All of it lies below <root>/builds:
//
//	running/<build>/           locked while the build lives; what it made and nothing else names yet is below
//	snapshots/<id>/fs          what one step wrote, as overlayfs has it: a lower directory of what comes after it
//	              /snapshot.json
//	results/<id>               a file system by its parts: layers of images, snapshots above them
//	keys/<id>                  lines: results of a cache key, and its links to others
//	mounts/<id>/fs             a cache mount
//	sums/<name>                digests of files by what stat(2) says of them
//	history/<build>/           build.json and log
//
//	s := builds.Open(root)
//	b, err := s.Begin(ctx, id)          // others now know that the build lives
//	defer b.Close()
//	snap, err := b.NewSnapshot(parent)  // snap.FS() is to be filled
//	err = snap.Commit(...)
//
// Nothing here is made durable while a build runs: that would cost each step as much as its work. Instead a snapshot says in
// which boot it was made, and of an earlier boot it counts only once it was synced. So a killed process loses nothing (the
// kernel has it), and a power cut loses steps, never the truth of one.
package builds

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hull/errdef"
	"hull/state"
	"hull/state/plainjson"
)

// Store is the builds of one store. It opens nothing until used. Many processes may use one at a time.
type Store struct {
	dir  string
	boot func() string
}

// Open returns the builds below root.
func Open(root string) *Store {
	return &Store{dir: filepath.Join(root, "builds"), boot: sync.OnceValue(bootID)}
}

// bootID tells this run of the kernel from others. Where it cannot be read nothing survives the process.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "process " + state.TempName()
	}
	return strings.TrimSpace(string(data))
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// SumsPath is a file for what a builder remembers of the content of files; a hint, not more.
func (s *Store) SumsPath(name string) string { return s.path("sums", name) }

// Build is one that lives.
type Build struct {
	s    *Store
	id   string
	dir  string
	lock *state.Locked
}

// lockWait bounds the wait for the lock of a directory that only a sweeper can hold.
const lockWait = 10 * time.Second

// Begin makes the build id known. Close has to follow. What builds left that were killed goes now.
func (s *Store) Begin(ctx context.Context, id string) (*Build, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	for _, d := range []string{"running", "snapshots", "results", "keys"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, err
		}
	}
	s.sweep()
	b := &Build{s: s, id: id, dir: s.path("running", id)}
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New("waited "+lockWait.String()))
	defer cancel()
	l, err := state.LockShared(ctx, s.path("running")) // a prune must see all builds or none
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	for {
		if err := os.Mkdir(b.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if b.lock, err = state.Lock(ctx, b.dir); errors.Is(err, fs.ErrNotExist) { // a sweeper came between the two
			continue
		}
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(b.dir, begunFile), os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		return b, nil
	}
}

// begunFile of a build's directory is as old as the build.
const begunFile = "begun"

// begun is when the oldest build began that lives; zero if none does.
func (s *Store) begun() (oldest time.Time) {
	names, _ := os.ReadDir(s.path("running"))
	for _, n := range names {
		st, err := os.Stat(s.path("running", n.Name(), begunFile))
		if err != nil || Dead(s.path("running", n.Name())) {
			continue
		}
		if oldest.IsZero() || st.ModTime().Before(oldest) {
			oldest = st.ModTime()
		}
	}
	return oldest
}

// Dir is the directory of the build. It is gone after Close.
func (b *Build) Dir() string { return b.dir }

// Close ends the build. Snapshots that no result names go with it.
func (b *Build) Close() error {
	err := state.Remove(b.dir)
	b.lock.Unlock()
	return err
}

// Dead says of the directory of a build that nobody holds it any more.
func Dead(dir string) bool {
	l, ok, err := state.TryLock(dir)
	if ok {
		l.Unlock()
	}
	return ok || errors.Is(err, fs.ErrNotExist)
}

// sweep removes the directories of builds that were killed, and what belonged to them alone.
func (s *Store) sweep() {
	names, _ := os.ReadDir(s.path("running"))
	for _, n := range names {
		dir := s.path("running", n.Name())
		if l, ok, err := state.TryLock(dir); err == nil && ok {
			_ = state.Remove(dir) // or the next one does
			l.Unlock()
		}
	}
}

// checkID holds ids to what can be a file name: they come from clients too.
func checkID(id string) error {
	ok := id != "" && len(id) <= 128
	for _, c := range id {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return errdef.Invalid("invalid id %.128q: want letters, digits, - and _", id)
	}
	return nil
}

const maxFile = 16 << 20

func readJSON(path string, v any) error {
	data, err := state.Read(path, maxFile)
	if err != nil {
		return err
	}
	if err := plainjson.Unmarshal(data, v); err != nil {
		return errdef.As(errdef.ErrCorrupt, &fs.PathError{Op: "read", Path: path, Err: err})
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := plainjson.Marshal(v)
	if err != nil {
		return err
	}
	return state.Write(path, data)
}
