package engine

import (
	"context"

	"hull/config"
	"hull/errdef"
	"hull/image"
	"hull/ref"
)

// PushOptions are for PushImage.
type PushOptions struct {
	Remote
	Platform string // os/arch[/variant]: only this image of an index; "" is all that are here
	Compress string // gzip, zstd or none: what becomes of layers that lie here as plain tars; "" is what the file settles
	Progress func(image.Progress)
	Done     func(image.Pushed, ref.Ref) // called for each tag that is there; may be nil
}

// PushImage stores an image at its registry. tag is what name lacks; without one all tags that are here are pushed, as in
// Docker's API.
func (e *Engine) PushImage(ctx context.Context, name, tag string, o PushOptions) error {
	if err := e.ready(); err != nil {
		return err
	}
	r, err := reference(name, tag)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return errdef.Invalid("cannot push a digest reference")
	}
	if err := e.bring(ctx, r.Familiar()); err != nil {
		return err
	}
	all := []ref.Ref{r}
	if r.Tag == "" {
		if all = e.images().Tags(r); len(all) == 0 {
			return errdef.NotFound("An image does not exist locally with the tag: %s", r.FamiliarName())
		}
	}
	c, err := e.Config()
	if err != nil {
		return err
	}
	repo, err := e.repository(ctx, r, o.Remote, true)
	if err != nil {
		return err
	}
	defer repo.Close()
	for _, r := range all {
		done, err := e.images().Push(ctx, repo, r, image.PushOptions{
			Platform: o.Platform, Uploads: c.Registry.Uploads, Compress: o.compression(c), Progress: o.Progress, Peer: o.Peer != nil,
			From: e.origins(o.Remote),
		})
		if err != nil {
			return e.storeError(err)
		}
		if o.Done != nil {
			o.Done(done, r)
		}
		e.imageEvent("push", r.Familiar(), r.FamiliarName())
	}
	return nil
}

// compression is what a push compresses by. Another engine gets what is here as it is, unless the person says otherwise: it
// unpacks it at once, and has the same digest then.
func (o *PushOptions) compression(c *config.Config) string {
	switch {
	case o.Compress != "":
		return o.Compress
	case o.Peer != nil:
		return image.CompressNone
	case c.Registry.Compress != "":
		return c.Registry.Compress
	}
	return image.CompressGzip
}
