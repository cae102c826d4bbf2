package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// What clients of an Offer pushed and no image needs is kept in pushed/<registry>/<repo>/, where references are kept in
// refs/ (see there for why no two names meet):
//
//	:<tag>       the digest of a manifest that is no image: a signature, a chart, an image for another machine's tools
//	@<digest>    a manifest of the repository that no tag leads to: pushed by digest, or what such a tag names
//	+<digest>    a blob that came, or was mounted, and that no manifest of the repository names yet
//
// A blob waits for its manifest, and a manifest of a repository without a tag for one, as long as the bytes of a pull that
// broke: then a sweep forgets them. The reference of an image comes before a tag of the same name here.

func (s *Store) pushedDir() string { return filepath.Join(s.root, "pushed") }

func (s *Store) pushedRepo(r ref.Ref) string { return filepath.Join(s.pushedDir(), r.Registry, r.Repo) }

func (s *Store) pushedTag(r ref.Ref) string { return filepath.Join(s.pushedRepo(r), ":"+r.Tag) }

func (s *Store) pushedManifest(r ref.Ref, d ref.Digest) string {
	return filepath.Join(s.pushedRepo(r), "@"+string(d))
}

func (s *Store) pushedBlob(r ref.Ref, d ref.Digest) string {
	return filepath.Join(s.pushedRepo(r), "+"+string(d))
}

// pushedAs is the file of a manifest: how it came, if it does not say itself.
type pushedAs struct {
	MediaType string `json:"mediaType"`
}

// pushedEntry is one file of a repository in pushed/. Exactly one of the first three is set.
type pushedEntry struct {
	tag            string
	manifest, blob ref.Digest
	path           string
	since          time.Time
}

// pushedEntries yields what is kept of the repository r.
func (s *Store) pushedEntries(r ref.Ref) iter.Seq[pushedEntry] {
	return func(yield func(pushedEntry) bool) {
		dir := s.pushedRepo(r)
		entries, _ := os.ReadDir(dir) // none when there is none
		for _, e := range entries {
			if e.IsDir() || len(e.Name()) < 2 {
				continue
			}
			p := pushedEntry{path: filepath.Join(dir, e.Name())}
			if fi, err := e.Info(); err == nil {
				p.since = fi.ModTime()
			}
			rest, err := e.Name()[1:], error(nil)
			switch e.Name()[0] {
			case ':':
				p.tag = rest
			case '@':
				p.manifest, err = ref.ParseDigest(rest)
			case '+':
				p.blob, err = ref.ParseDigest(rest)
			default:
				continue
			}
			if err == nil && !yield(p) {
				return
			}
		}
	}
}

// readPushedTag is readRef for what is no image.
func (s *Store) readPushedTag(r ref.Ref) (ref.Digest, error) {
	data, err := state.Read(s.pushedTag(r), 256)
	if errors.Is(err, unix.ENOTDIR) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", err
	}
	d, err := ref.ParseDigest(strings.TrimSuffix(string(data), "\n"))
	return d, errdef.As(errdef.ErrCorrupt, err)
}

// readPushedManifest returns the media type that the manifest d was pushed with.
func (s *Store) readPushedManifest(r ref.Ref, d ref.Digest) (pushedAs, error) {
	var as pushedAs
	data, err := state.Read(s.pushedManifest(r, d), 4096)
	if err == nil {
		err = json.Unmarshal(data, &as)
	}
	return as, err
}

// pushedRepos yields the repositories of pushed/.
func (s *Store) pushedRepos() iter.Seq[ref.Ref] {
	return func(yield func(ref.Ref) bool) {
		top := s.pushedDir()
		seen := map[string]bool{}
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(filepath.Dir(path), top+"/")
			if err != nil || d.IsDir() || seen[name] {
				return nil
			}
			seen[name] = true
			if r, err := ref.Parse(name); err == nil && r.Name() == name && !yield(r) {
				return fs.SkipAll
			}
			return nil
		})
	}
}

// pushed marks what clients pushed. It comes last: it marks manifests without the layers of an image.
func (m *marks) pushed() error {
	now := time.Now()
	for r := range m.s.pushedRepos() {
		has := m.s.hasTag(r)
		for e := range m.s.pushedEntries(r) {
			if !e.holds(has, now) {
				continue
			}
			d := e.manifest
			switch {
			case e.blob != "":
				m.isContent(e.blob)
				continue
			case e.tag != "":
				var err error
				if d, err = m.s.readPushedTag(tagged(r, e.tag)); err != nil {
					continue // one that is damaged leads nowhere
				}
			}
			if err := m.content(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// holds says whether the entry keeps anything, in a repository that has a tag or has none.
func (e *pushedEntry) holds(tagged bool, now time.Time) bool {
	return e.tag != "" || e.manifest != "" && tagged || now.Sub(e.since) < ingestGrace
}

// tagged is r with the tag.
func tagged(r ref.Ref, tag string) ref.Ref {
	r.Tag, r.Digest = tag, ""
	return r
}

// hasTag says whether any tag of the repository is known.
func (s *Store) hasTag(r ref.Ref) bool {
	for _, dir := range []string{filepath.Join(s.root, "refs", r.Registry, r.Repo), s.pushedRepo(r)} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ":") {
				return true
			}
		}
	}
	return false
}

// sweepPushed forgets entries that keep nothing any more, and what killed writers left. The caller has the locks of layers
// and of references.
func (s *Store) sweepPushed() {
	now := time.Now()
	for r := range s.pushedRepos() {
		has := s.hasTag(r)
		for e := range s.pushedEntries(r) {
			if !e.holds(has, now) {
				os.Remove(e.path)
			}
		}
		s.tidyPushed(r)
	}
}

// tidyPushed removes the directories of a repository that has nothing in pushed/ any more.
func (s *Store) tidyPushed(r ref.Ref) {
	for dir := s.pushedRepo(r); dir != s.pushedDir(); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			return
		}
	}
}

// keepPushed makes an entry of the repository r. It is called within update, so that no tidying is at work.
func (s *Store) keepPushed(r ref.Ref, path string, data []byte) error {
	err := state.WriteDurable(path, data)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(s.pushedRepo(r), 0o700); err != nil {
		return err
	}
	if err := state.WriteDurable(path, data); err != nil {
		return err
	}
	for dir := filepath.Dir(s.pushedRepo(r)); dir != s.root; dir = filepath.Dir(dir) {
		if err := state.SyncDir(dir); err != nil {
			return err
		}
	}
	return state.SyncDir(s.root)
}
