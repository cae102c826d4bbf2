package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"hull/errdef"
)

// objectPath is the path of one network or volume.
func objectPath(kind, name string) (string, error) {
	// "." and ".." would be resolved away as path elements on their way.
	if strings.TrimSpace(name) == "" || name == "." || name == ".." {
		return "", errdef.Invalid("invalid %s name: %q", kind, name)
	}
	return "/" + kind + "s/" + url.PathEscape(name), nil
}

// inspect asks for what is known of one thing, and returns it also as the server wrote it.
func inspect[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, raw json.RawMessage, err error) {
	if err := c.call(ctx, request{method: http.MethodGet, path: path, query: query}, &raw); err != nil {
		return out, nil, err
	}
	return out, raw, decode(raw, &out)
}
