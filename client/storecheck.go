package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/jsonstream"
)

// CheckedStore is what a check of a store found.
type CheckedStore struct {
	Whole  bool // nothing is damaged, or all is repaired; and everything could be looked at
	Damage []Damage
}

// Damage is one thing that is wrong.
type Damage struct {
	Object, Problem string
	Cure            string // what to do; "" when it is repaired
	Repaired        bool
	Unchecked       bool // it could not be looked at: nobody knows
}

// StoreCheckOptions of StoreCheck.
type StoreCheckOptions struct {
	Repair   bool
	Auths    string                   // credentials for the registries that a repair fetches from: see EncodeAuths
	Progress func(jsonstream.Message) // may be nil
}

// StoreCheck compares everything in the store with what it should be, and repairs what it can if it is to.
func (c *Client) StoreCheck(ctx context.Context, o StoreCheckOptions) (out CheckedStore, err error) {
	q := url.Values{}
	flag(q, "repair", o.Repair)
	m, err := c.hullMessages(ctx, request{method: http.MethodPost, path: "/hull/v1/check", query: q, auths: o.Auths})
	if err != nil {
		return out, err
	}
	return out, m.result(o.Progress, &out)
}

// RegistryOrigins are the repositories that blobs of the store came from or were pushed to; with dropped only of the blobs
// that are not there any more.
func (c *Client) RegistryOrigins(ctx context.Context, dropped bool) (out []string, err error) {
	q := url.Values{}
	flag(q, "dropped", dropped)
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/registry/origins", query: q}, &out)
	return out, err
}
