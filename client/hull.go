package client

import (
	"context"
	"net/http"
	"net/url"

	"hull/errdef"
)

// What is below /hull/v1/ only Hull has. Asked of another engine, it is errdef.ErrNotImplemented.

// EventExit tells the engine that a container's process ended and nobody acted on it.
func (c *Client) EventExit(ctx context.Context, id string) error {
	return c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1/events/exit/" + url.PathEscape(id)}, nil)
}

// Outcome is what a boot or a shutdown did with one container.
type Outcome struct {
	ID    string
	Name  string
	Error string `json:",omitempty"`
}

// EventBoot has the engine start what is to run after a boot of its machine.
func (c *Client) EventBoot(ctx context.Context) (out []Outcome, err error) {
	err = c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1/events/boot"}, &out)
	return out, err
}

// EventShutdown has the engine stop every container, because its machine goes down.
func (c *Client) EventShutdown(ctx context.Context) (out []Outcome, err error) {
	err = c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1/events/shutdown"}, &out)
	return out, err
}

func (c *Client) hull(ctx context.Context, r request, out any) error {
	r.bare = true
	return c.notHull(r, c.call(ctx, r, out))
}

func (c *Client) hullMessages(ctx context.Context, r request) (*Messages, error) {
	r.bare = true
	m, err := c.messages(ctx, r)
	return m, c.notHull(r, err)
}

// notHull says so of an engine that does not know the path of r.
func (c *Client) notHull(r request, err error) error {
	if errdef.Kind(err) == errdef.ErrNotFound && err.Error() == "page not found" {
		return errdef.NotImplemented("%s is not Hull, and has no %s", c.name(), r.path)
	}
	return err
}
