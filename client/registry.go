package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/registry"
)

// RegistryReport is where a name leads, and what is found there.
type RegistryReport struct {
	Name, Tag string
	Blocked   string         `json:",omitempty"` // why nobody is asked
	Serves    string         `json:",omitempty"` // the host a pull would be served by
	Hosts     []RegistryHost // in the order they are asked
}

// RegistryHost is one place where a name leads.
type RegistryHost struct {
	URL, Why string
	Mirror   bool
	Can      []string       // "pull", "resolve", "push"
	Login    string         // what credentials for it are kept under
	User     string         `json:",omitempty"`
	Proxy    string         `json:",omitempty"`
	Steps    []RegistryStep `json:",omitempty"`
}

// RegistryStep is one thing that was tried.
type RegistryStep struct {
	Name  string
	OK    bool
	Found string
	Took  time.Duration
}

// RegistryRoute says where a name leads, without asking anybody there.
func (c *Client) RegistryRoute(ctx context.Context, name string) (out RegistryReport, err error) {
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/registry/route", query: url.Values{"name": {name}}}, &out)
	return out, err
}

// RegistryAuth are the credentials that a request about a registry carries.
type RegistryAuth struct {
	Auth  string // the value of X-Registry-Auth; empty is none
	Auths string // that of X-Registry-Config, for mirrors
}

// RegistryTest asks everybody there.
func (c *Client) RegistryTest(ctx context.Context, name string, a RegistryAuth) (out RegistryReport, err error) {
	err = c.hull(ctx, request{
		method: http.MethodGet, path: "/hull/v1/registry/test", query: url.Values{"name": {name}}, auth: a.Auth, auths: a.Auths,
	}, &out)
	return out, err
}

// RegistryManifest is a manifest or index as a registry has it.
type RegistryManifest struct {
	Digest, MediaType string
	Manifest          []byte
}

// RegistryManifest asks for the manifest of a name.
func (c *Client) RegistryManifest(ctx context.Context, name string, a RegistryAuth) (out RegistryManifest, err error) {
	err = c.hull(ctx, request{
		method: http.MethodGet, path: "/hull/v1/registry/manifest", query: url.Values{"name": {name}}, auth: a.Auth, auths: a.Auths,
	}, &out)
	return out, err
}

// Search finds repositories; limit 0 is the server's default.
func (c *Client) Search(ctx context.Context, term string, limit int, filters Filters, a RegistryAuth) ([]registry.SearchResult, error) {
	q := url.Values{"term": {term}}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	filters.query(q)
	var out []registry.SearchResult
	err := c.call(ctx, request{method: http.MethodGet, path: "/images/search", query: q, auth: a.Auth, auths: a.Auths}, &out)
	return out, err
}

// Distribution asks what a registry has under a name, also as the server wrote it.
func (c *Client) Distribution(ctx context.Context, name string, a RegistryAuth) (out registry.DistributionInspect, raw json.RawMessage, err error) {
	p, err := imagePath(name, "/json")
	if err != nil {
		return out, nil, err
	}
	p = "/distribution" + p[len("/images"):]
	if err := c.call(ctx, request{method: http.MethodGet, path: p, auth: a.Auth, auths: a.Auths}, &raw); err != nil {
		return out, nil, err
	}
	return out, raw, decode(raw, &out)
}
