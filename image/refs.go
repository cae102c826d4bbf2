package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// A reference is the file refs/<registry>/<repo>/:<tag> or .../@<digest>, holding the digest of a manifest or
// index and a newline. The colon and the at sign, with which no component of a repository can begin, keep the
// tag "b" of "a" apart from the repository "a/b". refs.log has a file of the same name with one line per change:
//
//	2026-11-23T10:30:00.123456789Z <old digest or -> <new digest or -> [revision=<label of the new image>] <command>
//
// The line is written before the reference. A line whose old digest the next line does not continue never took
// effect: its writer was killed in between.

func refFile(r ref.Ref) string {
	dir := filepath.Join(r.Registry, r.Repo)
	if r.Tag != "" {
		return filepath.Join(dir, ":"+r.Tag)
	}
	return filepath.Join(dir, "@"+string(r.Digest))
}

func (s *Store) refPath(r ref.Ref) string { return filepath.Join(s.root, "refs", refFile(r)) }
func (s *Store) logPath(r ref.Ref) string { return filepath.Join(s.root, "refs.log", refFile(r)) }

// readRef returns what the tag, or else the digest, of r names; fs.ErrNotExist if there is no such reference.
func (s *Store) readRef(r ref.Ref) (ref.Digest, error) {
	path := s.refPath(r)
	data, err := state.Read(path, 256)
	if errors.Is(err, unix.ENOTDIR) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", err
	}
	d, err := ref.ParseDigest(strings.TrimSuffix(string(data), "\n"))
	if err != nil {
		return "", errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s: %w", path, err))
	}
	return d, nil
}

// refChange lets r name target; the empty target removes r.
type refChange struct {
	ref    ref.Ref
	target ref.Digest
}

// updateWait is how long a change waits for those of others, each of which takes milliseconds.
const updateWait = time.Minute

// lockRefs takes the lock under which references and records change.
func (s *Store) lockRefs(ctx context.Context) (*state.Locked, error) {
	wait, cancel := context.WithTimeoutCause(ctx, updateWait, errors.New("waited for a minute"))
	defer cancel()
	return state.Lock(wait, filepath.Join(s.root, "refs"))
}

// update runs f alone among all that change references or records, then brings index.json up to date.
func (s *Store) update(ctx context.Context, f func() error) error {
	l, err := s.lockRefs(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if err := s.forgetListing(); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	if err := s.writeIndex(); !errors.Is(err, unix.ENOSPC) { // it is derived: the next change writes it
		return err
	}
	return nil
}

// changeRef is called within update. Whatever the name was in pushed/ goes with the change.
func (s *Store) changeRef(by string, c refChange) error {
	if err := s.setRef(by, c); err != nil || c.ref.Tag == "" {
		return err
	}
	if err := os.Remove(s.pushedTag(c.ref)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	return nil
}

// setRef is changeRef of the reference alone.
func (s *Store) setRef(by string, c refChange) error {
	old, err := s.readRef(c.ref)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errdef.ErrCorrupt) {
		return err
	}
	if err == nil && old == c.target || err != nil && c.target == "" && old == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// A full disk must not keep a name, and so its image, from being removed; then its log lacks a line.
	if err := s.log(c, old, by); err != nil && (c.target != "" || !errors.Is(err, unix.ENOSPC)) {
		return err
	}
	path := s.refPath(c.ref)
	if c.target != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return state.WriteDurable(path, []byte(c.target+"\n"))
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := state.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	for dir := filepath.Dir(path); dir != filepath.Join(s.root, "refs"); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			break
		}
	}
	return nil
}

// log appends a line to the log of a reference, durably.
func (s *Store) log(c refChange, old ref.Digest, by string) (err error) {
	path := s.logPath(c.ref)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	e := LogEntry{Time: time.Now(), Old: string(old), New: string(c.target), Revision: s.revision(c.target), By: by}
	if err := cutTorn(f, st.Size()); err != nil {
		return err
	}
	if _, err := f.WriteString(e.line()); err != nil {
		return err
	}
	return f.Sync()
}

// Log returns the changes of the reference name, oldest first.
func (s *Store) Log(name string) ([]LogEntry, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	return s.readLog(r.Tagged())
}

// maxLog bounds the bytes of a log that are read.
const maxLog = 64 << 20

func (s *Store) readLog(r ref.Ref) ([]LogEntry, error) {
	data, err := state.Read(s.logPath(r), maxLog)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, errdef.NotFound("no log of %s", r.Familiar())
	}
	if err != nil {
		return nil, err
	}
	return parseLog(string(data)), nil
}

// parseLog leaves out lines that are torn, and those that never took effect.
func parseLog(data string) []LogEntry {
	var log []LogEntry
	for line := range strings.Lines(data) {
		e, ok := parseLogLine(strings.TrimSuffix(line, "\n"))
		if !ok {
			continue
		}
		log = append(effective(log, e.Old), e)
	}
	return log
}

