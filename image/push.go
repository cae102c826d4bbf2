package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
)

// Destination is a repository that images are pushed to. Its errors are final, as those of an Origin.
type Destination interface {
	// Has says whether the repository has blob d.
	Has(ctx context.Context, d ref.Digest) (bool, error)
	// Mount asks for blob d of the repository from of the same registry; false when it has to be uploaded.
	Mount(ctx context.Context, d ref.Digest, from string) (bool, error)
	// Upload stores blob d; open returns it from its beginning, and is called again for another try.
	Upload(ctx context.Context, d ref.Digest, size int64, open func() (io.ReadCloser, error)) error
	// HasManifest says whether the repository has the manifest or index d.
	HasManifest(ctx context.Context, d ref.Digest) (bool, error)
	// PutManifest stores a manifest or index under reference, a tag or its digest.
	PutManifest(ctx context.Context, reference, mediaType string, data []byte) error
}

// PushOptions are for Push.
type PushOptions struct {
	Platform string         // os/arch[/variant]: only this image of an index; "" is all that are here
	Uploads  int            // layers at once; 0 is 5
	Progress func(Progress) // may be nil; not called by two goroutines at once
	Compress string         // gzip or zstd: layers that lie here as plain tars are compressed first, see compress.go
	From     Opener         // for blobs that were dropped; nil refuses to push them to where they are not
	// Peer says that the Destination is another engine and not the registry that the name stands for: nothing is mounted
	// there, and that it holds blobs now is not remembered.
	Peer bool
}

// Pushed is what Push stored.
type Pushed struct {
	Digest ref.Digest // of the manifest or index that the tag now names there
	Size   int64      // bytes of that
	// Index is what the tag names here when only its image for one platform was pushed, since the others are not here.
	Index     ref.Digest
	IndexSize int64
	MediaType string
}

const defaultUploads = 5

// Push stores the image that the tag r names in the repository o: blobs and manifests byte for byte as they are here, after
// plain layers have been compressed here; only what is missing there, and the tag last.
func (s *Store) Push(ctx context.Context, o Destination, r ref.Ref, opts PushOptions) (Pushed, error) {
	p, err := parsePlatform(opts.Platform)
	if err != nil {
		return Pushed{}, err
	}
	if r.Digest != "" {
		return Pushed{}, errdef.Invalid("cannot push a digest reference")
	}
	compression, err := parseCompression(opts.Compress)
	if err != nil {
		return Pushed{}, err
	}
	r = r.Tagged()
	lease, err := s.Lease(ctx)
	if err != nil {
		return Pushed{}, err
	}
	defer func() {
		lease.Unlock()
		_ = s.repair(context.WithoutCancel(ctx)) // plain blobs whose place others took; or the next command does it
	}()
	top, err := s.readRef(r)
	if errors.Is(err, fs.ErrNotExist) {
		return Pushed{}, errdef.NotFound("An image does not exist locally with the tag: %s", r.FamiliarName())
	}
	if err != nil {
		return Pushed{}, err
	}
	q := &pusher{s: s, o: o, name: r, opts: opts, platform: p, compression: compression, progress: oneAtATime(opts.Progress)}
	done, err := q.push(ctx, top)
	if err != nil {
		return Pushed{}, err
	}
	if opts.Peer {
		return done, nil
	}
	// What is there now can be mounted from there; that it is remembered is no part of the promise.
	_ = s.update(context.WithoutCancel(ctx), func() error { return s.addOrigins(r.Name(), slices.Sorted(maps.Keys(q.there))) })
	return done, nil
}

// Tags returns the references of the repository of r that have a tag, sorted.
func (s *Store) Tags(r ref.Ref) []ref.Ref {
	r.Tag, r.Digest = "", ""
	var all []ref.Ref
	entries, _ := os.ReadDir(filepath.Join(s.root, "refs", r.Registry, r.Repo)) // none when there is none
	for _, e := range entries {
		if t, ok := refOfFile(filepath.Join(r.Registry, r.Repo, e.Name())); ok && t.Tag != "" {
			all = append(all, t)
		}
	}
	return all
}

