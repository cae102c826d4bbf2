package client

import (
	"context"
	"net/http"
	"net/url"
)

// CheckedStore is what a check of a store found.
type CheckedStore struct {
	Whole  bool // nothing is damaged, or all is repaired
	Damage []Damage
}

// Damage is one thing that is wrong.
type Damage struct {
	Object, Problem string
	Cure            string // what to do; "" when it is repaired
	Repaired        bool
}

// StoreCheck compares everything in the store with what it should be, and repairs what it can if it is to.
func (c *Client) StoreCheck(ctx context.Context, repair bool) (out CheckedStore, err error) {
	q := url.Values{}
	flag(q, "repair", repair)
	err = c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1/check", query: q}, &out)
	return out, err
}
