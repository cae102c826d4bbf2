package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/registry"
)

// Auth asks the engine whether a registry takes the credentials. The answer may have an identity token, to be kept
// instead of the password.
func (c *Client) Auth(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	var out registry.AuthResponse
	err := c.call(ctx, request{method: http.MethodPost, path: "/auth", json: a}, &out)
	return out, err
}

// EncodeAuth is what requests about registries carry: the credentials as X-Registry-Auth has them, "" for none.
func EncodeAuth(a registry.AuthConfig) string {
	if a == (registry.AuthConfig{}) {
		return ""
	}
	data, err := json.Marshal(a)
	if err != nil {
		return "" // of texts: it cannot be
	}
	return base64.URLEncoding.EncodeToString(data)
}

// EncodeAuths is the same for several registries, by their names: the value of X-Registry-Config.
func EncodeAuths(m map[string]registry.AuthConfig) string {
	if len(m) == 0 {
		return ""
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ""
	}
	return base64.URLEncoding.EncodeToString(data)
}
