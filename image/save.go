package image

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
	"hull/state"
)

// Formats of archives, by podman's names. The default is what Docker writes since 25: an OCI image layout in which
// tools that know only manifest.json find their way too.
const (
	FormatDual          = ""
	FormatDockerArchive = "docker-archive" // what Docker wrote from 1.10 to 24, layers uncompressed
	FormatOCIArchive    = "oci-archive"    // an OCI image layout
	FormatOCIDir        = "oci-dir"        // the same, for whoever unpacks it into a directory
	FormatDockerDir     = "docker-dir"     // the files of one image side by side, as skopeo's dir:
)

// SaveOptions are for Save.
type SaveOptions struct {
	Platforms []string // os/arch[/variant]; none means all that are here
	Format    string   // one of the Formats
	From      Opener   // for blobs that were dropped; nil refuses to save them
}

// Outgoing is an archive of images that is about to be written.
type Outgoing struct {
	IDs   []string // of the images in it
	Size  int64    // bytes that WriteTo will write
	ctx   context.Context
	s     *Store
	lease *state.Locked
	files []outFile
	names map[string]bool // of files
	from  Opener
	back  map[ref.Digest]*os.File // what had to be fetched
}

// outFile is a file of the archive: data, or a blob of the store.
type outFile struct {
	name   string
	data   []byte
	blob   ref.Digest
	size   int64
	unpack string // diff id of the layer that blob is to be decompressed to; "" sends it as it is
}

// Save finds the images of the given names; a name without a tag means all tags of that repository, as for Docker. The
// archive is the same, byte for byte, as long as the names lead to the same images; its blobs and manifests are those
// that came. Close it.
func (s *Store) Save(ctx context.Context, names []string, o SaveOptions) (out *Outgoing, err error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	begun := &Outgoing{ctx: ctx, s: s, lease: lease, names: map[string]bool{}, from: o.From}
	out = begun
	defer func() {
		if err != nil {
			begun.Close()
		}
	}()
	list, err := s.toSave(names, o.Platforms)
	if err != nil {
		return nil, err
	}
	for _, img := range list {
		out.IDs = append(out.IDs, string(img.shown().m.Config.Digest))
	}
	if err := out.fetch(list, o.Format == FormatDockerArchive || o.Format == FormatDockerDir); err != nil {
		return nil, err
	}
	switch o.Format {
	case FormatDual:
		err = out.layout(list, true)
	case FormatOCIArchive, FormatOCIDir:
		err = out.layout(list, false)
	case FormatDockerArchive:
		err = out.docker(list)
	case FormatDockerDir:
		err = out.dir(list)
	default:
		err = errdef.Invalid("unknown format %q: want %s, %s, %s or %s", o.Format, FormatDockerArchive, FormatOCIArchive, FormatOCIDir, FormatDockerDir)
	}
	for _, f := range out.files {
		out.Size += 512 + (f.size+511)&^511
	}
	out.Size += 1024
	return out, err
}

// Close lets go of the images.
func (o *Outgoing) Close() error {
	for d, f := range o.back {
		f.Close()
		o.s.DropFetched(d)
	}
	o.lease.Unlock()
	return nil
}

