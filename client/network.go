package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/network"
)

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
	p, err := objectPath("network", name)
	if err != nil {
		return network.Inspect{}, nil, err
	}
	return inspect[network.Inspect](ctx, c, p, nil)
}

// NetworkCreate makes a network and returns its id.
func (c *Client) NetworkCreate(ctx context.Context, o network.CreateRequest) (string, error) {
	var out network.CreateResponse
	err := c.call(ctx, request{method: http.MethodPost, path: "/networks/create", json: o}, &out)
	return out.ID, err
}

// NetworkRemove removes a network.
func (c *Client) NetworkRemove(ctx context.Context, name string) error {
	p, err := objectPath("network", name)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: http.MethodDelete, path: p}, nil)
}
