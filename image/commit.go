package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// incoming is an image, or several, on the way into the store. Everything is made under temporary names; commit
// then lets it appear in this order, each step after the one before is on disk:
//
//	blobs and layers  →  images/<id>  →  refs
//
// Whoever is killed leaves garbage that the next sweep removes, never an image that is listed and not whole.
type incoming struct {
	s      *Store
	lease  *state.Locked
	blobs  string // a temporary directory below blobs/
	layers string // a temporary directory below layers/
	from   string // the repository that everything came from; "" when it was none
	marked bool   // there may be garbage when it is done: see expectGarbage

	mu    sync.Mutex // protects the following
	count int        // of names given
	files map[ref.Digest]spooled
	trees map[string]string // chain id -> directory below layers
	sizes map[string]int64  // chain id -> bytes of regular files
}

func (s *Store) receive(ctx context.Context) (*incoming, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	in := &incoming{
		s: s, lease: lease,
		blobs:  filepath.Join(s.blobsDir(), state.TempName()),
		layers: filepath.Join(s.layersDir(), state.TempName()),
		files:  map[ref.Digest]spooled{}, trees: map[string]string{}, sizes: map[string]int64{},
	}
	// in.layers is first to come and last to go: it is the mark of expectGarbage.
	if err := errors.Join(os.Mkdir(in.layers, 0o700), os.Mkdir(in.blobs, 0o700)); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// close removes what commit has not moved away, and what others left who were killed.
func (in *incoming) close() error {
	err := state.Remove(in.blobs)
	if !in.marked {
		err = errors.Join(err, state.Remove(in.layers))
	}
	in.lease.Unlock()
	_ = in.s.repair(context.Background()) // the next command tries again
	return err
}

// tempBlob returns a fresh file name.
func (in *incoming) tempBlob() string { return filepath.Join(in.blobs, in.freshName()) }

func (in *incoming) freshName() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.count++
	return strconv.Itoa(in.count)
}

// add gives in a finished file.
func (in *incoming) add(sp spooled) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if old, ok := in.files[sp.digest]; ok {
		if old.path != sp.path {
			os.Remove(sp.path)
		}
		return
	}
	in.files[sp.digest] = sp
}

// addBytes gives in a small blob.
func (in *incoming) addBytes(data []byte) (descriptor, error) {
	sp := spooled{in.tempBlob(), ref.Digest(sumOf(data)), int64(len(data))}
	if err := os.WriteFile(sp.path, data, 0o600); err != nil {
		return descriptor{}, err
	}
	in.add(sp)
	return descriptor{Digest: sp.digest, Size: sp.size}, nil
}

// path returns where the blob d is: among what came, or in the store already.
func (in *incoming) path(d ref.Digest) (string, bool) {
	in.mu.Lock()
	sp, ok := in.files[d]
	in.mu.Unlock()
	if ok {
		return sp.path, true
	}
	return in.s.blobPath(d), in.s.hasBlob(d)
}

// read returns the content of the small blob d, verified.
func (in *incoming) read(d ref.Digest, limit int64) ([]byte, error) {
	path, ok := in.path(d)
	if !ok {
		return nil, errdef.Invalid("the archive lacks the blob %s", d)
	}
	data, err := state.Read(path, limit)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	return data, checkSum(d, data)
}

// newLayer returns a fresh directory to unpack a layer into.
func (in *incoming) newLayer(name string) (dir, fsDir string, err error) {
	dir = filepath.Join(in.layers, name)
	fsDir = filepath.Join(dir, "fs")
	return dir, fsDir, errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(fsDir, 0o755), os.Chmod(fsDir, 0o755))
}

// addLayer gives in the unpacked layer in dir.
func (in *incoming) addLayer(dir, chain, parent string, res layer.Result) error {
	data, err := json.Marshal(layerRecord{DiffID: res.DiffID, Parent: parent, Size: res.Size})
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.trees[chain] = dir
	in.sizes[chain] = res.Size
	return state.Write(filepath.Join(dir, layerFile), data)
}

// layerFile holds what is known of an unpacked layer.
const layerFile = "layer.json"

type layerRecord struct {
	DiffID string `json:"diffID"`
	Parent string `json:"parent,omitempty"` // chain id of the layers below
	Size   int64  `json:"size"`             // bytes of regular files
}

func (s *Store) readLayer(chain string) (layerRecord, error) {
	data, err := state.Read(filepath.Join(s.layerPath(chain), layerFile), 4096)
	if err != nil {
		return layerRecord{}, err
	}
	var l layerRecord
	if err := json.Unmarshal(data, &l); err != nil {
		return layerRecord{}, errdef.As(errdef.ErrCorrupt, fmt.Errorf("layer %s: %w", chain, err))
	}
	return l, nil
}