// fetch brings the blobs of layers that were dropped, several at once and before anything is written: an archive that cannot
// be whole is not begun. shown says that only one platform of each image goes out.
func (o *Outgoing) fetch(list []*saving, shown bool) error {
	type absent struct {
		descriptor
		of *saving
	}
	var all []absent
	seen := map[ref.Digest]bool{}
	for _, img := range list {
		manifests := img.manifests
		if shown {
			manifests = manifests[img.best : img.best+1]
		}
		for _, m := range manifests {
			for _, l := range m.m.Layers {
				if !seen[l.Digest] && !o.s.hasBlob(l.Digest) {
					seen[l.Digest] = true
					all = append(all, absent{l, img})
				}
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	o.back = map[ref.Digest]*os.File{}
	var mu sync.Mutex // protects o.back until all have come
	return several(o.ctx, defaultDownloads, all, func(ctx context.Context, b absent) error {
		f, err := o.s.OpenBlob(ctx, b.Digest, b.Size, o.from, nil)
		if err != nil {
			return fmt.Errorf("image %s: %w", b.of.title(), err)
		}
		mu.Lock()
		defer mu.Unlock()
		o.back[b.Digest] = f
		return nil
	})
}

// open reads the blob d from its beginning.
func (o *Outgoing) open(d ref.Digest) (io.ReadCloser, error) {
	if f := o.back[d]; f != nil {
		return io.NopCloser(io.NewSectionReader(f, 0, math.MaxInt64)), nil
	}
	return os.Open(o.s.blobPath(d))
}

func (o *Outgoing) stat(d ref.Digest) (fs.FileInfo, error) {
	if f := o.back[d]; f != nil {
		return f.Stat()
	}
	return os.Stat(o.s.blobPath(d))
}

// saving is one image, of one or several platforms, with its names.
type saving struct {
	target    descriptor
	data      []byte // of target
	manifests []savingManifest
	best      int // of manifests: for those who know one only
	refs      []ref.Ref
}

type savingManifest struct {
	d    descriptor
	data []byte
	m    *manifest
	c    *Config
}

// title is what people call it.
func (i *saving) title() string {
	if len(i.refs) > 0 {
		return i.refs[0].Familiar()
	}
	return short(string(i.shown().m.Config.Digest))
}

func (i *saving) shown() *savingManifest { return &i.manifests[i.best] }

// toSave finds the images, each once, in the order of their names.
func (s *Store) toSave(names, platforms []string) ([]*saving, error) {
	want, err := parsePlatforms(platforms)
	if err != nil {
		return nil, err
	}
	var list []*saving
	at := map[ref.Digest]*saving{}
	for _, n := range names {
		found, err := s.named1(n)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			target := f.target
			if f.id != "" {
				rec, err := s.readRecord(f.id)
				if err != nil {
					return nil, err
				}
				target = rec.Manifest
			}
			img, ok := at[target]
			if !ok {
				if img, err = s.savingOf(target, want); err != nil {
					return nil, incomplete(f, err)
				}
				at[target] = img
				list = append(list, img)
			}
			if r, err := ref.Parse(f.ref); err == nil && r.Digest == "" && !slices.Contains(img.refs, r) {
				img.refs = append(img.refs, r)
			}
		}
	}
	return list, nil
}

// named1 is find for one name, or all tags of a repository. An entry of a log has no name any more.
func (s *Store) named1(name string) ([]found, error) {
	if r, err := ref.Parse(name); err == nil && r.Tag == "" && r.Digest == "" {
		entries, err := os.ReadDir(filepath.Dir(s.refPath(r.Tagged())))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		var all []found
		for _, e := range entries {
			tagged, ok := refOfFile(filepath.Join(r.Registry, r.Repo, e.Name()))
			if !ok || tagged.Tag == "" {
				continue
			}
			target, err := s.readRef(tagged)
			if err != nil {
				return nil, err
			}
			all = append(all, found{ref: tagged.String(), target: target})
		}
		if len(all) > 0 {
			return all, nil
		}
	}
	f, err := s.find(name)
	if _, _, ok, _ := ref.Cut(name); ok {
		f.ref = ""
	}
	return []found{f}, err
}

// savingOf reads what target names, as far as it is here and for the wanted platforms.
func (s *Store) savingOf(target ref.Digest, want platforms) (*saving, error) {
	data, err := s.readBlob(target, maxManifest)
	if err != nil {
		return nil, err
	}
	m, x, err := parseTarget(data, "")
	if err != nil {
		return nil, err
	}
	img := &saving{data: data}
	img.target, _ = s.describe(map[ref.Digest]descriptor{}, target)
	if m != nil {
		c, err := s.configOf(m)
		if err != nil {
			return nil, err
		}
		img.target.Platform = &platform{c.OS, c.Architecture, c.Variant}
		if !want.has(c) {
			return nil, errdef.NotFound("the image is for %s, not for %s", img.target.Platform, want.list[0])
		}
		img.manifests = []savingManifest{{img.target, data, m, c}}
		return img, nil
	}
	mine, _ := parsePlatform("")
	for _, d := range x.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" || !s.hasBlob(d.Digest) {
			continue
		}
		data, err := s.readBlob(d.Digest, maxManifest)
		if err != nil {
			return nil, err
		}
		m, _, err := parseTarget(data, d.MediaType)
		if err != nil {
			return nil, err
		}
		if m == nil {
			return nil, errdef.Invalid("%s is an index within an index", d.Digest)
		}
		c, err := s.configOf(m)
		if err != nil {
			return nil, err
		}
		if !want.has(c) {
			continue
		}
		if d.Platform != nil && d.Platform.suits(mine) {
			img.best = len(img.manifests)
		}
		img.manifests = append(img.manifests, savingManifest{d, data, m, c})
	}
	switch {
	case len(img.manifests) == 0 && want.only:
		return nil, errdef.NotFound("the image for %s is not here", want.list[0])
	case len(img.manifests) == 0:
		return nil, errdef.NotFound("no image of the index %s is here", target)
	case want.only && len(img.manifests) == 1: // whole by itself, without the others of the index
		only := img.manifests[0]
		img.target, img.data = only.d, only.data
	}
	return img, nil
}

