package client

import (
	"context"
	"net/http"
	"net/url"
)

// PushOptions of ImagePush.
type PushOptions struct {
	Tag      string // empty pushes all tags of the repository
	Platform string // os/arch[/variant]: only this image of an index
	Compress string // gzip, zstd or none, for layers that were made there; empty is what its file settles. Only Hull has it
	Auth     string // the value of X-Registry-Auth; empty is none
	Auths    string // for where the name is rewritten to, that of X-Registry-Config
}

// ImagePush has the engine store an image of the repository name at its registry; the answer is a stream of messages.
func (c *Client) ImagePush(ctx context.Context, name string, o PushOptions) (*Messages, error) {
	p, err := imagePath(name, "/push")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	text(q, "tag", o.Tag)
	text(q, "compress", o.Compress)
	if o.Platform != "" {
		j, err := platformJSON(o.Platform)
		if err != nil {
			return nil, err
		}
		q.Set("platform", j)
	}
	auth := o.Auth
	if auth == "" {
		auth = noAuth // Docker's engine wants the header, even with nothing in it
	}
	return c.messages(ctx, request{method: http.MethodPost, path: p, query: q, auth: auth, auths: o.Auths})
}

// noAuth is {} in base64.
const noAuth = "e30="
