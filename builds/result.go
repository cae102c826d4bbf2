package builds

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"
)

// Result is a file system that a step made, by which it can be found again.
type Result struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	What    string    `json:"what"` // for people
	FS      FS        `json:"fs"`
}

// PutResult writes a result.
func (s *Store) PutResult(r *Result) error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	return writeJSON(s.path("results", r.ID), r)
}

// Result reads a result and notes that it was used. Kind errdef.ErrNotFound: there is none, or a part of it is gone.
func (s *Store) Result(id string) (*Result, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	r := new(Result)
	path := s.path("results", id)
	if err := readJSON(path, r); errors.Is(err, fs.ErrNotExist) || errors.Is(err, errdef.ErrCorrupt) {
		return nil, errdef.NotFound("no result %s", id)
	} else if err != nil {
		return nil, err
	}
	for _, snap := range r.FS.Snapshots {
		if _, err := s.Snapshot(snap); err != nil {
			return nil, errdef.NotFound("result %s: %w", id, err)
		}
	}
	_ = os.Chtimes(path, time.Time{}, time.Now()) // only a hint for what to prune
	return r, nil
}

// results yields all of them, the damaged left out.
func (s *Store) results(yield func(*Result)) error {
	entries, err := os.ReadDir(s.path("results"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		r := new(Result)
		if checkID(e.Name()) == nil && readJSON(s.path("results", e.Name()), r) == nil {
			yield(r)
		}
	}
	return nil
}

// Keep adds to kept the chain ids of the layers of images that results and living builds stand on. The topmost of each is
// enough.
func (s *Store) Keep(kept map[string]bool) error {
	err := s.results(func(r *Result) {
		if n := len(r.FS.Layers); n > 0 {
			kept[r.FS.Layers[n-1].Chain] = true
		}
	})
	held, _ := filepath.Glob(s.path("running", "*", heldDir, "*"))
	for _, path := range held {
		if dir := filepath.Dir(filepath.Dir(path)); !Dead(dir) {
			kept["sha256:"+filepath.Base(path)] = true
		}
	}
	return err
}

// heldDir of a build's directory has a file for each chain id that it stands on.
const heldDir = "held"

// Hold keeps the layers of an image from being swept while the build lives. The caller holds the lease of the images.
func (b *Build) Hold(chain string) error {
	hex, ok := strings.CutPrefix(chain, "sha256:")
	if !ok || checkID(hex) != nil {
		return errdef.Invalid("invalid chain id %.100q", chain)
	}
	dir := filepath.Join(b.dir, heldDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, hex), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (s *Store) removeResult(id string) error {
	err := os.Remove(s.path("results", id))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// Prune removes all results, with their keys and snapshots, that drop says yes to, and returns the bytes that came free.
// Snapshots that other results stand on stay, and so does all that builds that live have made or may have found.
func (s *Store) Prune(ctx context.Context, drop func(r *Result, used time.Time) bool) (removed []*Result, freed int64, err error) {
	if _, err := os.Stat(s.path("running")); errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	wait, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New("waited "+lockWait.String()))
	defer cancel()
	l, err := state.Lock(wait, s.path("running")) // builds that begin now wait, and find less
	if err != nil {
		return nil, 0, err
	}
	removed, doomed, err := s.forget(drop)
	l.Unlock() // what remains takes time and is in nobody's way
	for _, dir := range doomed {
		if n, err := new(state.DiskUse).Add(ctx, dir, nil); err == nil {
			freed += n
		}
		err = errors.Join(err, state.Remove(dir))
	}
	return removed, freed, err
}

// forget removes results, and renames the snapshots that nobody needs any more to what no result can name.
func (s *Store) forget(drop func(r *Result, used time.Time) bool) (removed []*Result, doomed []string, err error) {
	live := map[string]bool{}
	begun := s.begun()
	err = s.results(func(r *Result) {
		st, err := os.Stat(s.path("results", r.ID))
		needed := err == nil && !begun.IsZero() && !st.ModTime().Before(begun)
		if err == nil && !needed && drop(r, st.ModTime()) {
			removed = append(removed, r)
			return
		}
		for _, id := range r.FS.Snapshots {
			live[id] = true
		}
	})
	if err != nil {
		return nil, nil, err
	}
	for i, r := range removed {
		if err := errors.Join(s.Release(r.ID), s.removeResult(r.ID)); err != nil {
			return removed[:i], nil, err
		}
	}
	entries, err := os.ReadDir(s.path("snapshots"))
	if err != nil {
		return removed, nil, err
	}
	for _, e := range entries {
		snap := new(Snapshot)
		dir := s.path("snapshots", e.Name())
		if live[e.Name()] || readJSON(filepath.Join(dir, snapshotFile), snap) == nil && !Dead(s.path("running", snap.Build)) {
			continue
		}
		to := s.path("snapshots", state.TempName())
		if err := os.Rename(dir, to); err != nil {
			return removed, doomed, err
		}
		doomed = append(doomed, to)
	}
	return removed, doomed, nil
}

// Record is one thing that takes room, as lists show it.
type Record struct {
	ID    string
	Mount bool // a cache mount; otherwise what a step wrote
	What  string
	Bytes int64
	Made  time.Time
	Used  time.Time
	InUse bool // by a build that lives
}

// Records lists what takes room.
func (s *Store) Records(ctx context.Context) ([]Record, error) {
	used := map[string]time.Time{}
	err := s.results(func(r *Result) {
		st, err := os.Stat(s.path("results", r.ID))
		if err != nil {
			return
		}
		for _, id := range r.FS.Snapshots {
			if st.ModTime().After(used[id]) {
				used[id] = st.ModTime()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.path("snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Record
	for _, e := range entries {
		snap := new(Snapshot)
		if readJSON(s.path("snapshots", e.Name(), snapshotFile), snap) != nil {
			continue // being removed
		}
		r := Record{ID: snap.ID, What: snap.What, Made: snap.Made, Used: used[snap.ID], InUse: !Dead(s.path("running", snap.Build))}
		if r.Bytes, err = new(state.DiskUse).Add(ctx, s.SnapshotFS(snap.ID), nil); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	mounts, err := s.Mounts(ctx)
	for _, m := range mounts {
		out = append(out, Record{ID: m.Name, Mount: true, What: "cached mount " + m.ID, Bytes: m.Bytes, Made: m.Made, Used: m.Used, InUse: m.InUse})
	}
	return out, err
}

// ForgetSums removes what builders remember of files.
func (s *Store) ForgetSums() error { return state.Remove(s.path("sums")) }
