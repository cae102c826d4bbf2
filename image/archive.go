package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"hull/errdef"
	"hull/image/layer"
	"hull/ref"
)

// archive is what was read of a tar of images. Names in it are keys of maps and never paths of ours.
type archive struct {
	meta  map[string][]byte  // the files that say what the others are, by name
	files map[string]spooled // all other regular files
	links map[string]string  // docker save before 25 writes a repeated layer as a symbolic link to the first
}

// The names of metadata. Only regular entries count: a link could point at anything (CVE-2026-20613).
const (
	nameDocker = "manifest.json"
	nameIndex  = "index.json"
	nameLayout = "oci-layout"
)

const maxArchiveEntries = 100_000

// What is accepted, for those who came with something else.
const (
	acceptedImages = "hull load takes what docker save writes and OCI image layouts, as tar or directory, plain or compressed by gzip, bzip2 or zstd; hull import takes root file systems"
	acceptedRoot   = "hull import takes the tar of a root file system, plain or compressed by gzip, bzip2 or zstd; hull load takes images"
)

// readArchive reads r to its end, since what the files mean may come last, and spools them.
func readArchive(ctx context.Context, e *early, r io.Reader, progress func(Progress)) (*archive, error) {
	a := &archive{meta: map[string][]byte{}, files: map[string]spooled{}, links: map[string]string{}}
	left := int64(layer.DefaultBytes)
	tr := tar.NewReader(&cancelled{ctx, r})
	for entries := 0; ; entries++ {
		hdr, err := tr.Next()
		if err == io.EOF && entries == 0 {
			return nil, errdef.Invalid("the archive is empty: %s", acceptedImages)
		}
		if err == io.EOF {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && entries == 0 {
			return nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("not an archive of images (%w): %s", err, acceptedImages))
		}
		if err != nil {
			return nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("read archive: %w", err))
		}
		if entries == maxArchiveEntries {
			return nil, errdef.Invalid("the archive has more than %d entries: it is not one of images (hull import takes root file systems)", entries)
		}
		if left -= hdr.Size; left < 0 || hdr.Size < 0 {
			return nil, errdef.Invalid("the archive has more than %d bytes", int64(layer.DefaultBytes))
		}
		if err := a.entry(e, tr, hdr, progress); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
	}
}

func (a *archive) entry(e *early, tr *tar.Reader, hdr *tar.Header, progress func(Progress)) error {
	name := path.Clean(hdr.Name)
	switch hdr.Typeflag {
	case tar.TypeReg:
	case tar.TypeSymlink:
		a.links[name] = path.Join(path.Dir(name), hdr.Linkname)
		return nil
	case tar.TypeLink:
		a.links[name] = path.Clean(hdr.Linkname)
		return nil
	default:
		return nil
	}
	_, again := a.files[name]
	if _, ok := a.meta[name]; ok || again {
		return errdef.Invalid("the archive has %q twice", name)
	}
	switch {
	case name == nameDocker || name == nameIndex || name == nameLayout:
		data, err := io.ReadAll(io.LimitReader(tr, maxManifest+1))
		if err != nil {
			return errdef.As(errdef.ErrInvalid, fmt.Errorf("read archive: %w", err))
		}
		if len(data) > maxManifest {
			return errdef.Invalid("%s in the archive has more than %d bytes", name, maxManifest)
		}
		a.meta[name] = data
		return nil
	case path.Base(name) == "VERSION" || path.Base(name) == "json" || name == "repositories":
		return nil // of Docker before 1.10; the tar reader skips it
	}
	// docker-archives name layers as they like; in a layout the name is the digest.
	d, _ := blobName(name)
	id := d
	if id == "" {
		id = ref.Digest(sumOf([]byte(name)))
	}
	sp, err := e.file(tr, hdr.Size, d, id.Short(), progress)
	if err != nil {
		return fmt.Errorf("read %q from archive: %w", name, err)
	}
	if d.Algorithm() == "sha256" && d != sp.digest {
		return errdef.Invalid("blob %s of the archive has the digest %s", d, sp.digest)
	}
	a.files[name] = sp
	return nil
}

