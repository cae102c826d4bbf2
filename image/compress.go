package image

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
)

// An image that was made here, or loaded from an archive that is not compressed, has layers that are plain tars. Before it
// is pushed, one with compressed layers takes its place, under all its names: the same configuration, so the same id.
//
//	plain blob  →  compressed blob, manifest  →  images/<id>  →  the names
//
// An image or a layer that a registry is known to hold keeps its digest: others may know it by that.

// Kinds of compression of the layers of an image, by the names that people give them.
const (
	CompressGzip = "gzip" // what every engine reads
	CompressZstd = "zstd" // Docker reads it from version 23 on
	CompressNone = "none"
)

// byCompression marks the line of a log by which an image took the place of itself; see effective.
const byCompression = "compress"

func parseCompression(kind string) (layer.Compression, error) {
	switch kind {
	case "", CompressNone:
		return layer.Plain, nil
	case CompressGzip:
		return layer.Gzip, nil
	case CompressZstd:
		return layer.Zstd, nil
	}
	return layer.Plain, errdef.Invalid("unknown compression %q: want %s, %s or %s", kind, CompressGzip, CompressZstd, CompressNone)
}

// compressing is one image on its way to be compressed.
type compressing struct {
	s        *Store
	in       *incoming
	kind     layer.Compression
	progress func(Progress)
	writers  int
}

// compressed returns what takes the place of the manifest t under its names: t itself when there is nothing to compress in it.
func (q *pusher) compressed(ctx context.Context, t target) (_ target, err error) {
	s := q.s
	if q.compression == layer.Plain || len(s.Origins(t.digest)) > 0 {
		return t, nil
	}
	c, err := s.configOf(t.m)
	if err != nil {
		return target{}, err
	}
	plain := s.plainLayers(t.m, c)
	if len(plain) == 0 {
		return t, nil
	}
	// What is there already is known by its digest, and a registry that cannot be reached says so before the work.
	if has, err := q.o.HasManifest(ctx, t.digest); err != nil || has {
		return t, err
	}
	in, err := s.receive(ctx)
	if err != nil {
		return target{}, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	z := &compressing{s: s, in: in, kind: q.compression, progress: q.progress, writers: orDefaultInt(q.opts.Uploads, defaultUploads)}
	layers, err := z.layers(ctx, t.m.Layers, plain)
	if err != nil {
		return target{}, err
	}
	data, err := recomposed(t, layers, q.compression)
	if err != nil {
		return target{}, err
	}
	d, err := in.addBytes(data)
	if err != nil {
		return target{}, err
	}
	m, _, err := parseTarget(data, "")
	if err != nil {
		return target{}, err
	}
	in.marked = true // what is plain is garbage, unless something else needs it
	if err := in.commit(ctx, byCompression, []ready{{manifest: d.Digest, m: m, c: c, target: d.Digest, instead: t.digest}}); err != nil {
		return target{}, err
	}
	return s.stored(d.Digest, "")
}

// plainLayers are the indexes of the layers that are to be compressed.
func (s *Store) plainLayers(m *manifest, c *Config) []int {
	var plain []int
	for i, l := range m.Layers {
		isPlain := len(m.Layers) == len(c.RootFS.DiffIDs) && string(l.Digest) == c.RootFS.DiffIDs[i]
		if isPlain && compressedType(l.MediaType, layer.Gzip) != l.MediaType && s.hasBlob(l.Digest) && len(s.Origins(l.Digest)) == 0 {
			plain = append(plain, i)
		}
	}
	return plain
}

// layers returns all with the compressed ones in their places, several made at once: what is in memory of each is a window.
func (z *compressing) layers(ctx context.Context, all []descriptor, plain []int) ([]descriptor, error) {
	made := z.known(all, plain)
	var todo []descriptor
	for _, i := range plain {
		same := func(d descriptor) bool { return d.Digest == all[i].Digest }
		if _, ok := made[all[i].Digest]; !ok && !slices.ContainsFunc(todo, same) {
			todo = append(todo, all[i])
		}
	}
	var mu sync.Mutex // protects made
	err := several(ctx, min(z.writers, runtime.GOMAXPROCS(0)), todo, func(ctx context.Context, d descriptor) error {
		kind := z.kind
		sp, err := z.layer(ctx, d, kind)
		if errors.Is(err, layer.ErrDense) {
			kind = layer.Gzip
			sp, err = z.layer(ctx, d, kind)
		}
		if err != nil {
			return fmt.Errorf("compress layer %s: %w", d.Digest.Short(), err)
		}
		z.in.add(sp)
		mu.Lock()
		defer mu.Unlock()
		made[d.Digest] = compressedLayer{sp.digest, sp.size, kind}
		return nil
	})
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w; --compress none sends layers as they are, which needs no space", err)
	}
	if err != nil {
		return nil, err
	}
	all = slices.Clone(all)
	for _, i := range plain {
		l := made[all[i].Digest]
		all[i].MediaType, all[i].Digest, all[i].Size = compressedType(all[i].MediaType, l.kind), l.digest, l.size
	}
	return all, nil
}

// compressedLayer is what takes the place of a plain layer.
type compressedLayer struct {
	digest ref.Digest
	size   int64
	kind   layer.Compression
}

