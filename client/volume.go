package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/volume"
)

// VolumeCreate makes a volume, or returns the one that has the name.
func (c *Client) VolumeCreate(ctx context.Context, o volume.CreateRequest) (volume.Volume, error) {
	var out volume.Volume
	err := c.call(ctx, request{method: http.MethodPost, path: "/volumes/create", json: o}, &out)
	return out, err
}

// VolumeList lists volumes by name.
func (c *Client) VolumeList(ctx context.Context, f Filters) (volume.ListResponse, error) {
	q := url.Values{}
	f.query(q)
	var out volume.ListResponse
	err := c.call(ctx, request{method: http.MethodGet, path: "/volumes", query: q}, &out)
	return out, err
}

// VolumeInspect returns what is known of a volume, also as the server wrote it.
func (c *Client) VolumeInspect(ctx context.Context, name string) (volume.Volume, json.RawMessage, error) {
	p, err := objectPath("volume", name)
	if err != nil {
		return volume.Volume{}, nil, err
	}
	return inspect[volume.Volume](ctx, c, p, nil)
}

// VolumeRemoveOptions of VolumeRemove.
type VolumeRemoveOptions struct {
	Removal
	Force bool // one that is not there is no failure
}

func (o *VolumeRemoveOptions) query() url.Values {
	q := url.Values{}
	flag(q, "force", o.Force)
	o.Removal.query(q)
	return q
}

// VolumeRemove removes a volume and its data. saved is for how long it can be restored; 0 is not at all.
func (c *Client) VolumeRemove(ctx context.Context, name string, o VolumeRemoveOptions) (saved time.Duration, err error) {
	p, err := objectPath("volume", name)
	if err != nil {
		return 0, err
	}
	return c.remove(ctx, &o.Removal, request{method: http.MethodDelete, path: p, query: o.query()}, nil)
}

// VolumeRemoval is what VolumeRemove would do.
func (c *Client) VolumeRemoval(ctx context.Context, name string, o VolumeRemoveOptions) (Plan, error) {
	p, err := objectPath("volume", name)
	if err != nil {
		return Plan{}, err
	}
	return c.removal(ctx, p, o.query())
}

// VolumePrune removes the volumes that no container has; anonymous ones only, unless the filter all says otherwise.
func (c *Client) VolumePrune(ctx context.Context, f Filters) (volume.PruneReport, error) {
	q := url.Values{}
	f.query(q)
	var out volume.PruneReport
	err := c.call(ctx, request{method: http.MethodPost, path: "/volumes/prune", query: q}, &out)
	return out, err
}
