package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/payload"
	"hull/ref"
	"hull/state"
)

// BoxRef is the name of the built-in image.
const BoxRef = "box"

func (e *Engine) images() *image.Store {
	s := image.Open(e.root)
	s.Kept, s.Saved = e.layersInUse, e.savedRoots
	return s
}

// imageFor finds the image a container is to be made of, for a platform unless that is "", and keeps its layers in place until the lease is given
// back.
func (e *Engine) imageFor(ctx context.Context, name, platform string) (*state.Locked, *image.Image, error) {
	if name == "" {
		return nil, nil, errdef.Invalid("invalid reference format: no image given")
	}
	lease, err := e.images().Lease(ctx)
	if err != nil {
		return nil, nil, e.storeError(err)
	}
	img, err := e.resolve(ctx, name)
	if err == nil && platform != "" {
		img, err = e.images().ResolveFor(ctx, name, platform)
	}
	if err == nil {
		err = img.Config.Validate()
	}
	if err != nil {
		lease.Unlock()
		return nil, nil, err
	}
	return lease, img, nil
}

// resolve finds an image by name. The built-in one appears in the store when a command first names it.
func (e *Engine) resolve(ctx context.Context, name string) (*image.Image, error) {
	img, err := e.images().Resolve(ctx, name)
	if !errors.Is(err, errdef.ErrNotFound) || !IsBox(name) {
		return img, err
	}
	if err := e.loadBox(ctx); err != nil {
		return nil, err
	}
	return e.images().Resolve(ctx, name)
}

