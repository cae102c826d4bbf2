package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// ContainerStatPath describes a file of a container. A symbolic link is not followed.
func (c *Client) ContainerStatPath(ctx context.Context, id, path string) (container.PathStat, error) {
	resp, err := c.archive(ctx, http.MethodHead, id, url.Values{"path": {path}}, nil)
	if err != nil {
		return container.PathStat{}, err
	}
	defer resp.Body.Close()
	return pathStat(resp.Header)
}

// CopyFromContainer returns a tar of what is at path, and its description. The caller closes it. A tar that could not be
// finished ends in an error.
func (c *Client) CopyFromContainer(ctx context.Context, id, path string) (io.ReadCloser, container.PathStat, error) {
	resp, err := c.archive(ctx, http.MethodGet, id, url.Values{"path": {path}}, nil)
	if err != nil {
		return nil, container.PathStat{}, err
	}
	st, err := pathStat(resp.Header)
	if err != nil {
		resp.Body.Close()
		return nil, st, err
	}
	return resp.Body, st, nil
}

// CopyToContainer extracts a tar into the directory path of a container. A directory is not replaced by something else,
// nor the other way round.
func (c *Client) CopyToContainer(ctx context.Context, id, path string, tar io.Reader) error {
	resp, err := c.archive(ctx, http.MethodPut, id, url.Values{"path": {path}, "noOverwriteDirNonDir": {"true"}}, tar)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *Client) archive(ctx context.Context, method, id string, q url.Values, tar io.Reader) (*http.Response, error) {
	p, err := containerPath(id, "/archive")
	if err != nil {
		return nil, err
	}
	return c.send(ctx, request{method: method, path: p, query: q, stream: tar})
}

func pathStat(h http.Header) (st container.PathStat, err error) {
	b, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return st, errdef.Unavailable("the server does not describe the file: %w", err)
	}
	return st, nil
}

// ContainerExport returns a tar of a container's root file system. The caller closes it.
func (c *Client) ContainerExport(ctx context.Context, id string) (io.ReadCloser, error) {
	p, err := containerPath(id, "/export")
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: p})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ContainerDiff lists how a container's files differ from its image's.
func (c *Client) ContainerDiff(ctx context.Context, id string) ([]container.FilesystemChange, error) {
	var out []container.FilesystemChange
	err := c.container(ctx, http.MethodGet, id, "/changes", nil, nil, &out)
	return out, err
}

// CommitOptions of ContainerCommit.
type CommitOptions struct {
	Name    string // with or without a tag; empty makes an image without a name
	Author  string
	Message string
	Changes []string // instructions of a Dockerfile that describe how to run it
	Running bool     // do not pause the container meanwhile
}

// ContainerCommit makes an image of a container's files and returns its id.
func (c *Client) ContainerCommit(ctx context.Context, id string, o CommitOptions) (string, error) {
	q := url.Values{"container": {id}}
	text(q, "repo", o.Name)
	text(q, "author", o.Author)
	text(q, "comment", o.Message)
	if o.Running {
		q.Set("pause", "0")
	}
	for _, s := range o.Changes {
		q.Add("changes", s)
	}
	var out container.CommitResponse
	err := c.call(ctx, request{method: http.MethodPost, path: "/commit", query: q}, &out)
	return out.ID, err
}
