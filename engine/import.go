package engine

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"hull/errdef"
	"hull/image"
	"hull/registry"
)

// ImportURL is ImportImage of what an address (http or https) gives.
func (e *Engine) ImportURL(ctx context.Context, address string, o image.ImportOptions) (string, error) {
	if err := e.ready(); err != nil {
		return "", err
	}
	body, err := e.download(ctx, address)
	if err != nil {
		return "", err
	}
	defer body.Close()
	return e.ImportImage(ctx, body, o)
}

// download opens an address that a client named, as root if we are. A client that may say so is root as well; a server
// that sends us elsewhere is not: see registry.Download.
func (e *Engine) download(ctx context.Context, address string) (io.ReadCloser, error) {
	o, err := e.registryOptions(Remote{})
	if err != nil {
		return nil, err
	}
	resp, err := registry.Download(ctx, address, o)
	if err != nil {
		if errdef.Kind(err) == nil {
			err = errdef.As(errdef.ErrUnavailable, err)
		}
		return nil, fmt.Errorf("import: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		kind := errdef.ErrUnavailable
		if resp.StatusCode == http.StatusNotFound {
			kind = errdef.ErrNotFound
		}
		return nil, errdef.As(kind, fmt.Errorf("import %s: the server answers %s", resp.Request.URL.Host, resp.Status))
	}
	return resp.Body, nil
}
