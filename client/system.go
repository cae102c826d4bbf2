package client

import (
	"context"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/system"
)

// Pong is what a server says of itself before a version is agreed.
type Pong struct {
	APIVersion string
	OSType     string
	Server     string
	// Hull is true when the server also answers below /hull/v1/.
	Hull bool
}

// Ping asks whether the server is there.
func (c *Client) Ping(ctx context.Context) (Pong, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/_ping", bare: true})
	if err != nil {
		return Pong{}, err
	}
	defer resp.Body.Close()
	h := resp.Header
	return Pong{
		APIVersion: h.Get("Api-Version"),
		OSType:     h.Get("Ostype"),
		Server:     h.Get("Server"),
		Hull:       isHull(h),
	}, nil
}

// ServerVersion returns the versions of the server and its parts.
func (c *Client) ServerVersion(ctx context.Context) (system.VersionResponse, error) {
	var out system.VersionResponse
	err := c.call(ctx, request{method: http.MethodGet, path: "/version"}, &out)
	return out, err
}

// Info returns what the server knows of its host and itself.
func (c *Client) Info(ctx context.Context) (system.Info, error) {
	var out system.Info
	err := c.call(ctx, request{method: http.MethodGet, path: "/info"}, &out)
	return out, err
}

func isHull(h http.Header) bool { return strings.HasPrefix(h.Get("Server"), "Hull/") }
