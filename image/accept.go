package image

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/ref"
)

// Put is what PutManifest made of a manifest.
type Put struct {
	Subject ref.Digest // what it refers to; "" is nothing
	Images  []ref.Ref  // the names of the image that it is; none when it is something else, or no tag names it yet
}

// PutManifest stores a manifest of any kind with the digest d, which the caller has compared with data, and lets tags name
// it. What a tag names and is an image is unpacked and becomes one of the store, from one moment to the next. All else is
// kept as it is: an artifact, an image that cannot be unpacked, and what comes by digest alone, of which nobody knows yet
// whether it is wanted here or only part of an index. That the repository lacks what the manifest names is
// errdef.ErrNotFound. by is the command, for the log of references.
func (r *Repository) PutManifest(ctx context.Context, d ref.Digest, tags []string, mediaType string, data []byte, by string) (put Put, err error) {
	if len(data) > maxManifest {
		return Put{}, errdef.Invalid("the manifest has more than %d bytes", maxManifest)
	}
	c, err := parseContent(data, mediaType)
	if err != nil {
		return Put{}, err
	}
	names := make([]ref.Ref, len(tags))
	for i, tag := range tags {
		if names[i], err = ref.Parse(r.name.Name() + ":" + tag); err != nil {
			return Put{}, err
		}
	}
	in, err := r.s.receive(ctx)
	if err != nil {
		return Put{}, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := r.complete(c); err != nil {
		return Put{}, err
	}
	if err := in.addVerified(d, data); err != nil {
		return Put{}, err
	}
	put.Subject = c.subject
	if len(names) > 0 {
		images, err := r.images(ctx, in, d, c.mediaType)
		if err == nil {
			images[0].refs = names
			put.Images = names
			if err := in.commit(ctx, by, images); err != nil {
				return Put{}, err
			}
			return put, r.s.update(context.WithoutCancel(ctx), func() error { return r.settle(d, c) })
		}
		if !errors.Is(err, errdef.ErrInvalid) && !errors.Is(err, errdef.ErrUnavailable) && !errors.Is(err, errdef.ErrNotFound) {
			return Put{}, err
		}
	}
	return put, r.keep(ctx, in, d, c, names, by)
}

// complete makes sure that the repository has all that the manifest names. What is not meant to be passed on need not be
// there, nor the subject.
func (r *Repository) complete(c *content) error {
	if len(c.blobs)+len(c.manifests) == 0 {
		return nil
	}
	here := r.reach()
	for _, b := range c.blobs {
		if !here.blobs[b.Digest] && !r.hasBlob(b.Digest) || !r.s.hasBlob(b.Digest) {
			if foreign(b.MediaType) {
				continue
			}
			return r.lacks(b.Digest)
		}
	}
	for _, m := range c.manifests {
		if _, ok := here.manifests[m.Digest]; !ok && !r.gave(m.Digest) || !r.s.hasBlob(m.Digest) {
			return r.lacks(m.Digest)
		}
	}
	return nil
}

func (r *Repository) lacks(d ref.Digest) error {
	return errdef.NotFound("%s does not have %s, which the manifest names", r.name.FamiliarName(), d)
}

// foreign says whether a layer is to be had elsewhere only.
func foreign(mediaType string) bool {
	switch mediaType {
	case "application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return true
	}
	return false
}

// images unpacks the image that the manifest or index d is, or holds for this machine. An error of one of errdef's kinds
// says that it is none.
func (r *Repository) images(ctx context.Context, in *incoming, d ref.Digest, mediaType string) ([]ready, error) {
	data, err := in.read(d, maxManifest)
	if err != nil {
		return nil, err
	}
	m, x, err := parseTarget(data, mediaType)
	if err != nil {
		return nil, err
	}
	of, declared := d, mediaType
	if m == nil {
		p, _ := parsePlatform("")
		e := r.s.present(x, p)
		if e == nil {
			return nil, errdef.NotFound("the index has no image")
		}
		of, declared = e.Digest, e.MediaType
	}
	img, err := finishManifest(in, of, declared)
	if err != nil {
		return nil, err
	}
	img.target = d
	if len(img.m.Layers) == 0 || img.c.OS != "" && img.c.OS != "linux" {
		return nil, errdef.Invalid("it is nothing that could be run here")
	}
	return []ready{img}, in.unpack(ctx, img, nil, nil)
}

// settle forgets what is kept of the repository for the sake of d, now that an image leads to it. It is called within
// update.
func (r *Repository) settle(d ref.Digest, c *content) error {
	forget := []string{r.s.pushedManifest(r.name, d)}
	for _, b := range c.blobs {
		forget = append(forget, r.s.pushedBlob(r.name, b.Digest))
	}
	// Of an index, those of its parts that a sweep finds by it.
	m := marks{s: r.s, blobs: map[ref.Digest]bool{}, layers: map[string]bool{}}
	if err := m.target(d, ""); err != nil {
		return err
	}
	for _, e := range c.manifests {
		if m.blobs[e.Digest] {
			forget = append(forget, r.s.pushedManifest(r.name, e.Digest))
		}
	}
	for _, path := range forget {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
	r.s.tidyPushed(r.name)
	return nil
}

// keep stores a manifest as it is, and lets names name it.
func (r *Repository) keep(ctx context.Context, in *incoming, d ref.Digest, c *content, names []ref.Ref, by string) error {
	as, err := json.Marshal(pushedAs{c.mediaType})
	if err != nil {
		return err
	}
	if err := in.commitBlob(d); err != nil {
		return err
	}
	return r.s.update(context.WithoutCancel(ctx), func() error {
		if err := r.s.keepPushed(r.name, r.s.pushedManifest(r.name, d), as); err != nil {
			return err
		}
		for _, n := range names {
			if err := r.s.keepPushed(r.name, r.s.pushedTag(n), []byte(d+"\n")); err != nil {
				return err
			}
			if err := r.s.setRef(by, refChange{ref: n}); err != nil { // an image had the name
				return err
			}
		}
		for _, b := range c.blobs {
			if err := os.Remove(r.s.pushedBlob(r.name, b.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// Deletion says who deletes, and how it can be undone.
type Deletion struct {
	By   string                         // the command, for the log of references
	Save func(*Removed) func(went bool) // as in RemoveOptions, for names of images; may be nil
}

// DeleteTag takes the tag away. What it named stays.
func (r *Repository) DeleteTag(ctx context.Context, tag string, o Deletion) error {
	d, err := r.target(tag)
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.NotFound("tag %s is not known to %s", tag, r.name.FamiliarName())
	}
	if err != nil {
		return err
	}
	return r.remove(ctx, map[ref.Ref]ref.Digest{tagged(r.name, tag): d}, o)
}

// remove takes the names away, unless they name something else by now.
func (r *Repository) remove(ctx context.Context, names map[ref.Ref]ref.Digest, o Deletion) error {
	return r.s.update(ctx, func() error {
		for n, d := range names {
			if now, err := r.s.readRef(n); err == nil && now != d {
				delete(names, n)
			}
		}
		finish := r.save(names, o)
		went := false
		defer func() { finish(went) }()
		for n := range names {
			if err := r.s.changeRef(o.By, refChange{ref: n}); err != nil {
				return err
			}
			went = true
		}
		r.s.tidyPushed(r.name)
		return nil
	})
}

// save tells o.Save which names of an image, all of the same, are going to be taken away. It is called within update.
func (r *Repository) save(names map[ref.Ref]ref.Digest, o Deletion) (finish func(went bool)) {
	finish = func(bool) {}
	if o.Save == nil {
		return finish
	}
	out := &Removed{Refs: map[string]ref.Digest{}}
	for n := range names {
		d, err := r.s.readRef(n)
		if err != nil {
			continue // that of an artifact
		}
		out.ID = r.s.idOf(d)
		out.Refs[n.String()] = d
	}
	rec, err := r.s.readRecord(out.ID)
	if len(out.Refs) == 0 || err != nil {
		return finish
	}
	out.Manifest, out.Size, out.Created, out.Labels = rec.Manifest, rec.Size, rec.Created, rec.Labels
	if f := o.Save(out); f != nil {
		finish = f
	}
	return finish
}

// DeleteManifest takes the manifest d and all its tags out of the repository. An image that this leaves without a name is
// still one of the store, until somebody prunes it: containers may be made of it.
func (r *Repository) DeleteManifest(ctx context.Context, d ref.Digest, o Deletion) error {
	r.forget(d)
	names := map[ref.Ref]ref.Digest{}
	for n := range r.references() {
		if n.target == d {
			names[n.ref] = d
		}
	}
	kept := false
	for e := range r.s.pushedEntries(r.name) {
		kept = kept || e.manifest == d
		if e.tag == "" {
			continue
		}
		if now, err := r.s.readPushedTag(tagged(r.name, e.tag)); err == nil && now == d {
			names[tagged(r.name, e.tag)] = d
		}
	}
	if len(names) == 0 && !kept {
		if _, ok := r.reach().manifests[d]; ok {
			return errdef.Conflict("manifest %s is part of an index: delete that first", d)
		}
		return errdef.NotFound("manifest %s is not known to %s", d, r.name.FamiliarName())
	}
	if err := os.Remove(r.s.pushedManifest(r.name, d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.remove(ctx, names, o); err != nil {
		return err
	}
	return r.s.Collect(ctx)
}

// DeleteBlob takes the blob d out of the repository: errdef.ErrConflict when a manifest names it.
func (r *Repository) DeleteBlob(ctx context.Context, d ref.Digest) error {
	for _, m := range slices.Collect(maps.Keys(r.reach().manifests)) {
		c := r.o.content(m, "")
		if c != nil && slices.ContainsFunc(c.blobs, func(b descriptor) bool { return b.Digest == d }) {
			return errdef.Conflict("blob %s is part of manifest %s: delete that first", d, m)
		}
	}
	err := os.Remove(r.s.pushedBlob(r.name, d))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return errdef.NotFound("blob %s is not known to %s", d, r.name.FamiliarName())
	}
	if err != nil {
		return err
	}
	return r.s.Collect(ctx)
}