// known finds compressed blobs that other images have of the same layers. Images are listed only after their blobs were
// compared with their diff ids.
func (z *compressing) known(all []descriptor, plain []int) map[ref.Digest]compressedLayer {
	known := map[ref.Digest]compressedLayer{}
	for _, rec := range z.s.records() {
		m, _, err := z.s.manifestOf(rec.Manifest)
		if err != nil {
			continue
		}
		c, err := z.s.configOf(m)
		if err != nil || len(c.RootFS.DiffIDs) != len(m.Layers) {
			continue
		}
		for _, i := range plain {
			j := slices.Index(c.RootFS.DiffIDs, string(all[i].Digest))
			if j < 0 {
				continue
			}
			path := z.s.blobPath(m.Layers[j].Digest)
			st, err := os.Stat(path)
			if err != nil {
				continue
			}
			if t, err := layerTypeOf(path); err == nil && t == compressedType(typeLayer, z.kind) {
				known[all[i].Digest] = compressedLayer{m.Layers[j].Digest, st.Size(), z.kind}
			}
		}
	}
	return known
}

// layer makes the compressed blob of the plain layer, in a file of its own.
func (z *compressing) layer(ctx context.Context, of descriptor, kind layer.Compression) (sp spooled, err error) {
	d := of.Digest
	from, err := os.Open(z.s.blobPath(d))
	if err != nil {
		return spooled{}, err
	}
	defer from.Close()
	sp.path = z.in.tempBlob()
	to, err := os.OpenFile(sp.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return spooled{}, err
	}
	defer func() {
		if err = errors.Join(err, to.Close()); err != nil {
			os.Remove(sp.path)
		}
	}()
	out := &hashing{w: to, h: newHash("")}
	b := bufio.NewWriterSize(out, 256<<10) // a compressor writes hundreds of bytes at once
	w, err := layer.Compress(b, kind)
	if err != nil {
		return spooled{}, err
	}
	plain := newHash(d)
	r := &reporting{r: &cancelled{ctx, from}, id: d.Short(), total: of.Size, report: z.progress}
	r.tell("Compressing")
	_, err = io.CopyBuffer(onlyWriter{io.MultiWriter(w, plain)}, onlyReader{r}, make([]byte, 256<<10))
	if err == nil {
		if err = w.Close(); err == nil {
			err = b.Flush()
		}
	}
	if err != nil {
		return spooled{}, err
	}
	if got := hex.EncodeToString(plain.Sum(nil)); got != d.Hex() { // the disk may have changed it
		return spooled{}, errdef.As(errdef.ErrCorrupt, fmt.Errorf("blob %s is damaged: its content has the digest %s:%s", d, d.Algorithm(), got))
	}
	r.n = 0
	r.tell("Compressed")
	sp.digest, sp.size = ref.Digest("sha256:"+hex.EncodeToString(out.h.Sum(nil))), out.n
	return sp, nil
}

// hashing hashes and counts what is written.
type hashing struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (o *hashing) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.h.Write(p[:n])
	o.n += int64(n)
	return n, err
}

// reporting tells how much of a layer has been compressed.
type reporting struct {
	r      io.Reader
	id     string
	n      int64
	total  int64
	last   time.Time
	report func(Progress)
}

func (r *reporting) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	if now := time.Now(); n > 0 && now.Sub(r.last) >= progressEvery {
		r.last = now
		r.tell("Compressing")
	}
	return n, err
}

func (r *reporting) tell(action string) {
	if r.report == nil {
		return
	}
	p := Progress{ID: r.id, Action: action}
	if r.n > 0 {
		p.Current, p.Total = r.n, r.total
	}
	r.report(p)
}

const (
	typeDockerLayer = "application/vnd.docker.image.rootfs.diff.tar"
	typeDockerGzip  = typeDockerLayer + ".gzip"
)

// compressedType is the media type of a plain layer when it is compressed. A type that is none of those, one of layers that
// are not to be distributed for example, stays. Docker has no type for zstd that other tools take: see recomposed.
func compressedType(t string, kind layer.Compression) string {
	switch {
	case t == typeLayer && kind == layer.Zstd, t == typeDockerLayer && kind == layer.Zstd:
		return typeLayer + "+zstd"
	case t == typeLayer:
		return typeLayer + "+gzip"
	case t == typeDockerLayer:
		return typeDockerGzip
	}
	return t
}

// recomposed is the manifest t with other layers, and all else that it says, known to us or not. One of Docker's becomes
// OCI's with layers in zstd.
func recomposed(t target, layers []descriptor, kind layer.Compression) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(t.data, &doc); err != nil {
		return nil, err
	}
	var all []map[string]json.RawMessage
	if err := json.Unmarshal(doc["layers"], &all); err != nil {
		return nil, err
	}
	toOCI := kind == layer.Zstd && t.declared == typeDockerManifest
	var errs []error
	set := func(m map[string]json.RawMessage, key string, v any) {
		data, err := json.Marshal(v)
		m[key] = data
		errs = append(errs, err)
	}
	for i, l := range layers {
		if toOCI && strings.HasPrefix(l.MediaType, typeDockerLayer) {
			l.MediaType = typeLayer + strings.Replace(strings.TrimPrefix(l.MediaType, typeDockerLayer), ".", "+", 1)
		}
		set(all[i], "mediaType", l.MediaType)
		set(all[i], "digest", l.Digest)
		set(all[i], "size", l.Size)
	}
	set(doc, "layers", all)
	if toOCI {
		config := t.m.Config
		config.MediaType = typeConfig
		set(doc, "config", config)
		set(doc, "mediaType", typeManifest)
	}
	data, err := json.Marshal(doc)
	return data, errors.Join(append(errs, err)...)
}
