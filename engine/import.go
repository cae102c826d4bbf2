package engine

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"hull/errdef"
	"hull/image"
)

// fetchWait bounds how long a server may take to begin with an answer.
const fetchWait = time.Minute

// ImportURL is ImportImage of what an address (http or https) gives.
func (e *Engine) ImportURL(ctx context.Context, address string, o image.ImportOptions) (string, error) {
	if err := e.ready(); err != nil {
		return "", err
	}
	body, err := fetch(ctx, address)
	if err != nil {
		return "", err
	}
	defer body.Close()
	return e.ImportImage(ctx, body, o)
}

// fetch opens an address. One that stalls is given up by whoever reads, when ctx ends.
func fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("import: %w", err))
	}
	c := http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: fetchWait, TLSHandshakeTimeout: fetchWait, DisableKeepAlives: true,
		DisableCompression: true, // a layer in gzip is that: what decompresses it has bounds
	}}
	resp, err := c.Do(req)
	if err != nil {
		return nil, errdef.As(errdef.ErrUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		kind := errdef.ErrUnavailable
		if resp.StatusCode == http.StatusNotFound {
			kind = errdef.ErrNotFound
		}
		return nil, errdef.As(kind, fmt.Errorf("import %s: the server answers %s", req.URL.Redacted(), resp.Status))
	}
	return resp.Body, nil
}