// pusher is one Push under way.
type pusher struct {
	s        *Store
	o        Destination
	name     ref.Ref
	opts     PushOptions
	platform platform
	progress func(Progress)

	compression layer.Compression // of layers that are plain

	mu    sync.Mutex          // protects the following
	there map[ref.Digest]bool // what the repository is known to hold
}

func (q *pusher) push(ctx context.Context, top ref.Digest) (Pushed, error) {
	t, err := q.s.stored(top, "")
	if err != nil {
		return Pushed{}, err
	}
	var done Pushed
	var parts []target
	if t.x != nil {
		if parts, err = q.parts(ctx, t); err != nil {
			return Pushed{}, err
		}
		if len(parts) == 1 && parts[0].alone {
			done.Index, done.IndexSize = top, int64(len(t.data))
			t = parts[0]
		}
	} else {
		if err := q.suits(t); err != nil {
			return Pushed{}, err
		}
		if t, err = q.compressed(ctx, t); err != nil {
			return Pushed{}, err
		}
		parts = []target{t}
	}
	done.Digest, done.Size, done.MediaType = t.digest, int64(len(t.data)), t.declared
	if err := q.blobs(ctx, parts); err != nil {
		return Pushed{}, err
	}
	for _, part := range parts {
		if part.digest == t.digest {
			continue // it goes last, with the tag
		}
		if err := q.o.PutManifest(ctx, string(part.digest), part.declared, part.data); err != nil {
			return Pushed{}, err
		}
		q.holds(part.digest)
	}
	if err := q.o.PutManifest(ctx, q.name.Tag, t.declared, t.data); err != nil {
		return Pushed{}, err
	}
	q.holds(t.digest)
	return done, nil
}

// suits compares an image that has no index with the platform that was asked for.
func (q *pusher) suits(t target) error {
	if q.opts.Platform == "" {
		return nil
	}
	data, err := q.s.readBlob(t.m.Config.Digest, maxConfig)
	if err != nil {
		return err
	}
	c, err := parseConfig(data)
	if err == nil && (c.OS != q.platform.OS || c.Architecture != q.platform.Architecture) {
		err = errdef.NotFound("image with reference %s was found but does not provide the specified platform (%s)", q.name.Familiar(), q.platform)
	}
	return err
}

// stored reads a manifest or index of the store.
func (s *Store) stored(d ref.Digest, declared string) (target, error) {
	data, err := s.readBlob(d, maxManifest)
	if err != nil {
		return target{}, err
	}
	t := target{digest: d, data: data}
	if t.m, t.x, err = parseTarget(data, declared); err != nil {
		return target{}, err
	}
	switch { // a manifest need not say what it is
	case declared != "":
		t.declared = declared
	case t.m != nil:
		t.declared = orDefault(t.m.MediaType, typeManifest)
	default:
		t.declared = orDefault(t.x.MediaType, typeIndex)
	}
	return t, nil
}

// parts returns the manifests of an index that are here. A registry takes an index only with all it names: when some are
// neither here nor there, it is the image for one platform that is pushed, and that part is alone.
func (q *pusher) parts(ctx context.Context, t target) ([]target, error) {
	var parts []target
	whole := q.opts.Platform == ""
	for _, d := range t.x.Manifests {
		if !whole {
			break
		}
		if part, err := q.s.stored(d.Digest, d.MediaType); err == nil && part.m != nil {
			parts = append(parts, part)
			continue
		}
		there, err := q.o.HasManifest(ctx, d.Digest)
		if err != nil {
			return nil, err
		}
		whole = there
	}
	if whole {
		return parts, nil
	}
	var d *descriptor
	if q.opts.Platform == "" {
		d = q.s.present(t.x, q.platform)
	} else if d = t.x.choose(q.platform); d != nil && !q.s.hasBlob(d.Digest) {
		d = nil
	}
	if d == nil {
		return nil, errdef.NotFound("image with reference %s was found but does not provide the specified platform (%s)", q.name.Familiar(), q.platform)
	}
	part, err := q.s.stored(d.Digest, d.MediaType)
	part.alone = true
	return []target{part}, err
}

