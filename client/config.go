package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// Configuration is what the engine's file of settings says.
type Configuration struct {
	Path     string    // of the file; "" when there is none
	Problems []string  // what is wrong with it, each with file and line
	Notes    []string  // what it says without effect
	Settings []Setting // all there are; none when there are problems
}

// Setting is one key with what holds.
type Setting struct {
	Key, Value, About string
	Line              int // of the file; 0: the default
}

// Config asks for the engine's own configuration.
func (c *Client) Config(ctx context.Context) (Configuration, error) {
	var out Configuration
	err := c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/config"}, &out)
	return out, err
}

// ConfigCheck asks what the engine would make of the text of a file, which is called name in the answer.
func (c *Client) ConfigCheck(ctx context.Context, name, text string) (Configuration, error) {
	var out Configuration
	err := c.hull(ctx, request{
		method: http.MethodPost, path: "/hull/v1/config/check", query: url.Values{"name": {name}}, stream: strings.NewReader(text),
	}, &out)
	return out, err
}
