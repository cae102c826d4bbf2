package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/network"
)

func networkPath(name string) (string, error) {
	if strings.TrimSpace(name) == "" || name == "." || name == ".." {
		return "", errdef.Invalid("invalid network name: %q", name)
	}
	return "/networks/" + url.PathEscape(name), nil
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) ([]network.Summary, error) {
	q := url.Values{}
	f.query(q)
	var out []network.Summary
	err := c.call(ctx, request{method: http.MethodGet, path: "/networks", query: q}, &out)
	return out, err
}

// NetworkInspect returns what is known of a network, also as the server wrote it.
func (c *Client) NetworkInspect(ctx context.Context, name string) (network.Inspect, json.RawMessage, error) {
	var out network.Inspect
	p, err := networkPath(name)
	if err != nil {
		return out, nil, err
	}
	var raw json.RawMessage
	if err := c.call(ctx, request{method: http.MethodGet, path: p}, &raw); err != nil {
		return out, nil, err
	}
	return out, raw, decode(raw, &out)
}

// NetworkCreate makes a network and returns its id.
func (c *Client) NetworkCreate(ctx context.Context, o network.CreateRequest) (string, error) {
	var out network.CreateResponse
	err := c.call(ctx, request{method: http.MethodPost, path: "/networks/create", json: o}, &out)
	return out.ID, err
}

// NetworkRemove removes a network.
func (c *Client) NetworkRemove(ctx context.Context, name string) error {
	p, err := networkPath(name)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: http.MethodDelete, path: p}, nil)
}