// blobs brings all blobs of the manifests there, several at once.
func (q *pusher) blobs(ctx context.Context, parts []target) error {
	var all []descriptor
	layers := map[ref.Digest]bool{}
	seen := map[ref.Digest]bool{}
	for _, part := range parts {
		for i, d := range append(slices.Clone(part.m.Layers), part.m.Config) {
			if !seen[d.Digest] {
				seen[d.Digest], layers[d.Digest] = true, i < len(part.m.Layers)
				all = append(all, d)
			}
		}
	}
	for _, d := range all {
		if layers[d.Digest] {
			q.report(d, "Preparing", 0)
		}
	}
	return several(ctx, orDefaultInt(q.opts.Uploads, defaultUploads), all, func(ctx context.Context, d descriptor) error {
		how, err := q.blob(ctx, d)
		if err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest.Short(), err)
		}
		q.holds(d.Digest)
		if layers[d.Digest] {
			q.report(d, how, 0)
		}
		return nil
	})
}

func (q *pusher) holds(d ref.Digest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.there == nil {
		q.there = map[ref.Digest]bool{}
	}
	q.there[d] = true
}

func (q *pusher) report(d descriptor, action string, n int64) {
	if q.progress != nil {
		p := Progress{ID: d.Digest.Short(), Action: action}
		if n > 0 {
			p.Current, p.Total = n, d.Size
		}
		q.progress(p)
	}
}

// blob sees to it that the repository has d, and says how.
func (q *pusher) blob(ctx context.Context, d descriptor) (how string, err error) {
	has, err := q.o.Has(ctx, d.Digest)
	if err != nil || has {
		return "Layer already exists", err
	}
	for _, name := range q.s.Origins(d.Digest) {
		from, err := ref.Parse(name)
		if err != nil || q.opts.Peer || from.Registry != q.name.Registry || from.Repo == q.name.Repo {
			continue
		}
		done, err := q.o.Mount(ctx, d.Digest, from.Repo)
		if err != nil {
			return "", err
		}
		if done {
			return "Mounted from " + from.FamiliarName(), nil
		}
		break // an upload has been begun for it
	}
	f, err := q.open(ctx, d)
	if err != nil {
		return "", err
	}
	defer f.Close()
	err = q.o.Upload(ctx, d.Digest, d.Size, func() (io.ReadCloser, error) {
		return &sending{Reader: io.NewSectionReader(f, 0, math.MaxInt64), q: q, d: d}, nil
	})
	if err == nil && !q.s.hasBlob(d.Digest) {
		q.s.DropFetched(d.Digest) // after a failure it waits for the next try
	}
	return "Pushed", err
}

// open opens the blob d in the store, or brings it from where it came. It is whole and right before anything of it goes on.
func (q *pusher) open(ctx context.Context, d descriptor) (f *os.File, err error) {
	var last time.Time
	f, err = q.s.OpenBlob(ctx, d.Digest, d.Size, q.opts.From, func(n int64) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			q.report(d, "Downloading", n)
		}
	})
	if err != nil {
		err = fmt.Errorf("image %s: %w", q.name.Familiar(), err)
	}
	return f, err
}

// sending reports how much of a blob has gone out.
type sending struct {
	io.Reader
	q    *pusher
	d    descriptor
	n    int64
	last time.Time
}

func (r *sending) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n += int64(n)
	if now := time.Now(); n > 0 && now.Sub(r.last) >= progressEvery {
		r.last = now
		r.q.report(r.d, "Pushing", r.n)
	}
	return n, err
}

// Close leaves the file to who opened it: it is sent once more when the first try fails.
func (r *sending) Close() error { return nil }
