package image

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/ref"
	"hull/state"
)

// The file origins/<hex of a digest> names the repositories that are known to hold a blob, one a line, the latest
// first. A push to the same registry can have the blob mounted from there, and a damaged one can be fetched again.
// It is a hint: a registry may have dropped the blob since, and a file that is lost is no damage.

// maxOrigins is how many repositories are remembered of one blob.
const maxOrigins = 8

func (s *Store) originsDir() string { return filepath.Join(s.root, "origins") }

func (s *Store) originsPath(d ref.Digest) string { return filepath.Join(s.originsDir(), d.Hex()) }

// Origins returns the repositories ("docker.io/library/nginx") that the blob d was pulled from or pushed to, the latest
// first; none is known when there is none.
func (s *Store) Origins(d ref.Digest) []string { return s.originsIn(d.Hex()) }

func (s *Store) originsIn(file string) []string {
	data, err := state.Read(filepath.Join(s.originsDir(), file), 64<<10)
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		// What became a file was checked, but the disk may have changed it: a name of a registry is asked for things.
		name := strings.TrimSuffix(line, "\n")
		if r, err := ref.Parse(name); err == nil && r.Name() == name {
			names = append(names, name)
		}
	}
	return names
}

// Repositories returns all repositories that some blob came from or was pushed to, sorted; with missing only those of blobs
// that are not here.
func (s *Store) Repositories(missing bool) []string {
	entries, _ := os.ReadDir(s.originsDir())
	all := map[string]bool{}
	for _, e := range entries {
		if missing && s.hasBlobNamed(e.Name()) {
			continue
		}
		for _, name := range s.originsIn(e.Name()) {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// addOrigins remembers that the repository name holds the blobs. It is called within update.
func (s *Store) addOrigins(name string, blobs []ref.Digest) error {
	made := false
	for _, d := range blobs {
		old := s.Origins(d)
		if len(old) > 0 && old[0] == name {
			continue
		}
		names := append([]string{name}, slices.DeleteFunc(old, func(n string) bool { return n == name })...)
		names = names[:min(len(names), maxOrigins)]
		data := []byte(strings.Join(names, "\n") + "\n")
		err := state.Write(s.originsPath(d), data)
		if errors.Is(err, fs.ErrNotExist) && !made {
			made = true
			if err = os.Mkdir(s.originsDir(), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
				err = state.Write(s.originsPath(d), data)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepOrigins forgets where blobs came from that nothing needs any more.
func (s *Store) sweepOrigins(m *marks) {
	entries, _ := os.ReadDir(s.originsDir())
	for _, e := range entries {
		hex := e.Name()
		if !m.blobs[ref.Digest("sha256:"+hex)] && !m.blobs[ref.Digest("sha512:"+hex)] {
			os.Remove(filepath.Join(s.originsDir(), hex))
		}
	}
}
