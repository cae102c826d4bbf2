package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// Origin is a repository that images are pulled from. Its errors are final: whatever a second try can cure was tried.
// They have the kinds of errdef, ErrNotFound for what is not there.
type Origin interface {
	// Manifest returns the manifest or index that reference (a tag or a digest) names and its media type, "" when the
	// registry does not say.
	Manifest(ctx context.Context, reference string) (data []byte, mediaType string, err error)
	// Blob opens blob d from the byte offset on. A registry that knows no ranges sends it from the beginning: at says
	// where the first byte is from. The bytes are not verified.
	Blob(ctx context.Context, d ref.Digest, offset int64) (r io.ReadCloser, at int64, err error)
	// Reject says that what Blob gave was not d. Where the repository has several places, another one is asked next.
	Reject(d ref.Digest)
}

// PullOptions are for Pull.
type PullOptions struct {
	Platform     string         // os/arch[/variant]; "" is this machine's
	AllPlatforms bool           // of an index, all its images
	Downloads    int            // layers at once; 0 is 3
	Progress     func(Progress) // may be nil; not called by two goroutines at once
	By           string         // the command, for the log of references; "" is "pull"
	// Peer says that the Origin is another engine and not the registry that the name stands for: where blobs came from is
	// not remembered.
	Peer bool
}

// Pulled is what Pull brought.
type Pulled struct {
	ID     string
	Digest string // of the manifest or index that the reference now names
	New    bool   // the reference named something else before, or nothing
}

const defaultDownloads = 3

