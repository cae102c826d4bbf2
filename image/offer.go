package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
)

// Offer is a store as a registry offers it: repositories with tags, manifests and blobs, byte for byte as they came. It may
// live long; all it remembers it could find out again. Its methods may be used by many goroutines.
type Offer struct {
	s *Store
	// From is for blobs that were dropped: who asks for one has it brought back. Nil says that they are not here.
	From Opener

	mu     sync.Mutex                // protects the following
	parsed map[ref.Digest]*content   // of manifests, which never change
	lately map[asked]time.Time       // manifests that clients were given
	sums   map[string]*runningDigest // of uploads in progress
}

// asked is a manifest of a repository.
type asked struct {
	repo   string
	digest ref.Digest
}

const (
	// latelyFor is how long a client that was given a manifest finds what it names, although the tag was moved meanwhile.
	latelyFor = 15 * time.Minute
	// maxRemembered bounds each of the memories of an Offer.
	maxRemembered = 4096
)

// Offer returns the store as a registry offers it. It does no I/O.
func (s *Store) Offer() *Offer {
	return &Offer{s: s, parsed: map[ref.Digest]*content{}, lately: map[asked]time.Time{}, sums: map[string]*runningDigest{}}
}

// Repositories returns the repositories that have a name or anything that was pushed, sorted.
func (o *Offer) Repositories() []ref.Ref {
	all := map[ref.Ref]bool{}
	for r := range o.s.refs() {
		all[tagged(r, "")] = true
	}
	for r := range o.s.pushedRepos() {
		all[r] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b ref.Ref) int { return strings.Compare(a.Name(), b.Name()) })
}

// Repository is what an Offer has under one name. What is not here has an error of kind errdef.ErrNotFound.
type Repository struct {
	o    *Offer
	s    *Store
	name ref.Ref // without tag and digest
}

// Repository returns the repository of r, which need not exist. It does no I/O.
func (o *Offer) Repository(r ref.Ref) *Repository {
	return &Repository{o: o, s: o.s, name: tagged(r, "")}
}

// Tags returns the tags in the order of their bytes.
func (r *Repository) Tags(context.Context) ([]string, error) {
	all := map[string]bool{}
	known := false
	for n := range r.references() {
		known = true
		if n.ref.Tag != "" {
			all[n.ref.Tag] = true
		}
	}
	for e := range r.s.pushedEntries(r.name) {
		known = true
		if e.tag != "" {
			all[e.tag] = true
		}
	}
	if !known {
		return nil, errdef.NotFound("repository %s is not known here", r.name.FamiliarName())
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// references yields the references of the repository.
func (r *Repository) references() func(func(name) bool) {
	return func(yield func(name) bool) {
		entries, _ := os.ReadDir(filepath.Join(r.s.root, "refs", r.name.Registry, r.name.Repo))
		for _, e := range entries {
			n, ok := refOfFile(filepath.Join(r.name.Registry, r.name.Repo, e.Name()))
			if !ok {
				continue
			}
			if target, err := r.s.readRef(n); err == nil && !yield(name{n, target}) {
				return
			}
		}
	}
}

// target is what the tag names.
func (r *Repository) target(tag string) (ref.Digest, error) {
	n, err := ref.Parse(r.name.Name() + ":" + tag)
	if err != nil {
		return "", fs.ErrNotExist // there can be no such tag
	}
	d, err := r.s.readRef(n)
	if errors.Is(err, fs.ErrNotExist) {
		d, err = r.s.readPushedTag(n)
	}
	return d, err
}

// Manifest returns the manifest or index that reference names, a tag or a digest of the repository, with its media type.
func (r *Repository) Manifest(_ context.Context, reference string) (data []byte, mediaType string, d ref.Digest, err error) {
	unknown := errdef.NotFound("manifest %s is not known to %s", reference, r.name.FamiliarName())
	if strings.Contains(reference, ":") {
		if d, err = ref.ParseDigest(reference); err != nil {
			return nil, "", "", err
		}
		declared, ok := r.reach().manifests[d]
		if !ok && !r.gave(d) {
			return nil, "", "", unknown
		}
		mediaType = declared
	} else if d, err = r.target(reference); errors.Is(err, fs.ErrNotExist) {
		return nil, "", "", unknown
	} else if err != nil {
		return nil, "", "", err
	}
	data, err = r.s.readBlob(d, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", "", unknown
	}
	if err != nil {
		return nil, "", "", err
	}
	if as, err := r.s.readPushedManifest(r.name, d); err == nil && as.MediaType != "" {
		mediaType = as.MediaType
	}
	c, err := parseContent(data, mediaType)
	if err != nil {
		return nil, "", "", err
	}
	r.give(d)
	return data, c.mediaType, d, nil
}

// give notes that a client has the manifest d.
func (r *Repository) give(d ref.Digest) {
	now := time.Now()
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	if len(r.o.lately) >= maxRemembered {
		maps.DeleteFunc(r.o.lately, func(_ asked, at time.Time) bool { return now.Sub(at) > latelyFor })
	}
	if len(r.o.lately) < maxRemembered {
		r.o.lately[asked{r.name.Name(), d}] = now
	}
}

// gave says whether a client was given the manifest d not long ago.
func (r *Repository) gave(d ref.Digest) bool {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	at, ok := r.o.lately[asked{r.name.Name(), d}]
	return ok && time.Since(at) <= latelyFor
}

// given are the manifests of which that is so.
func (r *Repository) given() []ref.Digest {
	var all []ref.Digest
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	for a, at := range r.o.lately {
		if a.repo == r.name.Name() && time.Since(at) <= latelyFor {
			all = append(all, a.digest)
		}
	}
	return all
}

// forget takes back that clients were given the manifest d.
func (r *Repository) forget(d ref.Digest) {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	delete(r.o.lately, asked{r.name.Name(), d})
}

// content is what the manifest d says; nil when it is not here or cannot be understood.
func (o *Offer) content(d ref.Digest, declared string) *content {
	o.mu.Lock()
	c := o.parsed[d]
	o.mu.Unlock()
	if c != nil {
		return c
	}
	data, err := o.s.readBlob(d, maxManifest)
	if err != nil {
		return nil
	}
	if c, err = parseContent(data, declared); err != nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.parsed) >= maxRemembered {
		clear(o.parsed)
	}
	o.parsed[d] = c
	return c
}

// reached is all that belongs to a repository.
type reached struct {
	manifests map[ref.Digest]string // with the media types by which they are known
	blobs     map[ref.Digest]bool
}

// reach follows everything that the repository names.
func (r *Repository) reach() *reached {
	all := &reached{manifests: map[ref.Digest]string{}, blobs: map[ref.Digest]bool{}}
	for n := range r.references() {
		all.manifest(r.o, n.target, "")
	}
	for e := range r.s.pushedEntries(r.name) {
		switch {
		case e.blob != "":
			all.blobs[e.blob] = true
		case e.manifest != "":
			as, _ := r.s.readPushedManifest(r.name, e.manifest)
			all.manifest(r.o, e.manifest, as.MediaType)
		case e.tag != "":
			if d, err := r.s.readPushedTag(tagged(r.name, e.tag)); err == nil {
				all.manifest(r.o, d, "")
			}
		}
	}
	return all
}

func (all *reached) manifest(o *Offer, d ref.Digest, declared string) {
	if was, ok := all.manifests[d]; ok && (was != "" || declared == "") {
		return
	}
	all.manifests[d] = declared
	c := o.content(d, declared)
	if c == nil {
		return
	}
	for _, b := range c.blobs {
		all.blobs[b.Digest] = true
	}
	for _, e := range c.manifests {
		all.manifest(o, e.Digest, e.MediaType)
	}
}

// Blob opens the blob d of the repository.
func (r *Repository) Blob(ctx context.Context, d ref.Digest) (*os.File, error) {
	unknown := errdef.NotFound("blob %s is not known to %s", d, r.name.FamiliarName())
	if !r.hasBlob(d) {
		return nil, unknown
	}
	fd, err := unix.Open(r.s.blobPath(d), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		if size, ok := r.sizeOf(d); ok && r.o.From != nil && len(r.s.Origins(d)) > 0 {
			return r.s.bringBack(ctx, d, size, r.o.From)
		}
		return nil, unknown
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: r.s.blobPath(d), Err: err}
	}
	f := os.NewFile(uintptr(fd), r.s.blobPath(d))
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(errdef.As(errdef.ErrCorrupt, fmt.Errorf("blob %s is not a regular file", d)), err, f.Close())
	}
	return f, nil
}

