package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"
)

// ExecCreate registers a process to run in a container and returns its id.
func (c *Client) ExecCreate(ctx context.Context, id string, req container.ExecCreateRequest) (string, error) {
	var out container.ExecCreateResponse
	err := c.container(ctx, http.MethodPost, id, "/exec", nil, req, &out)
	return out.ID, err
}

// ExecStart runs a registered process detached.
func (c *Client) ExecStart(ctx context.Context, exec string, tty bool) error {
	req := container.ExecStartRequest{Detach: true, Tty: tty}
	return c.call(ctx, request{method: http.MethodPost, path: execPath(exec, "/start"), json: req}, nil)
}

// ExecAttach runs a registered process with the returned stream as its stdio. The size of a terminal is [height, width].
func (c *Client) ExecAttach(ctx context.Context, exec string, tty bool, size *[2]uint) (*Stream, error) {
	req := container.ExecStartRequest{Tty: tty, ConsoleSize: size}
	return c.hijack(ctx, request{method: http.MethodPost, path: execPath(exec, "/start"), json: req, upgrade: true})
}

// ExecInspect returns what is known of a registered process, its exit code above all.
func (c *Client) ExecInspect(ctx context.Context, exec string) (container.ExecInspectResponse, error) {
	var out container.ExecInspectResponse
	err := c.call(ctx, request{method: http.MethodGet, path: execPath(exec, "/json")}, &out)
	return out, err
}

// ExecResize tells the terminal of a registered process its size.
func (c *Client) ExecResize(ctx context.Context, exec string, width, height int) error {
	return c.call(ctx, request{method: http.MethodPost, path: execPath(exec, "/resize"), query: sizeQuery(width, height)}, nil)
}

func execPath(exec, rest string) string { return "/exec/" + url.PathEscape(exec) + rest }