// blobName reads blobs/<algorithm>/<hex>.
func blobName(name string) (ref.Digest, bool) {
	rest, ok := strings.CutPrefix(name, "blobs/")
	if !ok {
		return "", false
	}
	d, err := ref.ParseDigest(strings.Replace(rest, "/", ":", 1))
	return d, err == nil
}

// images finds the images of the archive. A layout goes first: it has the manifests as they were pushed.
func (a *archive) images(in *incoming, want platforms) ([]ready, error) {
	if a.meta[nameLayout] != nil && a.meta[nameIndex] != nil {
		images, err := a.layout(in, want)
		if err != nil || len(images) > 0 {
			return images, err
		}
	}
	if data := a.meta[nameDocker]; data != nil {
		if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
			return a.dir(in, data)
		}
		return a.docker(in, want)
	}
	if a.meta[nameIndex] != nil {
		return nil, want.none()
	}
	return nil, errdef.Invalid("the archive has neither manifest.json nor index.json: not an archive of images (hull import takes root file systems)")
}

// layout reads index.json. Several names of one manifest are entries of their own.
func (a *archive) layout(in *incoming, want platforms) ([]ready, error) {
	top, err := parseIndex(a.meta[nameIndex])
	if err != nil {
		return nil, err
	}
	at := map[ref.Digest][]int{} // several, for several platforms
	var images []ready
	for i := range top.Manifests {
		d := &top.Manifests[i]
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		if _, ok := at[d.Digest]; !ok {
			found, err := a.target(in, d, want)
			if err != nil {
				return nil, err
			}
			at[d.Digest] = nil
			for _, img := range found {
				at[d.Digest] = append(at[d.Digest], len(images))
				images = append(images, img)
			}
		}
		if r, ok := refOf(d); ok && len(at[d.Digest]) > 0 {
			for _, n := range at[d.Digest] {
				if !images[n].aside {
					images[n].refs = append(images[n].refs, r)
				}
			}
		}
	}
	return images, nil
}