func (s *Store) configOf(m *manifest) (*Config, error) {
	data, err := s.readBlob(m.Config.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	return parseConfig(data)
}

// layout writes an OCI image layout, what says what the rest is first: whoever reads it can unpack as it comes. With
// docker there are the files by which Docker's tools find their way.
func (o *Outgoing) layout(list []*saving, docker bool) error {
	top := index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{}}
	for _, img := range list {
		d := descriptor{MediaType: img.target.MediaType, Digest: img.target.Digest, Size: img.target.Size, Platform: img.target.Platform}
		if len(img.refs) == 0 {
			top.Manifests = append(top.Manifests, d)
		}
		for _, r := range img.refs {
			d.Annotations = map[string]string{annotationContainerd: r.String(), annotationRef: r.Tag}
			top.Manifests = append(top.Manifests, d)
		}
	}
	o.add(nameLayout, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	if err := o.addJSON(nameIndex, top); err != nil {
		return err
	}
	if docker {
		err := o.dockerFiles(list, func(m *savingManifest) (string, []string) {
			var layers []string
			for _, l := range m.m.Layers {
				layers = append(layers, blobFile(l.Digest))
			}
			return blobFile(m.m.Config.Digest), layers
		})
		if err != nil {
			return err
		}
	}
	for _, img := range list {
		o.add(blobFile(img.target.Digest), img.data)
		for i := range img.manifests {
			m := &img.manifests[i]
			o.add(blobFile(m.d.Digest), m.data)
			if err := o.addBlob(blobFile(m.m.Config.Digest), m.m.Config.Digest); err != nil {
				return err
			}
		}
	}
	for _, img := range list {
		for i := range img.manifests {
			for _, l := range img.manifests[i].m.Layers {
				if err := o.addBlob(blobFile(l.Digest), l.Digest); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func blobFile(d ref.Digest) string { return "blobs/" + d.Algorithm() + "/" + d.Hex() }

// dockerEntry is an element of manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerFiles writes manifest.json, and the older file repositories, with the file names that names gives. Both know
// one platform of an image.
func (o *Outgoing) dockerFiles(list []*saving, names func(*savingManifest) (config string, layers []string)) error {
	var entries []dockerEntry
	repos := map[string]map[string]string{}
	for _, img := range list {
		config, layers := names(img.shown())
		e := dockerEntry{Config: config, Layers: layers}
		for _, r := range img.refs {
			e.RepoTags = append(e.RepoTags, r.Familiar())
			if len(layers) == 0 {
				continue
			}
			if repos[r.FamiliarName()] == nil {
				repos[r.FamiliarName()] = map[string]string{}
			}
			repos[r.FamiliarName()][r.Tag] = strings.TrimSuffix(path.Base(layers[len(layers)-1]), ".tar")
		}
		entries = append(entries, e)
	}
	if err := o.addJSON(nameDocker, entries); err != nil {
		return err
	}
	return o.addJSON("repositories", repos)
}

// docker writes an archive for tools that know no manifests and no compression: those cannot be kept.
func (o *Outgoing) docker(list []*saving) error {
	err := o.dockerFiles(list, func(m *savingManifest) (string, []string) {
		var layers []string
		for _, d := range m.c.RootFS.DiffIDs {
			layers = append(layers, ref.Digest(d).Hex()+".tar")
		}
		return m.m.Config.Digest.Hex() + ".json", layers
	})
	if err != nil {
		return err
	}
	for _, img := range list {
		m := img.shown()
		if len(m.m.Layers) != len(m.c.RootFS.DiffIDs) {
			return errdef.Invalid("image %s has %d layers but %d diff ids", m.d.Digest, len(m.m.Layers), len(m.c.RootFS.DiffIDs))
		}
		if err := o.addBlob(m.m.Config.Digest.Hex()+".json", m.m.Config.Digest); err != nil {
			return err
		}
		for i, l := range m.m.Layers {
			if err := o.addUnpacked(l.Digest, m.c.RootFS.DiffIDs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// dir writes the files of one image side by side.
func (o *Outgoing) dir(list []*saving) error {
	if len(list) != 1 {
		return errdef.Invalid("the format %s holds one image", FormatDockerDir)
	}
	m := list[0].shown()
	o.add("version", []byte("Directory Transport Version: 1.1\n"))
	o.add(nameDocker, m.data)
	for _, d := range slices.Concat([]descriptor{m.m.Config}, m.m.Layers) {
		if err := o.addBlob(d.Digest.Hex(), d.Digest); err != nil {
			return err
		}
	}
	return nil
}

func (o *Outgoing) add(name string, data []byte) {
	o.addFile(outFile{name: name, data: data, size: int64(len(data))})
}

// addFile adds what the archive has not got yet.
func (o *Outgoing) addFile(f outFile) {
	if !o.names[f.name] {
		o.names[f.name] = true
		o.files = append(o.files, f)
	}
}

func (o *Outgoing) addJSON(name string, v any) error {
	data, err := json.Marshal(v)
	o.add(name, data)
	return err
}

func (o *Outgoing) addBlob(name string, d ref.Digest) error {
	st, err := o.stat(d)
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.NotFound("the blob %s is not in the store: load or pull the image again", d)
	}
	if err != nil {
		return err
	}
	o.addFile(outFile{name: name, blob: d, size: st.Size()})
	return nil
}

// addUnpacked finds out how long the layer is uncompressed: that has to stand before it.
func (o *Outgoing) addUnpacked(d ref.Digest, diffID string) error {
	name := ref.Digest(diffID).Hex() + ".tar"
	if o.names[name] {
		return nil
	}
	if string(d) == diffID {
		return o.addBlob(name, d)
	}
	r, err := o.uncompressed(d)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, &cancelled{o.ctx, r})
	if err != nil {
		return fmt.Errorf("layer %s: %w", d, err)
	}
	o.addFile(outFile{name: name, blob: d, size: n, unpack: diffID})
	return nil
}

// uncompressed opens the layer d.
func (o *Outgoing) uncompressed(d ref.Digest) (io.ReadCloser, error) {
	f, err := o.open(d)
	if err != nil {
		return nil, err
	}
	r, _, err := layer.Decompress(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &closers{r, []io.Closer{r, f}}, nil
}

// closers closes all in order.
type closers struct {
	io.Reader
	all []io.Closer
}

func (c *closers) Close() error {
	var errs []error
	for _, one := range c.all {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// WriteTo writes the archive. What is read from the disk is compared with its digest on the way: an archive that could
// be written is right.
func (o *Outgoing) WriteTo(w io.Writer) (int64, error) {
	count := &counting{w: w}
	tw := tar.NewWriter(count)
	buf := make([]byte, 512<<10)
	for i := range o.files {
		f := &o.files[i]
		hdr := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: f.size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		err := tw.WriteHeader(&hdr)
		if err == nil && f.data != nil {
			_, err = tw.Write(f.data)
		} else if err == nil {
			err = o.copy(tw, f, buf)
		}
		if err != nil {
			return count.n, fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return count.n, tw.Close()
}

func (o *Outgoing) copy(w io.Writer, f *outFile, buf []byte) (err error) {
	var r io.ReadCloser
	want := f.blob
	if f.unpack != "" {
		want = ref.Digest(f.unpack)
		r, err = o.uncompressed(f.blob)
	} else {
		r, err = o.open(f.blob)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	h := newHash(want)
	n, err := io.CopyBuffer(onlyWriter{io.MultiWriter(w, h)}, onlyReader{&cancelled{o.ctx, r}}, buf)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex() || n != f.size {
		return errdef.As(errdef.ErrCorrupt, fmt.Errorf("blob %s is damaged: its content has the digest %s:%s", f.blob, want.Algorithm(), got))
	}
	return nil
}

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
