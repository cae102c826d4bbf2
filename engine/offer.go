package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/registry/serve"
)

// Offer returns the images of this engine as a registry offers them: see package registry/serve. Blobs that were dropped are
// fetched from where they came with what remote says, be it nothing; clients get no more of that than the blobs.
func (e *Engine) Offer(o serve.Options, remote Remote) (http.Handler, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	images := e.images().Offer()
	images.From = e.origins(remote)
	return serve.New(&offer{e, images}, o), nil
}

// Offered returns the names under which an Offer has something, as clients of a registry write them, and one of them with a
// tag, latest if there is one.
func (e *Engine) Offered(ctx context.Context) (names []string, example string, err error) {
	o := &offer{e, e.images().Offer()}
	if names, err = o.Repositories(ctx); err != nil || len(names) == 0 {
		return nil, "", err
	}
	r, err := o.Repository(names[0], "")
	if err != nil {
		return nil, "", err
	}
	tags, err := r.Tags(ctx)
	switch {
	case err != nil || len(tags) == 0: // removed meanwhile
		return names, names[0], nil
	case slices.Contains(tags, ref.DefaultTag):
		return names, names[0] + ":" + ref.DefaultTag, nil
	}
	return names, names[0] + ":" + tags[0], nil
}

// offer names the repositories of a store for clients that know but one registry. A name is that of people, so that
// docker.io/library/app is app, and what comes as app is what hull run app runs; other registries' names have the registry
// before them: ghcr.io/me/app.
type offer struct {
	e *Engine
	o *image.Offer
}

// Repositories leaves out what no client could ask for: registries with a port.
func (o *offer) Repositories(context.Context) ([]string, error) {
	var names []string
	for _, r := range o.o.Repositories() {
		if name := r.FamiliarName(); !strings.ContainsAny(name, ":[") && strings.ToLower(name) == name {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (o *offer) Repository(name, ns string) (serve.Repository, error) {
	if ns != "" {
		name = ns + "/" + name
	}
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	if r.Tag != "" || r.Digest != "" {
		return nil, errdef.Invalid("invalid reference format: %q is no name of a repository", name)
	}
	return &offered{o.o.Repository(r), o.e}, nil
}

// The commands that logs of references name for changes of clients.
const (
	byPush   = "registry push"
	byDelete = "registry delete"
)

// offered is a repository with what its clients do told to those who watch.
type offered struct {
	*image.Repository
	e *Engine
}

func (r *offered) Begin(ctx context.Context) (string, error) {
	id, err := r.Repository.Begin(ctx)
	return id, r.e.uploadError(err)
}

func (r *offered) Resume(ctx context.Context, d ref.Digest) (string, int64, error) {
	id, size, err := r.Repository.Resume(ctx, d)
	return id, size, r.e.uploadError(err)
}

// uploadError says in the registry's words that there are too many uploads.
func (e *Engine) uploadError(err error) error {
	if errors.Is(err, image.ErrTooMany) {
		err = errors.Join(serve.ErrBusy, err)
	}
	return e.storeError(err)
}

func (r *offered) Append(ctx context.Context, id string, at, n int64, body io.Reader) (int64, error) {
	return r.Repository.Append(ctx, id, at, n, body)
}

func (r *offered) PutManifest(ctx context.Context, d ref.Digest, tags []string, mediaType string, data []byte) (ref.Digest, error) {
	put, err := r.Repository.PutManifest(ctx, d, tags, mediaType, data, byPush)
	if err != nil {
		return "", err
	}
	for _, n := range put.Images {
		r.e.imageEvent("load", n.Familiar(), n.Familiar())
	}
	return put.Subject, nil
}

func (r *offered) DeleteTag(ctx context.Context, tag string) error {
	err := r.Repository.DeleteTag(ctx, tag, r.e.deletion())
	_ = r.e.tidyTrash(ctx, nil) // or the next command does
	return err
}

func (r *offered) DeleteManifest(ctx context.Context, d ref.Digest) error {
	err := r.Repository.DeleteManifest(ctx, d, r.e.deletion())
	_ = r.e.tidyTrash(ctx, nil)
	return err
}

// deletion puts what clients delete where rmi puts what people remove.
func (e *Engine) deletion() image.Deletion {
	d := image.Deletion{By: byDelete}
	if limits, on := e.trashLimits(); on {
		var keep time.Duration // nobody is told
		d.Save = e.saveImage(byDelete, "", &limits, &keep)
	}
	return d
}
