package builds

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hull/errdef"
	"hull/state"
)

// FS is a file system by its parts.
type FS struct {
	Layers    []Layer  `json:"layers,omitempty"`    // of an image, lowest first
	Snapshots []string `json:"snapshots,omitempty"` // ids, above them, lowest first
}

// Layer is a layer of an image in the store.
type Layer struct {
	Chain     string `json:"chain"` // names it with all layers below it
	DiffID    string `json:"diffID"`
	MediaType string `json:"mediaType"` // of its blob
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // of the blob, in bytes
}

// Over is f with the snapshot id on top.
func (f *FS) Over(id string) *FS {
	return &FS{Layers: f.Layers, Snapshots: append(slices.Clone(f.Snapshots), id)}
}

// Snapshot is what one step wrote. It never changes.
type Snapshot struct {
	ID    string    `json:"id"`
	Build string    `json:"build"` // which made it
	Made  time.Time `json:"made"`
	Boot  string    `json:"boot,omitempty"`  // in which it was made; "" once it is on disk for good
	What  string    `json:"what"`            // the instruction, for people
	Layer *Layer    `json:"layer,omitempty"` // of an image that it became
}

const (
	snapshotFile = "snapshot.json"
	snapshotFS   = "fs"
)

// Draft is a snapshot under way: FS is to be filled. Commit or Discard has to follow.
type Draft struct {
	b   *Build
	dir string
	id  string
}

// NewSnapshot begins a snapshot.
func (b *Build) NewSnapshot(id string) (*Draft, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	d := &Draft{b: b, id: id, dir: filepath.Join(b.dir, id)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	return d, nil
}

// Dir is a directory for what the making of the snapshot needs, such as overlayfs' work directory. It goes with the draft.
func (d *Draft) Dir() string { return d.dir }

// FS is the directory that becomes the snapshot. It is the caller's to make, or to move there.
func (d *Draft) FS() string { return filepath.Join(d.dir, snapshotFS) }

// Commit makes the snapshot one that others can name, and returns its id.
func (d *Draft) Commit(what string) (string, error) {
	s := d.b.s
	snap := &Snapshot{ID: d.id, Build: d.b.id, Made: time.Now().UTC(), Boot: s.boot(), What: what}
	if err := writeJSON(filepath.Join(d.dir, snapshotFile), snap); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if n := e.Name(); n != snapshotFile && n != snapshotFS {
			if err := state.Remove(filepath.Join(d.dir, n)); err != nil {
				return "", err
			}
		}
	}
	return d.id, os.Rename(d.dir, s.path("snapshots", d.id))
}

// Discard gives the draft up. After Commit it does nothing.
func (d *Draft) Discard() error { return state.Remove(d.dir) }

// Snapshot reads what is known of a snapshot. Kind errdef.ErrNotFound: there is none, or it did not survive a power cut.
func (s *Store) Snapshot(id string) (*Snapshot, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	snap := new(Snapshot)
	err := readJSON(s.path("snapshots", id, snapshotFile), snap)
	if errors.Is(err, fs.ErrNotExist) || err == nil && snap.Boot != "" && snap.Boot != s.boot() {
		return nil, errdef.NotFound("no snapshot %s", id)
	}
	return snap, err
}

// SnapshotFS is the directory of a snapshot, in overlayfs' form.
func (s *Store) SnapshotFS(id string) string { return s.path("snapshots", id, snapshotFS) }

// SetLayer remembers which layer of an image the snapshot became. Over other layers it is the same but for Chain.
func (s *Store) SetLayer(id string, l *Layer) error {
	snap, err := s.Snapshot(id)
	if err != nil {
		return err
	}
	snap.Layer = l
	return writeJSON(s.path("snapshots", id, snapshotFile), snap)
}

// Settle makes the named snapshots survive a power cut.
func (s *Store) Settle(ids []string) error {
	for _, id := range ids {
		snap, err := s.Snapshot(id)
		if err != nil {
			return err
		}
		if snap.Boot == "" {
			continue
		}
		if err := state.SyncTree(s.path("snapshots", id)); err != nil {
			return err
		}
		snap.Boot = ""
		if err := writeJSON(s.path("snapshots", id, snapshotFile), snap); err != nil {
			return err
		}
	}
	return nil
}
