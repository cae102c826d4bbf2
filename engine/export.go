package engine

import (
	"context"
	"io"

	"hull/runtime/files"
)

// Export returns a tar of the container's root file system, without what is mounted in it. As long as it is not closed,
// a container that does not run is not started.
func (e *Engine) Export(ctx context.Context, name string) (io.ReadCloser, error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, err
	}
	w, err := e.work(ctx, c, &files.Job{Op: files.OpExport}, nil)
	if err != nil {
		return nil, err
	}
	e.containerEvent(c, "export")
	return w, nil
}