// sizeOf is how many bytes the manifests of the repository say that the blob d has.
func (r *Repository) sizeOf(d ref.Digest) (int64, bool) {
	for m, declared := range r.reach().manifests {
		c := r.o.content(m, declared)
		if c == nil {
			continue
		}
		for _, b := range c.blobs {
			if b.Digest == d {
				return b.Size, true
			}
		}
	}
	return 0, false
}

// hasBlob says whether d is of the repository, the quick ways first.
func (r *Repository) hasBlob(d ref.Digest) bool {
	if _, err := os.Lstat(r.s.pushedBlob(r.name, d)); err == nil {
		return true
	}
	for _, m := range r.given() {
		c := r.o.content(m, "")
		if c != nil && slices.ContainsFunc(c.blobs, func(b descriptor) bool { return b.Digest == d }) {
			return true
		}
	}
	return r.reach().blobs[d]
}

// referrer is an entry in the list of what refers to a manifest.
type referrer struct {
	MediaType    string          `json:"mediaType"`
	Digest       ref.Digest      `json:"digest"`
	Size         int64           `json:"size"`
	ArtifactType string          `json:"artifactType,omitempty"`
	Annotations  json.RawMessage `json:"annotations,omitempty"`
}

// Referrers returns an index of the manifests of the repository whose subject is d, which need not be here; artifactType
// chooses those of one type, "" is all.
func (r *Repository) Referrers(_ context.Context, d ref.Digest, artifactType string) ([]byte, error) {
	list := []referrer{}
	for m, declared := range r.reach().manifests {
		c := r.o.content(m, declared)
		if c == nil || c.subject != d || artifactType != "" && c.artifactType != artifactType {
			continue
		}
		list = append(list, referrer{c.mediaType, m, c.size, c.artifactType, c.annotations})
	}
	slices.SortFunc(list, func(a, b referrer) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return json.Marshal(struct {
		SchemaVersion int        `json:"schemaVersion"`
		MediaType     string     `json:"mediaType"`
		Manifests     []referrer `json:"manifests"`
	}{2, typeIndex, list})
}
