package engine

import (
	"context"
	"os"

	"hull/image"
	"hull/ref"
)

// OpenBlob opens a blob of size bytes, also one that was dropped: see image.Store.OpenBlob. The caller has a lease of the
// images.
func (e *Engine) OpenBlob(ctx context.Context, d ref.Digest, size int64, o Remote) (*os.File, error) {
	return e.images().OpenBlob(ctx, d, size, e.origins(o), nil)
}

// origins opens the repositories that blobs came from, by the administrator's routes.
func (e *Engine) origins(o Remote) image.Opener {
	o.Peer = nil // those are registries, whoever is pulled from or pushed to
	return func(ctx context.Context, name string) (image.Origin, func(), error) {
		r, err := ref.Parse(name)
		if err != nil {
			return nil, nil, err
		}
		repo, err := e.repository(ctx, r, o, false)
		if err != nil {
			return nil, nil, err
		}
		return repo, repo.Close, nil
	}
}
