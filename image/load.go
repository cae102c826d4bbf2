package image

import (
	"context"
	"errors"
	"io"
	"sync"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
)

// Progress tells how far a layer is.
type Progress struct {
	ID      string // short id of the layer
	Action  string // "Loading layer", ...
	Current int64  // bytes
	Total   int64  // bytes; 0 if unknown
}

// LoadOptions are for Load.
type LoadOptions struct {
	Platforms []string       // os/arch[/variant]; none is this machine's, or the only one of an image
	Progress  func(Progress) // may be nil; not called by two goroutines at once
	By        string         // the command, for the log of references; "" is "load"
}

// Loaded is one image that Load brought.
type Loaded struct {
	ID  string
	Ref string // familiar; "" when the archive has no name for it
}

// Load reads an archive as `docker save` writes it, or a tar of an OCI image layout; either plain, gzip, bzip2
// or zstd.
// r need not be seekable. All images of the archive become visible after all have been verified.
func (s *Store) Load(ctx context.Context, r io.Reader, opts LoadOptions) (loaded []Loaded, err error) {
	want, err := parsePlatforms(opts.Platforms)
	if err != nil {
		return nil, err
	}
	in, err := s.receive(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	tar, _, err := layer.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer tar.Close()
	e := in.newEarly(ctx)
	defer e.close()
	progress := oneAtATime(opts.Progress)
	a, err := readArchive(ctx, e, tar, progress)
	if err != nil {
		return nil, err
	}
	images, err := a.images(in, want)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		if err := in.unpack(ctx, img, e, progress); err != nil {
			return nil, err
		}
	}
	if err := in.commit(ctx, orDefault(opts.By, "load"), images); err != nil {
		return nil, err
	}
	for _, img := range images {
		if img.aside {
			continue
		}
		id := string(img.m.Config.Digest)
		for _, r := range img.refs {
			loaded = append(loaded, Loaded{ID: id, Ref: r.Familiar()})
		}
		if len(img.refs) == 0 {
			loaded = append(loaded, Loaded{ID: id})
		}
	}
	return loaded, nil
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// oneAtATime keeps the promise of LoadOptions.Progress.
func oneAtATime(report func(Progress)) func(Progress) {
	if report == nil {
		return nil
	}
	var mu sync.Mutex // held while report runs: it is short and must not call back
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		report(p)
	}
}

// finishManifest reads the manifest d and its configuration.
func finishManifest(in *incoming, d ref.Digest, declared string) (ready, error) {
	data, err := in.read(d, maxManifest)
	if err != nil {
		return ready{}, err
	}
	m, _, err := parseTarget(data, declared)
	if err != nil {
		return ready{}, err
	}
	if m == nil {
		return ready{}, errdef.Invalid("%s is an index within an index", d)
	}
	c, err := readConfig(in, m.Config.Digest)
	return ready{manifest: d, m: m, c: c, target: d}, err
}

func readConfig(in *incoming, d ref.Digest) (*Config, error) {
	data, err := in.read(d, maxConfig)
	if err != nil {
		return nil, err
	}
	return parseConfig(data)
}