// unpack brings all layers of an image into the store, each verified against the manifest and the configuration.
func (in *incoming) unpack(ctx context.Context, img ready, e *early, progress func(Progress)) error {
	m, c := img.m, img.c
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return errdef.Invalid("the image has %d layers but %d diff ids", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chain := chainIDs(c.RootFS.DiffIDs)
	// An image is listed only after all it names has been verified: then its layers need not be again. That the manifest is
	// here says nothing: an Offer takes it as it comes.
	rec, err := in.s.readRecord(string(m.Config.Digest))
	known := err == nil && rec.Manifest == img.manifest && in.s.hasBlob(img.manifest)
	done := make([]chan struct{}, len(chain))
	for i := range done {
		done[i] = make(chan struct{})
	}
	// The layers below are started before those above: one that waits for them cannot keep them from a slot.
	slots := make(chan struct{}, unpackers)
	var wg sync.WaitGroup
	for i := range chain {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		lower := func() ([]string, error) {
			var dirs []string
			for j := range i {
				select {
				case <-done[j]:
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
				dirs = append(dirs, in.layerFS(chain[j]))
			}
			return dirs, nil
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if in.hasLayer(chain[i]) && known && (in.s.hasBlob(m.Layers[i].Digest) || in.s.dropped(m.Layers[i].Digest, chain[i])) {
				close(done[i])
				return
			}
			if err := in.unpackLayer(ctx, i, m.Layers[i], c.RootFS.DiffIDs[i], chain, lower, e, progress); err != nil {
				cancel(fmt.Errorf("layer %d: %w", i, err))
				return
			}
			close(done[i])
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (in *incoming) layerFS(chain string) string {
	in.mu.Lock()
	defer in.mu.Unlock()
	if dir, ok := in.trees[chain]; ok {
		return filepath.Join(dir, "fs")
	}
	return in.s.layerFS(chain)
}

func (in *incoming) hasLayer(chain string) bool {
	in.mu.Lock()
	_, ok := in.trees[chain]
	in.mu.Unlock()
	return ok || unix.Access(in.s.layerFS(chain), unix.F_OK) == nil
}

func (in *incoming) unpackLayer(ctx context.Context, i int, d descriptor, diffID string, chain []string, lower func() ([]string, error), e *early, progress func(Progress)) error {
	path, ok := in.path(d.Digest)
	if !ok {
		return errdef.Invalid("the archive lacks the blob %s", d.Digest)
	}
	parent := ""
	if i > 0 {
		parent = chain[i-1]
	}
	if dir, res, ok := e.take(ctx, d.Digest, diffID); ok {
		if in.hasLayer(chain[i]) {
			return nil // it is verified, and goes with all that is left of us
		}
		res.DiffID = diffID
		return in.addLayer(dir, chain[i], parent, res)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	tar, compression, err := layer.Decompress(&metered{r: f, id: ref.Digest(chain[i]).Short(), total: st.Size(), report: progress})
	if err != nil {
		return err
	}
	defer tar.Close()
	if in.hasLayer(chain[i]) { // in another compression
		return verify(tar, diffID, compression == layer.Plain && diffID == string(d.Digest))
	}
	dir, fsDir, err := in.newLayer(strconv.Itoa(i) + "-" + ref.Digest(chain[i]).Hex())
	if err != nil {
		return err
	}
	res, err := layer.Unpack(ctx, fsDir, tar, layer.Options{Lower: lower})
	if err != nil {
		return err
	}
	if res.DiffID != diffID {
		return errdef.Invalid("the uncompressed content has the digest %s, the configuration says %s", res.DiffID, diffID)
	}
	return in.addLayer(dir, chain[i], parent, res)
}

// verify compares the uncompressed stream r with its digest.
func verify(r io.Reader, diffID string, known bool) error {
	if known {
		return nil
	}
	h := newHash("")
	if _, err := io.Copy(h, io.LimitReader(r, layer.DefaultBytes)); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); got != diffID {
		return errdef.Invalid("the uncompressed content has the digest %s, the configuration says %s", got, diffID)
	}
	return nil
}

// size is the sum of the layers' sizes.
func (in *incoming) size(chain []string) (int64, error) {
	var sum int64
	for _, c := range chain {
		in.mu.Lock()
		n, ok := in.sizes[c]
		in.mu.Unlock()
		if !ok {
			l, err := in.s.readLayer(c)
			if err != nil {
				return 0, err
			}
			n = l.Size
		}
		sum += n
	}
	return sum, nil
}

// ready is an image all of whose parts are in incoming or in the store.
type ready struct {
	manifest ref.Digest
	m        *manifest
	c        *Config
	target   ref.Digest // what references shall name
	refs     []ref.Ref
	instead  ref.Digest // a manifest of the same image, whose place this one takes under every tag; refs is not used
	aside    bool       // another platform's part of an index: kept, but no image of its own in lists
}

// commit lets the images appear. After it has returned nil they survive a power cut. needed are the blobs that
// become visible; whatever else came is dropped.
func (in *incoming) commit(ctx context.Context, by string, images []ready) error {
	keep := map[ref.Digest]bool{}
	for _, img := range images {
		keep[img.manifest], keep[img.target], keep[img.m.Config.Digest] = true, true, true
		for _, l := range img.m.Layers {
			keep[l.Digest] = true
		}
	}
	// What is not kept need not be written out. (A file may be renamed under a digest only once it is on disk.)
	for d, sp := range in.files {
		if !keep[d] {
			os.Remove(sp.path)
			delete(in.files, d)
		}
	}
	if len(in.files)+len(in.trees) > 0 {
		if err := state.SyncTree(in.layers); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx) // from here on things become visible: go through with it
	if err := in.publish(); err != nil {
		return err
	}
	return in.s.update(ctx, func() error {
		for _, img := range images {
			if img.instead != "" {
				if err := in.replace(by, img); err != nil {
					return err
				}
				continue
			}
			if !img.aside {
				if err := in.record(img); err != nil {
					return err
				}
			}
			for _, r := range img.refs {
				if err := in.s.changeRef(by, refChange{r, img.target}); err != nil {
					return err
				}
			}
		}
		if in.from == "" {
			return nil
		}
		_ = in.s.addOrigins(in.from, slices.Sorted(maps.Keys(keep))) // a hint: the image is here without it
		return nil
	})
}

// commitBlob lets the blob d appear alone, durably; the caller sees to it that something leads to it.
func (in *incoming) commitBlob(d ref.Digest) error {
	in.mu.Lock()
	sp, ok := in.files[d]
	in.files = map[ref.Digest]spooled{}
	if ok {
		in.files[d] = sp
	}
	in.trees = map[string]string{}
	in.mu.Unlock()
	if !ok { // it is here
		return nil
	}
	f, err := os.Open(sp.path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return in.publish()
}

// publish renames blobs and layers to the names by which images know them. What is there already stays.
func (in *incoming) publish() error {
	dirs := map[string]bool{in.s.layersDir(): true}
	for d, sp := range in.files {
		if in.s.hasBlob(d) {
			continue
		}
		path := in.s.blobPath(d)
		err := os.Rename(sp.path, path)
		if errors.Is(err, fs.ErrNotExist) { // the first of its algorithm
			dirs[in.s.blobsDir()] = true
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Rename(sp.path, path))
		}
		if err != nil {
			return err
		}
		dirs[filepath.Dir(path)] = true
	}
	for chain, dir := range in.trees {
		err := os.Rename(dir, in.s.layerPath(chain))
		if err != nil && !errors.Is(err, fs.ErrExist) { // somebody else unpacked the same
			return err
		}
	}
	for dir := range dirs {
		if err := state.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (in *incoming) record(img ready) error {
	id := string(img.m.Config.Digest)
	if old, err := in.s.readRecord(id); err == nil && in.s.hasBlob(old.Manifest) {
		in.s.Used(id)
		return nil
	}
	return in.writeRecord(img)
}

// replace gives the image another manifest, in its record and under its tags. One that was removed meanwhile stays so.
func (in *incoming) replace(by string, img ready) error {
	if old, err := in.s.readRecord(string(img.m.Config.Digest)); err == nil && old.Manifest == img.instead {
		if err := in.writeRecord(img); err != nil {
			return err
		}
	}
	for r, target := range in.s.refs() {
		if target != img.instead || r.Digest != "" {
			continue
		}
		if err := in.s.changeRef(by, refChange{r, img.target}); err != nil {
			return err
		}
	}
	return nil
}

func (in *incoming) writeRecord(img ready) error {
	size, err := in.size(chainIDs(img.c.RootFS.DiffIDs))
	if err != nil {
		return err
	}
	rec := record{Manifest: img.manifest, Size: size, Labels: img.c.Run.Labels}
	if img.c.Created != nil {
		rec.Created = *img.c.Created
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return state.WriteDurable(in.s.recordPath(string(img.m.Config.Digest)), data)
}

// metered reports how far a reader is, about every half MiB.
type metered struct {
	r      io.Reader
	id     string
	total  int64
	n      int64
	last   int64
	report func(Progress)
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.report != nil && (m.n-m.last >= 512<<10 || err == io.EOF && m.last != m.n) {
		m.last = m.n
		m.report(Progress{ID: m.id, Action: "Loading layer", Current: m.n, Total: m.total})
	}
	return n, err
}