// effective drops what never took effect from the end of log, given what its reference was afterwards. That an image took
// the place of itself with other blobs is no version of its own: the entry before has that digest then.
func effective(log []LogEntry, after string) []LogEntry {
	for n := len(log); n > 0 && log[n-1].New != after && log[n-1].Old == after; n-- {
		log = log[:n-1]
	}
	if n := len(log); n > 1 && log[n-1].By == byCompression && log[n-1].Old == log[n-2].New {
		log[n-2].New = log[n-1].New
		log = log[:n-1]
	}
	return log
}

// pick returns the digest that the log's reference had at the place sel.
func pick(log []LogEntry, sel ref.Selector, now time.Time) (ref.Digest, error) {
	i, err := pickEntry(log, sel, now)
	if err != nil {
		return "", err
	}
	return ref.Digest(log[i].New), nil
}

// pickEntry returns the index of the entry that made the log's reference what it was at the place sel.
func pickEntry(log []LogEntry, sel ref.Selector, now time.Time) (int, error) {
	i := len(log) - 1 - sel.N
	if t, ok := sel.At(now); ok {
		i = len(log) - 1
		for i >= 0 && log[i].Time.After(t) {
			i--
		}
	}
	if i < 0 {
		return 0, errdef.NotFound("its log does not go back that far")
	}
	if log[i].New == "" {
		return 0, errdef.NotFound("it was removed then")
	}
	return i, nil
}

// refs yields all references. A file that is none, or was removed meanwhile, is passed over.
func (s *Store) refs() iter.Seq2[ref.Ref, ref.Digest] {
	return func(yield func(ref.Ref, ref.Digest) bool) {
		top := filepath.Join(s.root, "refs")
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			r, ok := refOfFile(strings.TrimPrefix(path, top+"/"))
			if !ok {
				return nil
			}
			target, err := s.readRef(r)
			if err == nil && !yield(r, target) {
				return fs.SkipAll
			}
			return nil
		})
	}
}

// refOfFile is the inverse of refFile.
func refOfFile(path string) (ref.Ref, bool) {
	dir, base := filepath.Split(path)
	if base == "" || base[0] != ':' && base[0] != '@' {
		return ref.Ref{}, false
	}
	r, err := ref.Parse(strings.TrimSuffix(dir, "/") + base)
	return r, err == nil && refFile(r) == path
}

const (
	annotationRef        = "org.opencontainers.image.ref.name"
	annotationContainerd = "io.containerd.image.name"
)

// writeIndex brings index.json, by which other tools find the images, up to date with references and images.
// Nothing of ours reads it but for the sizes it knows.
func (s *Store) writeIndex() error {
	known := map[ref.Digest]descriptor{}
	path := filepath.Join(s.root, "index.json")
	before, err := state.Read(path, 256<<20)
	if err == nil {
		if old, err := parseIndex(before); err == nil {
			for _, d := range old.Manifests {
				known[d.Digest] = descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
			}
		}
	}
	out := index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{}}
	named := map[ref.Digest]bool{}
	for r, target := range s.refs() {
		d, ok := s.describe(known, target)
		if !ok {
			continue
		}
		named[target] = true
		d.Annotations = map[string]string{annotationRef: r.String(), annotationContainerd: r.String()}
		out.Manifests = append(out.Manifests, d)
	}
	for _, rec := range s.records() {
		if d, ok := s.describe(known, rec.Manifest); ok && !named[rec.Manifest] {
			out.Manifests = append(out.Manifests, d)
		}
	}
	slices.SortStableFunc(out.Manifests, func(a, b descriptor) int {
		return strings.Compare(a.Annotations[annotationRef], b.Annotations[annotationRef])
	})
	data, err := json.MarshalIndent(out, "", " ")
	if err != nil || bytes.Equal(data, before) {
		return err
	}
	return s.writeTop("index.json", data)
}

// writeTop writes a file of the root directory. The temporary file is in images/, where a sweep finds it if we
// are killed: in the root it could be anybody's.
func (s *Store) writeTop(name string, data []byte) error {
	tmp := filepath.Join(s.imagesDir(), state.TempPrefix+name)
	err := state.WriteDurable(tmp, data) // which leaves the file when only its directory could not be synced
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.root, name))
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return state.SyncDir(s.root)
}

// describe returns the descriptor of a manifest or index in the store.
func (s *Store) describe(known map[ref.Digest]descriptor, d ref.Digest) (descriptor, bool) {
	if desc, ok := known[d]; ok && s.hasBlob(d) {
		return desc, true
	}
	data, err := s.readBlob(d, maxManifest)
	if err != nil {
		return descriptor{}, false
	}
	m, x, err := parseTarget(data, "")
	if err != nil {
		return descriptor{}, false
	}
	desc := descriptor{MediaType: typeManifest, Digest: d, Size: int64(len(data))}
	switch {
	case m != nil && m.MediaType != "":
		desc.MediaType = m.MediaType
	case x != nil && x.MediaType != "":
		desc.MediaType = x.MediaType
	case x != nil:
		desc.MediaType = typeIndex
	}
	known[d] = desc
	return desc, true
}
