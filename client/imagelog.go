package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ImageVersion is what a reference named from some time on.
type ImageVersion struct {
	Ref      string
	N        int // Ref@{N} names it
	Time     time.Time
	By       string // the command
	Target   string // digest; "" when the reference was removed
	ID       string // of the image; "" when nothing of it is left
	Revision string // of its source, as its label says
	Size     int64
	Change   *int64 // of the size since the version before; nil when not known
	Present  bool   // it can be run and returned to
	Pinned   bool
}

// ImageLog returns what ref has named, newest first; the empty ref means all references. At most limit entries, unless
// that is 0.
func (c *Client) ImageLog(ctx context.Context, ref string, limit int) (out []ImageVersion, err error) {
	p := "/images"
	if ref != "" {
		if p, err = imagePath(ref, ""); err != nil {
			return nil, err
		}
	}
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1" + p + "/log", query: q}, &out)
	return out, err
}

// ImageRollback is a reference's return to an earlier version.
type ImageRollback struct {
	Ref          string
	From, To     string // image ids; From is "" when the reference was gone
	Place        string // in the log before the change: @{1}
	Since        time.Time
	AlreadyThere bool
}

// ImageRollback lets ref name what it did at the place to, or before its last change; with dry it only says so.
func (c *Client) ImageRollback(ctx context.Context, ref, to string, dry bool) (out ImageRollback, err error) {
	p, err := imagePath(ref, "/rollback")
	if err != nil {
		return out, err
	}
	q := url.Values{}
	text(q, "to", to)
	flag(q, "dry", dry)
	err = c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1" + p, query: q}, &out)
	return out, err
}

// ImagePin keeps an image whatever becomes of its names.
type ImagePin struct {
	ID     string
	Name   string // it was pinned by
	Reason string
	Time   time.Time
	Size   int64
}

// ImagePin pins the image ref.
func (c *Client) ImagePin(ctx context.Context, ref, reason string) (ImagePin, error) {
	q := url.Values{}
	text(q, "reason", reason)
	return c.pin(ctx, http.MethodPost, ref, q)
}

// ImageUnpin ends the pin of the image ref.
func (c *Client) ImageUnpin(ctx context.Context, ref string) (ImagePin, error) {
	return c.pin(ctx, http.MethodDelete, ref, nil)
}

func (c *Client) pin(ctx context.Context, method, ref string, q url.Values) (out ImagePin, err error) {
	p, err := imagePath(ref, "/pin")
	if err != nil {
		return out, err
	}
	err = c.hull(ctx, request{method: method, path: "/hull/v1" + p, query: q}, &out)
	return out, err
}

// ImagePins lists the pins, the newest first.
func (c *Client) ImagePins(ctx context.Context) (out []ImagePin, err error) {
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/pins"}, &out)
	return out, err
}

// ImageUntag takes names away from the image ref, all of its own if none are given, and returns those that are gone.
func (c *Client) ImageUntag(ctx context.Context, ref string, names []string) ([]string, error) {
	p, err := imagePath(ref, "/untag")
	if err != nil {
		return nil, err
	}
	var out struct{ Untagged []string }
	err = c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1" + p, query: url.Values{"name": names}}, &out)
	return out.Untagged, err
}