// bring makes sure that the built-in image is in the store if one of names is its.
func (e *Engine) bring(ctx context.Context, names ...string) error {
	for _, name := range names {
		if !IsBox(name) {
			continue
		}
		if _, err := e.resolve(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// IsBox reports whether name is one of the built-in image, which no registry is asked for.
func IsBox(name string) bool {
	r, err := ref.Parse(name)
	return err == nil && r.Tagged().Familiar() == BoxRef+":"+ref.DefaultTag
}

// loadBox unpacks the built-in image into the store. Two at once do the same work twice, harmlessly.
func (e *Engine) loadBox(ctx context.Context) error {
	b, err := payload.Box()
	if err != nil {
		return err
	}
	_, err = e.images().Load(ctx, bytes.NewReader(b), image.LoadOptions{By: "built in"})
	e.opt.Trace.Step("unpack built-in image")
	return e.storeError(err)
}

// Image returns the image called name.
func (e *Engine) Image(ctx context.Context, name string) (*image.Image, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	return e.resolve(ctx, name)
}

// ImageFor is Image for a platform, os/arch[/variant]; "" is the one that a container would be made of.
func (e *Engine) ImageFor(ctx context.Context, name, platform string) (*image.Image, error) {
	if platform == "" {
		return e.Image(ctx, name)
	}
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.bring(ctx, name); err != nil {
		return nil, err
	}
	return e.images().ResolveFor(ctx, name, platform)
}

// ListImages lists the images for which all filters hold, newest first.
func (e *Engine) ListImages(ctx context.Context, filters map[string][]string) ([]image.Summary, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	e.sweepTrash()
	list, err := e.images().List(ctx)
	if err != nil {
		return nil, err
	}
	for key, values := range filters {
		if key == "reference" {
			continue
		}
		test, err := e.imageTest(ctx, key, values)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(i image.Summary) bool { return !test(&i) })
	}
	if values := filters["reference"]; len(values) > 0 { // the last, as it takes names away
		return e.referenced(ctx, list, values)
	}
	return list, nil
}

// imageTest is the test for one filter key: one of the values must hold, but all of them for labels.
func (e *Engine) imageTest(ctx context.Context, key string, values []string) (func(*image.Summary) bool, error) {
	switch key {
	case "label":
		return func(i *image.Summary) bool { return hasLabels(i.Labels, values) }, nil
	case "dangling":
		want := slices.Contains(values, "true") || slices.Contains(values, "1")
		return func(i *image.Summary) bool { return (len(i.RepoTags) == 0) == want }, nil
	case "pinned": // Hull's own
		want := slices.Contains(values, "true") || slices.Contains(values, "1")
		return func(i *image.Summary) bool { return i.Pinned == want }, nil
	case "before", "since":
		var at time.Time
		for _, v := range values {
			img, err := e.images().Resolve(ctx, v)
			if err != nil {
				return nil, err
			}
			at = img.Created
		}
		if key == "before" {
			return func(i *image.Summary) bool { return i.Created.Before(at) }, nil
		}
		return func(i *image.Summary) bool { return i.Created.After(at) }, nil
	}
	return nil, errdef.Invalid("invalid filter '%s'", clip(key))
}

// ImageHistory returns the steps that made an image, newest first.
func (e *Engine) ImageHistory(ctx context.Context, name, platform string) ([]image.HistoryLine, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.bring(ctx, name); err != nil {
		return nil, err
	}
	return e.images().History(ctx, name, platform)
}

// LoadImages reads an archive of docker save or an OCI layout.
func (e *Engine) LoadImages(ctx context.Context, r io.Reader, o image.LoadOptions) ([]image.Loaded, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	e.makeRoom(ctx) // an archive cannot be read twice
	loaded, err := e.images().Load(ctx, r, o)
	for _, l := range loaded {
		e.imageEvent("load", l.ID, l.ID)
	}
	if err == nil {
		e.keepBudget(ctx)
	}
	return loaded, e.storeError(err)
}

// SaveImages prepares an archive of images. Close it. remote is for what was dropped and has to be fetched again.
func (e *Engine) SaveImages(ctx context.Context, names []string, o image.SaveOptions, remote Remote) (*image.Outgoing, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.bring(ctx, names...); err != nil {
		return nil, err
	}
	o.From = e.origins(remote)
	out, err := e.images().Save(ctx, names, o)
	if err != nil {
		return nil, err
	}
	for _, id := range out.IDs {
		e.imageEvent("save", id, id)
	}
	return out, nil
}

// ImportImage makes an image of the tar of a root file system.
func (e *Engine) ImportImage(ctx context.Context, r io.Reader, o image.ImportOptions) (string, error) {
	if err := e.ready(); err != nil {
		return "", err
	}
	e.makeRoom(ctx)
	id, err := e.images().Import(ctx, r, o)
	if err == nil {
		e.imageEvent("import", id, id)
		e.keepBudget(ctx)
	}
	return id, e.storeError(err)
}

// TagImage lets target name the image source.
func (e *Engine) TagImage(ctx context.Context, source, target string) error {
	if err := e.ready(); err != nil {
		return err
	}
	if err := e.bring(ctx, source); err != nil {
		return err
	}
	if err := e.images().Tag(ctx, source, target, "tag "+source); err != nil {
		return e.storeError(err)
	}
	if img, err := e.images().Resolve(ctx, target); err == nil {
		e.imageEvent("tag", img.ID, target)
	}
	return nil
}

// RemoveImageOptions are for RemoveImage.
type RemoveImageOptions struct {
	Force   bool
	NoPrune bool
	Now     bool   // past the trash
	Batch   string // the same for all that one command removes
	// After, for ImageRemoval, are the names that will have been removed before, in this order.
	After []string
}

// RemovedImage is what RemoveImage did.
type RemovedImage struct {
	Deleted []image.Deleted
	Saved   time.Duration // for how long it can be restored; 0 is not at all
}

// RemoveImage removes a reference, and the image with its last one. Images of containers stay unless force is set;
// layers that a container is made of stay in any case.
func (e *Engine) RemoveImage(ctx context.Context, name string, o RemoveImageOptions) (*RemovedImage, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	id := ""
	if img, err := e.images().Resolve(ctx, name); err == nil {
		id = img.ID
	}
	out := new(RemovedImage)
	opts := e.removeImage(&o)
	if l, on := e.trashLimits(); on && !o.Now {
		opts.Save = e.saveImage("rmi", o.Batch, &l, &out.Saved)
	}
	var err error
	out.Deleted, err = e.images().Remove(ctx, name, opts)
	for _, d := range out.Deleted {
		if d.Untagged != "" {
			e.imageEvent("untag", id, d.Untagged)
		} else {
			e.imageEvent("delete", d.Deleted, d.Deleted)
		}
	}
	if err == nil {
		_ = e.tidyTrash(ctx, nil) // or the next command does
	}
	return out, e.storeError(err)
}

func (e *Engine) removeImage(o *RemoveImageOptions) image.RemoveOptions {
	return image.RemoveOptions{Force: o.Force, NoPrune: o.NoPrune, By: "rmi", InUse: e.usersOf, After: o.After}
}

// usersOf returns the containers made from the image id, or with a mount of it.
func (e *Engine) usersOf(id string) []image.User {
	var users []image.User
	_ = e.each(func(c *Container) {
		if c.Image == id || slices.ContainsFunc(c.Mounts, func(m MountPoint) bool { return m.ImageID == id }) {
			users = append(users, image.User{ID: c.ID, Running: c.Running()})
		}
	})
	return users
}

// layersInUse returns the chain ids of all layers that containers are made of or mount. A container whose definition is
// damaged might be made of any layer, so then there is no answer.
// The containers in the trash count, for they may be restored.
func (e *Engine) layersInUse() (map[string]bool, error) {
	kept, err := e.layersInUseBut(nil)
	if err == nil {
		err = e.savedLayers(kept)
	}
	if err == nil {
		err = e.Builds().Keep(kept)
	}
	return kept, err
}

// layersInUseBut is layersInUse without the trash, and without the containers that are as good as gone.
func (e *Engine) layersInUseBut(gone map[string]bool) (map[string]bool, error) {
	kept := make(map[string]bool)
	var unknown []*Container
	err := e.each(func(c *Container) {
		if gone[c.ID] {
			return
		}
		if !c.known() {
			unknown = append(unknown, c)
		}
		for _, l := range c.Layers {
			kept[l] = true
		}
		for _, m := range c.Mounts {
			for _, l := range m.Layers {
				kept[l] = true
			}
		}
	})
	if err == nil {
		err = e.unknown(unknown, "layers")
	}
	return kept, err
}
