package client

import (
	"context"
	"net/http"
	"net/url"
)

// PullOptions of ImagePull.
type PullOptions struct {
	Tag          string // or a digest; empty brings all tags of the repository
	Platform     string // os/arch[/variant]; empty is the engine's
	AllPlatforms bool   // all images of an index; only Hull knows it
	Auth         string // the value of X-Registry-Auth; empty is none
	Auths        string // for mirrors, that of X-Registry-Config
}

// ImagePull has the engine bring an image of the repository name from its registry; the answer is a stream of messages.
func (c *Client) ImagePull(ctx context.Context, name string, o PullOptions) (*Messages, error) {
	q := url.Values{"fromImage": {name}}
	text(q, "tag", o.Tag)
	text(q, "platform", o.Platform)
	flag(q, "allPlatforms", o.AllPlatforms)
	return c.messages(ctx, request{method: http.MethodPost, path: "/images/create", query: q, auth: o.Auth, auths: o.Auths})
}