// target reads the manifest, or index of manifests, that d describes, and returns the wanted images of it.
func (a *archive) target(in *incoming, d *descriptor, want platforms) ([]ready, error) {
	data, err := in.read(d.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	m, x, err := parseTarget(data, d.MediaType)
	if err != nil {
		return nil, err
	}
	if m != nil {
		img, err := finishManifest(in, d.Digest, d.MediaType)
		if err != nil || !want.has(img.c) {
			return nil, err
		}
		return []ready{img}, nil
	}
	here := a.present(in, x)
	var chosen []*descriptor
	for _, p := range want.list {
		if d := here.choose(p); d != nil && !slices.Contains(chosen, d) {
			chosen = append(chosen, d)
		}
	}
	if len(chosen) == 0 && !want.only && len(here.Manifests) == 1 { // saved for another machine on purpose
		chosen = append(chosen, &here.Manifests[0])
	}
	var images []ready
	for _, c := range chosen {
		img, err := finishManifest(in, c.Digest, c.MediaType)
		if err != nil {
			return nil, err
		}
		img.target = d.Digest
		images = append(images, img)
	}
	mine, _ := parsePlatform("")
	main := slices.Index(chosen, here.choose(mine))
	for i := range images {
		images[i].aside = i != max(0, main)
	}
	return images, nil
}

// present returns the images of x that the archive brings: often not those of all platforms.
func (a *archive) present(in *incoming, x *index) *index {
	here := &index{}
	for _, d := range x.Manifests {
		if _, ok := in.path(d.Digest); ok && d.Annotations["vnd.docker.reference.type"] == "" {
			here.Manifests = append(here.Manifests, d)
		}
	}
	return here
}

// refOf reads the name of an entry of index.json: containerd's annotation is always in full, OCI's may be only a
// tag, or anything.
func refOf(d *descriptor) (ref.Ref, bool) {
	for _, key := range []string{annotationContainerd, annotationRef} {
		name := d.Annotations[key]
		if key == annotationRef && !strings.ContainsAny(name, ":/") {
			continue // a tag of we know not what
		}
		if r, err := ref.Parse(name); err == nil {
			if r = withoutDigest(r.Tagged()); r.Tag != "" || r.Digest == d.Digest {
				return r, true
			}
		}
	}
	return ref.Ref{}, false
}

func withoutDigest(r ref.Ref) ref.Ref {
	if r.Tag != "" {
		r.Digest = ""
	}
	return r
}

// docker reads manifest.json.
func (a *archive) docker(in *incoming, want platforms) ([]ready, error) {
	var entries []dockerEntry
	if err := json.Unmarshal(a.meta[nameDocker], &entries); err != nil {
		return nil, errdef.Invalid("%s in the archive: %w", nameDocker, err)
	}
	var images []ready
	for _, e := range entries {
		img, err := a.dockerImage(in, e.Config, e.Layers)
		if err != nil {
			return nil, err
		}
		if !want.has(img.c) {
			continue
		}
		for _, tag := range e.RepoTags {
			r, err := ref.Parse(tag)
			if err != nil {
				return nil, fmt.Errorf("name of an image in the archive: %w", err)
			}
			// A digest is that of a manifest which such an archive does not have.
			if r = withoutDigest(r.Tagged()); r.Tag != "" {
				img.refs = append(img.refs, r)
			}
		}
		images = append(images, img)
	}
	if len(images) == 0 {
		return nil, want.none()
	}
	return images, nil
}

// dir reads the files of one image side by side, as skopeo's dir: has them: manifest.json is the manifest itself.
func (a *archive) dir(in *incoming, data []byte) ([]ready, error) {
	d, err := in.addBytes(data)
	if err != nil {
		return nil, err
	}
	img, err := finishManifest(in, d.Digest, "")
	return []ready{img}, err
}

// dockerImage makes the manifest that such an archive does not have.
func (a *archive) dockerImage(in *incoming, config string, layers []string) (ready, error) {
	cf, ok := a.files[path.Clean(config)]
	if !ok {
		return ready{}, errdef.Invalid("the archive lacks %q", config)
	}
	// The name of the configuration is the id: it has to be what it says (CVE-2014-9358).
	if name := strings.TrimSuffix(path.Base(config), ".json"); len(name) == 64 && name != cf.digest.Hex() {
		return ready{}, errdef.Invalid("configuration %q of the archive has the digest %s", config, cf.digest)
	}
	if len(layers) > maxLayers {
		return ready{}, errdef.Invalid("the image has %d layers; overlayfs takes %d at most", len(layers), maxLayers)
	}
	c, err := readConfig(in, cf.digest)
	if err != nil {
		return ready{}, err
	}
	m := &manifest{
		SchemaVersion: 2, MediaType: typeManifest,
		Config: descriptor{MediaType: typeConfig, Digest: cf.digest, Size: cf.size},
		Layers: make([]descriptor, len(layers)),
	}
	for i, name := range layers {
		sp, ok := a.file(path.Clean(name))
		if !ok {
			return ready{}, errdef.Invalid("the archive lacks the layer %q", name)
		}
		t, err := layerTypeOf(sp.path)
		if err != nil {
			return ready{}, err
		}
		m.Layers[i] = descriptor{MediaType: t, Digest: sp.digest, Size: sp.size}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ready{}, err
	}
	d, err := in.addBytes(data)
	return ready{manifest: d.Digest, m: m, c: c, target: d.Digest}, err
}

// file returns the regular file called name, by way of one link at most.
func (a *archive) file(name string) (spooled, bool) {
	if sp, ok := a.files[name]; ok {
		return sp, true
	}
	sp, ok := a.files[a.links[name]]
	return sp, ok
}

// cancelled ends a read when ctx does.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
