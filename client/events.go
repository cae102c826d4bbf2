package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/events"
)

// EventsOptions choose events. The times are seconds since 1970 with an optional fraction; empty ones are no bound.
type EventsOptions struct {
	Since, Until string
	Filters      Filters
}

// Events calls f with each event, in the order in which they happened, until the server ends the list or f fails.
func (c *Client) Events(ctx context.Context, o EventsOptions, f func(events.Message) error) error {
	q := url.Values{}
	for k, v := range map[string]string{"since": o.Since, "until": o.Until} {
		if v != "" {
			q.Set(k, v)
		}
	}
	o.Filters.query(q)
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/events", query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var m events.Message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return cause(ctx, nil)
		} else if err != nil {
			return cause(ctx, decodeError(err))
		}
		if err := f(m); err != nil {
			return err
		}
	}
}
