package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
)

// ImportOptions are for Import.
type ImportOptions struct {
	Ref      string   // name of the new image; "" leaves it without
	Message  string   // comment of the new image
	Changes  []string // Dockerfile instructions: CMD, ENV, USER, ...
	Platform string   // os/arch[/variant]; "" is this machine's
	Progress func(Progress)
	By       string // the command, for the log of references; "" is "import"
}

// Import makes an image of one layer from the tar of a root file system (plain, gzip, bzip2 or
// zstd); returns its id.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ImportOptions) (id string, err error) {
	p, err := parsePlatform(opts.Platform)
	if err != nil {
		return "", err
	}
	now := time.Now().UTC()
	c := &Config{Created: &now, OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, Comment: opts.Message}
	if err := c.Run.Change(opts.Changes); err != nil {
		return "", err
	}
	refs, err := newRefs(opts.Ref, "import")
	if err != nil {
		return "", err
	}
	in, err := s.receive(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	l, res, err := in.importLayer(ctx, r, nil, opts.Progress)
	if err != nil {
		return "", err
	}
	c.RootFS = RootFS{Type: "layers", DiffIDs: []string{res.DiffID}}
	c.History = []History{{Created: &now, Comment: opts.Message}}
	return in.conclude(ctx, c, []descriptor{l}, refs, orDefault(opts.By, "import"))
}

// importLayer unpacks r, over the layers below with these diff ids, and keeps its bytes as a blob, in one go.
func (in *incoming) importLayer(ctx context.Context, r io.Reader, below []string, progress func(Progress)) (descriptor, layer.Result, error) {
	none := func(err error) (descriptor, layer.Result, error) { return descriptor{}, layer.Result{}, err }
	// An image has no type for a layer in bzip2: that is kept uncompressed.
	br := bufio.NewReaderSize(&metered{r: &cancelled{ctx, r}, report: progress}, 64<<10)
	head, _ := br.Peek(8)
	var src io.Reader = br
	if c, err := layer.Detect(head); err != nil {
		return none(err)
	} else if c == layer.Bzip2 {
		z, _, err := layer.Decompress(br)
		if err != nil {
			return none(err)
		}
		defer z.Close()
		src = z
	}
	raw, w := io.Pipe()
	defer raw.Close()
	type result struct {
		sp  spooled
		err error
	}
	done := make(chan result, 1)
	path := in.tempBlob()
	go func() { // ends when w is closed, which happens below in all cases
		sp, err := spool(path, raw)
		raw.CloseWithError(err)
		done <- result{sp, err}
	}()
	dir, fsDir, err := in.newLayer("0")
	if err != nil {
		w.CloseWithError(err)
		<-done
		return none(err)
	}
	tee := io.TeeReader(src, w)
	tar, compression, err := layer.Decompress(tee)
	var res layer.Result
	if err == nil {
		// The digest of what is not compressed is that of the blob.
		res, err = layer.Unpack(ctx, fsDir, tar, layer.Options{NoDigest: compression == layer.Plain && src == io.Reader(br)})
		tar.Close()
	}
	switch {
	case errors.Is(err, errdef.ErrInvalid) && res.Entries == 0:
		err = errdef.As(errdef.ErrInvalid, fmt.Errorf("not the archive of a root file system (%w): %s", err, acceptedRoot))
	case err == nil && res.Entries == 0:
		err = errdef.Invalid("the archive is empty or not a tar: %s", acceptedRoot)
	}
	if err == nil { // what the decompressor did not need is part of the blob
		_, err = io.Copy(io.Discard, tee)
	}
	w.CloseWithError(err)
	blob := <-done
	if err != nil {
		return none(err)
	}
	if blob.err != nil {
		return none(blob.err)
	}
	if res.DiffID == "" {
		res.DiffID = string(blob.sp.digest)
	}
	in.add(blob.sp)
	chains := chainIDs(append(slices.Clone(below), res.DiffID))
	chain, parent := chains[len(below)], ""
	if len(below) > 0 {
		parent = chains[len(below)-1]
	}
	if in.hasLayer(chain) {
		res.Size = 0
		if l, err := in.s.readLayer(chain); err == nil {
			res.Size = l.Size
		}
	} else if err := in.addLayer(dir, chain, parent, res); err != nil {
		return none(err)
	}
	t, err := layerType(compression)
	return descriptor{MediaType: t, Digest: blob.sp.digest, Size: blob.sp.size}, res, err
}

// compose makes the blobs of configuration and manifest.
func (in *incoming) compose(c *Config, layers []descriptor) (ready, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return ready{}, err
	}
	config, err := in.addBytes(data)
	if err != nil {
		return ready{}, err
	}
	config.MediaType = typeConfig
	m := &manifest{SchemaVersion: 2, MediaType: typeManifest, Config: config, Layers: layers}
	if data, err = json.Marshal(m); err != nil {
		return ready{}, err
	}
	d, err := in.addBytes(data)
	return ready{manifest: d.Digest, m: m, c: c, target: d.Digest}, err
}

// conclude makes the image of configuration and layers, and gives it its references; returns its id.
func (in *incoming) conclude(ctx context.Context, c *Config, layers []descriptor, refs []ref.Ref, by string) (id string, err error) {
	img, err := in.compose(c, layers)
	if err != nil {
		return "", err
	}
	img.refs = refs
	if err := in.commit(ctx, by, []ready{img}); err != nil {
		return "", err
	}
	return string(img.m.Config.Digest), nil
}

func layerType(c layer.Compression) (string, error) {
	switch c {
	case layer.Plain:
		return typeLayer, nil
	case layer.Gzip:
		return typeLayer + "+gzip", nil
	case layer.Zstd:
		return typeLayer + "+zstd", nil
	}
	return "", errdef.Unavailable("layers of images are not compressed in that way")
}

// layerTypeOf looks into the file path.
func layerTypeOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	c, err := layer.Detect(head[:n])
	if err != nil {
		return "", err
	}
	return layerType(c)
}