// Pull brings the image that r (a tag, or else a digest) names in the repository o. It becomes visible after all of
// it has been verified against the digests, and what was there already is not asked for again. Of several Pulls of
// one image, in whatever processes, one does the work.
func (s *Store) Pull(ctx context.Context, o Origin, r ref.Ref, opts PullOptions) (pulled Pulled, err error) {
	p, err := parsePlatform(opts.Platform)
	if err != nil {
		return Pulled{}, err
	}
	r = r.Tagged()
	if r.Digest != "" {
		r.Tag = "" // a tag beside a digest is for the reader only
	}
	top, err := s.target(ctx, o, r)
	if err != nil {
		return Pulled{}, err
	}
	progress := oneAtATime(opts.Progress)
	if progress != nil {
		progress(Progress{ID: orDefault(r.Tag, string(r.Digest)), Action: "Pulling from " + r.Repo})
	}
	if done, ok := s.upToDate(r, top, opts.Platform == "" && !opts.AllPlatforms); ok {
		return done, nil
	}
	in, err := s.receive(ctx)
	if err != nil {
		return Pulled{}, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	q := &puller{s: s, in: in, o: o, opts: opts, platform: p, progress: progress}
	pulled, err = q.pull(ctx, r, top)
	if errors.Is(err, unix.ENOSPC) { // a full disk needs the space more than the next pull does
		for d := range q.ingests {
			s.dropIngest(d)
		}
	}
	return pulled, err
}

// target is the manifest or index that a reference names: exactly one of m and x is not nil.
type target struct {
	digest   ref.Digest
	data     []byte
	declared string
	m        *manifest
	x        *index
	alone    bool // of an index: it stands for the whole
}

// target asks the registry what r names.
func (s *Store) target(ctx context.Context, o Origin, r ref.Ref) (target, error) {
	reference := r.Tag
	if reference == "" {
		reference = string(r.Digest)
	}
	data, declared, err := askManifest(ctx, o, reference)
	if err != nil {
		return target{}, err
	}
	t := target{digest: ref.Digest(sumOf(data)), data: data, declared: declared}
	if r.Digest != "" {
		if err := checkSum(r.Digest, data); err != nil {
			return target{}, errdef.Invalid("manifest verification failed for digest %s: what the registry sent has the digest %s", r.Digest, t.digest)
		}
		t.digest = r.Digest
	}
	t.m, t.x, err = parseTarget(data, t.declared)
	return t, err
}

func askManifest(ctx context.Context, o Origin, reference string) (data []byte, declared string, err error) {
	data, declared, err = o.Manifest(ctx, reference)
	if err == nil && len(data) > maxManifest {
		err = errdef.Invalid("manifest %s has more than %d bytes", reference, maxManifest)
	}
	return data, declared, err
}

// upToDate says whether r names the target already, with all that belongs to it.
func (s *Store) upToDate(r ref.Ref, t target, anyPlatform bool) (Pulled, bool) {
	if now, err := s.readRef(r); err != nil || now != t.digest || !anyPlatform {
		return Pulled{}, false
	}
	img, err := s.open(found{ref: r.String(), target: t.digest})
	if err != nil {
		return Pulled{}, false
	}
	if _, err := s.readRecord(img.ID); err != nil {
		return Pulled{}, false
	}
	if t.x != nil { // an index may be here with the image of another platform only
		p, _ := parsePlatform("")
		if d := t.x.choose(p); d == nil || string(d.Digest) != img.Manifest {
			return Pulled{}, false
		}
	}
	return Pulled{ID: img.ID, Digest: string(t.digest)}, true
}

// puller is one Pull under way.
type puller struct {
	s        *Store
	in       *incoming
	o        Origin
	opts     PullOptions
	platform platform
	progress func(Progress)

	mu      sync.Mutex          // protects the following
	ingests map[ref.Digest]bool // that this pull had a part in
}

func (q *puller) pull(ctx context.Context, r ref.Ref, t target) (Pulled, error) {
	wanted, err := q.choose(r, t)
	if err != nil {
		return Pulled{}, err
	}
	unlock, err := q.alone(ctx, wanted)
	if err != nil {
		return Pulled{}, err
	}
	defer unlock()
	fresh := slices.ContainsFunc(wanted, func(d descriptor) bool { return !q.s.hasBlob(d.Digest) })
	images := make([]ready, len(wanted))
	for i, d := range wanted {
		if images[i], err = q.image(ctx, d, t); err != nil {
			return Pulled{}, err
		}
	}
	for _, img := range images {
		if err := q.layers(ctx, img); err != nil {
			return Pulled{}, err
		}
	}
	if t.x != nil {
		if err := q.in.addVerified(t.digest, t.data); err != nil {
			return Pulled{}, err
		}
	}
	images, main, err := q.listed(images, t)
	if err != nil {
		return Pulled{}, err
	}
	images[main].refs = []ref.Ref{r}
	before, _ := q.s.readRef(r)
	if !q.opts.Peer {
		q.in.from = r.Name()
	}
	if err := q.in.commit(ctx, orDefault(q.opts.By, "pull"), images); err != nil {
		return Pulled{}, err
	}
	for d := range q.ingests {
		q.s.dropIngest(d)
	}
	return Pulled{ID: string(images[main].m.Config.Digest), Digest: string(t.digest), New: fresh || before != t.digest || len(q.ingests) > 0}, nil
}

// choose returns the manifests that are to be brought.
func (q *puller) choose(r ref.Ref, t target) ([]descriptor, error) {
	if t.m != nil {
		return []descriptor{{MediaType: t.declared, Digest: t.digest, Size: int64(len(t.data))}}, nil
	}
	if q.opts.AllPlatforms {
		var all []descriptor
		for _, d := range t.x.Manifests {
			if d.Annotations["vnd.docker.reference.type"] == "" && (d.Platform == nil || d.Platform.OS == "linux") {
				all = append(all, d)
			}
		}
		if len(all) > 0 {
			return all, nil
		}
	}
	if d := t.x.choose(q.platform); d != nil {
		return []descriptor{*d}, nil
	}
	return nil, errdef.NotFound("no matching manifest for %s in the manifest list entries: %s is there for %s", q.platform, r.Familiar(), t.x.platforms())
}

// platforms are those that an index has images for.
func (x *index) platforms() string {
	var names []string
	for _, d := range x.Manifests {
		if d.Platform != nil && d.Annotations["vnd.docker.reference.type"] == "" {
			names = append(names, d.Platform.String())
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return "no platform that is named"
	}
	return strings.Join(names, ", ")
}

// alone waits until nobody else pulls one of the manifests: then it is here, and there is little left to do.
func (q *puller) alone(ctx context.Context, manifests []descriptor) (unlock func(), err error) {
	var undo []func()
	unlock = func() {
		for _, f := range undo {
			f()
		}
	}
	sorted := slices.Clone(manifests)
	slices.SortFunc(sorted, func(a, b descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	for i, d := range sorted {
		if i > 0 && sorted[i-1].Digest == d.Digest {
			continue
		}
		dir, l, err := q.s.lockIngest(ctx, d.Digest)
		if err != nil {
			unlock()
			return nil, err
		}
		undo = append(undo, func() {
			os.Remove(dir) // before the lock is free: whoever waits for it makes another one
			l.Unlock()
		})
	}
	return unlock, nil
}

// image brings a manifest and its configuration.
func (q *puller) image(ctx context.Context, d descriptor, t target) (ready, error) {
	data, declared := t.data, t.declared
	if t.m == nil {
		var err error
		if data, declared, err = q.manifest(ctx, d); err != nil {
			return ready{}, err
		}
	}
	m, x, err := parseTarget(data, declared)
	if err != nil {
		return ready{}, err
	}
	if x != nil {
		return ready{}, errdef.Invalid("%s is an index within an index", d.Digest)
	}
	config, err := q.s.small(ctx, q.o, m.Config, maxConfig)
	if err != nil {
		return ready{}, fmt.Errorf("configuration of the image: %w", err)
	}
	c, err := parseConfig(config)
	if err != nil {
		return ready{}, err
	}
	if err := q.suits(c); err != nil {
		return ready{}, err
	}
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return ready{}, errdef.Invalid("the image has %d layers but %d diff ids", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	if err := errors.Join(q.in.addVerified(d.Digest, data), q.in.addVerified(m.Config.Digest, config)); err != nil {
		return ready{}, err
	}
	return ready{manifest: d.Digest, m: m, c: c, target: t.digest}, nil
}

// manifest brings one of an index, unless it is here.
func (q *puller) manifest(ctx context.Context, d descriptor) (data []byte, declared string, err error) {
	if data, err := q.s.readBlob(d.Digest, maxManifest); err == nil {
		return data, d.MediaType, nil
	}
	data, declared, err = askManifest(ctx, q.o, string(d.Digest))
	if err != nil {
		return nil, "", err
	}
	if int64(len(data)) != d.Size || checkSum(d.Digest, data) != nil {
		return nil, "", errdef.Invalid("manifest verification failed for digest %s: what the registry sent has the digest %s", d.Digest, sumOf(data))
	}
	// The type by which the index names it is part of what was verified: the two must not differ.
	if _, _, err := parseTarget(data, d.MediaType); err != nil {
		return nil, "", err
	}
	return data, orDefault(declared, d.MediaType), nil
}

// suits refuses what cannot run here, unless it was asked for.
func (q *puller) suits(c *Config) error {
	have := platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	switch {
	case q.opts.AllPlatforms:
		return nil
	case q.opts.Platform != "" && (c.OS != q.platform.OS || c.Architecture != q.platform.Architecture):
		return errdef.NotFound("the image was found but its platform (%s) does not match the specified platform (%s)", have, q.platform)
	case c.OS != "" && c.OS != "linux":
		return errdef.Invalid("image operating system %q cannot be used on this platform", c.OS)
	}
	return nil
}

// listed returns the images with the place of the one that references lead to and a list of images shows; the others
// are only part of the index.
func (q *puller) listed(images []ready, t target) ([]ready, int, error) {
	if t.x == nil {
		return images, 0, nil
	}
	here := index{}
	for _, d := range t.x.Manifests {
		if _, ok := q.in.path(d.Digest); ok && d.Annotations["vnd.docker.reference.type"] == "" {
			here.Manifests = append(here.Manifests, d)
		}
	}
	p, _ := parsePlatform("")
	d := here.choose(p)
	if d == nil {
		d = &here.Manifests[0]
	}
	main := slices.IndexFunc(images, func(img ready) bool { return img.manifest == d.Digest })
	if main < 0 { // this machine's was here before, and another one's was asked for
		img, err := finishManifest(q.in, d.Digest, d.MediaType)
		if err != nil {
			return nil, 0, err
		}
		img.target = t.digest
		main, images = len(images), append(images, img)
	}
	for i := range images {
		images[i].aside = i != main
	}
	return images, main, nil
}

// layers brings and unpacks the layers of an image that are not here, several at once.
func (q *puller) layers(ctx context.Context, img ready) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chain := chainIDs(img.c.RootFS.DiffIDs)
	known := q.known(img)
	missing := make([]bool, len(chain))
	done := make([]chan struct{}, len(chain))
	for i, d := range img.m.Layers {
		done[i] = make(chan struct{})
		missing[i] = !known(i) || !q.in.hasLayer(chain[i])
		if !missing[i] {
			close(done[i])
			q.report(Progress{ID: d.Digest.Short(), Action: "Already exists"})
		} else {
			q.report(Progress{ID: d.Digest.Short(), Action: "Pulling fs layer"})
		}
	}
	// The layers below are started before those above: one that waits for them cannot keep them from a slot.
	slots := make(chan struct{}, max(1, orDefaultInt(q.opts.Downloads, defaultDownloads)))
	var wg sync.WaitGroup
	for i := range chain {
		if !missing[i] {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		job := layerJob{d: img.m.Layers[i], diffID: img.c.RootFS.DiffIDs[i], chain: chain[i], lower: q.lower(ctx, chain[:i], done)}
		if i > 0 {
			job.parent = chain[i-1]
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := q.layer(ctx, job); err != nil {
				cancel(fmt.Errorf("layer %s: %w", job.d.Digest.Short(), err))
				return
			}
			close(done[i])
			q.report(Progress{ID: job.d.Digest.Short(), Action: "Pull complete"})
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func orDefaultInt(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// known returns whether it was verified before that the blob of layer i is what the configuration says. A manifest
// could pair a blob with the diff id of another, both of which are here: what runs would not be what was looked at. A blob
// that was dropped was verified too.
func (q *puller) known(img ready) func(i int) bool {
	type pair struct {
		blob   ref.Digest
		diffID string
	}
	// Of an image that is listed all was verified; a blob that is not here was dropped on purpose.
	if rec, err := q.s.readRecord(string(img.m.Config.Digest)); err == nil && rec.Manifest == img.manifest {
		return func(int) bool { return true }
	}
	wanted := map[pair]bool{}
	chain := chainIDs(img.c.RootFS.DiffIDs)
	for i, d := range img.m.Layers {
		if q.s.hasBlob(d.Digest) || q.s.dropped(d.Digest, chain[i]) {
			wanted[pair{d.Digest, img.c.RootFS.DiffIDs[i]}] = false
		}
	}
	left := len(wanted)
	for _, rec := range q.s.records() {
		if left == 0 {
			break
		}
		other, err := finishManifest(q.in, rec.Manifest, "")
		if err != nil || len(other.m.Layers) != len(other.c.RootFS.DiffIDs) {
			continue
		}
		for i, d := range other.m.Layers {
			p := pair{d.Digest, other.c.RootFS.DiffIDs[i]}
			if found, ok := wanted[p]; ok && !found {
				wanted[p] = true
				left--
			}
		}
	}
	return func(i int) bool { return wanted[pair{img.m.Layers[i].Digest, img.c.RootFS.DiffIDs[i]}] }
}

func (q *puller) report(p Progress) {
	if q.progress != nil {
		q.progress(p)
	}
}

// lower waits for the layers below and returns their directories.
func (q *puller) lower(ctx context.Context, below []string, done []chan struct{}) func() ([]string, error) {
	return func() ([]string, error) {
		dirs := make([]string, len(below))
		for j, chain := range below {
			select {
			case <-done[j]:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			dirs[j] = q.in.layerFS(chain)
		}
		return dirs, nil
	}
}

// layerJob is one layer to be brought.
type layerJob struct {
	d             descriptor
	diffID        string
	chain, parent string
	lower         func() ([]string, error)
}

func (q *puller) layer(ctx context.Context, job layerJob) error {
	err := q.layerOnce(ctx, job)
	// What an earlier pull kept may have been damaged since by a power cut, and of several mirrors one may be. Nothing of
	// it is kept any more: once again from the beginning.
	var wrong *wrongContent
	if errors.As(err, &wrong) {
		if !wrong.kept {
			q.o.Reject(job.d.Digest)
		}
		err = q.layerOnce(ctx, job)
	}
	return err
}

func (q *puller) layerOnce(ctx context.Context, job layerJob) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// First without the lock: the digest may be that of a manifest of this pull, whose lock we have.
	if path, ok := q.in.path(job.d.Digest); ok {
		return q.unpackFile(ctx, job, path)
	}
	g, err := q.s.ingest(ctx, job.d)
	if err != nil {
		return err
	}
	defer g.close()
	if path, ok := q.in.path(job.d.Digest); ok { // somebody brought it while we waited, or it is of two layers
		if q.s.hasBlob(job.d.Digest) {
			_ = state.Remove(g.dir) // who brought it could not, as we had the lock
		}
		g.unlock()
		return q.unpackFile(ctx, job, path)
	}
	q.touched(job.d.Digest)
	path := q.in.blobFile(job.d.Digest)
	fetched := make(chan error, 1)
	go func() { fetched <- g.fetch(ctx, q.o, path, q.downloading(job.d)) }()
	unpackErr := q.in.unpackStream(ctx, job, q.extracting(g))
	if unpackErr != nil && !errors.Is(unpackErr, errdef.ErrInvalid) {
		cancel(unpackErr) // a full disk: more bytes would not help
	}
	// With malformed content the rest is waited for: whether the registry sent what it promised is the better answer.
	if err := <-fetched; err != nil {
		return err
	}
	if unpackErr != nil {
		return unpackErr
	}
	q.in.add(spooled{path, job.d.Digest, job.d.Size})
	return nil
}

func (q *puller) touched(d ref.Digest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ingests == nil {
		q.ingests = map[ref.Digest]bool{}
	}
	q.ingests[d] = true
}

// unpackFile unpacks a layer whose blob is here.
func (q *puller) unpackFile(ctx context.Context, job layerJob, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return q.in.unpackStream(ctx, job, f)
}

const progressEvery = 100 * time.Millisecond

// downloading reports how much of a blob is here.
func (q *puller) downloading(d descriptor) func(int64) {
	if q.progress == nil {
		return func(int64) {}
	}
	var last time.Time
	return func(n int64) {
		if n == d.Size {
			q.progress(Progress{ID: d.Digest.Short(), Action: "Download complete"})
		} else if now := time.Now(); n > 0 && now.Sub(last) >= progressEvery {
			last = now
			q.progress(Progress{ID: d.Digest.Short(), Action: "Downloading", Current: n, Total: d.Size})
		}
	}
}

// extracting reads the ingest and reports how far that is, once there is nothing to say about the download.
func (q *puller) extracting(g *ingest) io.Reader {
	f := &follower{g: g}
	if q.progress == nil {
		return f
	}
	return &extraction{q: q, f: f}
}

type extraction struct {
	q    *puller
	f    *follower
	last time.Time
}

func (e *extraction) Read(p []byte) (int, error) {
	n, err := e.f.Read(p)
	d := e.f.g.d
	if now := time.Now(); e.f.g.complete() && now.Sub(e.last) >= progressEvery {
		e.last = now
		e.q.progress(Progress{ID: d.Digest.Short(), Action: "Extracting", Current: e.f.off, Total: d.Size})
	}
	return n, err
}

// blobFile is where the blob d is put until it is in the store.
func (in *incoming) blobFile(d ref.Digest) string { return filepath.Join(in.blobs, d.Hex()) }

// addVerified gives in a small blob that is known to have the digest d.
func (in *incoming) addVerified(d ref.Digest, data []byte) error {
	if _, ok := in.path(d); ok {
		return nil
	}
	sp := spooled{in.blobFile(d), d, int64(len(data))}
	if err := os.WriteFile(sp.path, data, 0o600); err != nil {
		return err
	}
	in.add(sp)
	return nil
}

// unpackStream unpacks the layer r, in whatever compression; one that is there is only verified.
func (in *incoming) unpackStream(ctx context.Context, job layerJob, r io.Reader) error {
	tar, compression, err := layer.Decompress(&cancelled{ctx, r})
	if err != nil {
		return err
	}
	defer tar.Close()
	if in.hasLayer(job.chain) {
		return verify(tar, job.diffID, compression == layer.Plain && job.diffID == string(job.d.Digest))
	}
	dir, fsDir, err := in.newLayer(in.freshName() + "-" + ref.Digest(job.chain).Hex())
	if err != nil {
		return err
	}
	res, err := layer.Unpack(ctx, fsDir, tar, layer.Options{Lower: job.lower})
	if err == nil && res.DiffID != job.diffID {
		err = errdef.Invalid("the uncompressed content has the digest %s, the configuration says %s", res.DiffID, job.diffID)
	}
	if err != nil {
		return errors.Join(err, state.Remove(dir))
	}
	return in.addLayer(dir, job.chain, job.parent, res)
}
