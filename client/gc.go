package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
)

// GCOptions are for GC, as a person writes them: sizes like 20GB, ages like 14d. What is empty the engine's settings say.
type GCOptions struct {
	Keep, UnusedFor, Reflog string
	Drop                    bool // blobs of layers that a registry is known to hold go too
	Dry                     bool // change nothing, only tell
	// Progress is told how far a comparison of blobs is; it may be nil.
	Progress func(jsonstream.Message)
}

// Collected is what a GC removed, or would remove.
type Collected struct {
	Images         []CollectedImage // the least recently used first
	Stay           []struct{ ID, Why string }
	Deleted        []image.DeleteResponse
	Dropped        []DroppedBlob
	SpaceReclaimed int64
	Before, After  int64 // bytes of all layers and blobs
}

// DroppedBlob is the blob of a layer that can be fetched again.
type DroppedBlob struct {
	Digest string
	Size   int64
	From   string // a repository that holds it
}

// CollectedImage is an image that went.
type CollectedImage struct {
	ID       string
	Names    []string
	LastUsed time.Time
	Size     int64 // that nothing else needed
}

// GC removes images by when they were last used, and what nothing needs.
func (c *Client) GC(ctx context.Context, o GCOptions) (out Collected, err error) {
	q := url.Values{}
	for key, value := range map[string]string{"keep": o.Keep, "unused-for": o.UnusedFor, "reflog": o.Reflog} {
		if value != "" {
			q.Set(key, value)
		}
	}
	flag(q, "drop-blobs", o.Drop)
	flag(q, "dry-run", o.Dry)
	req := request{method: http.MethodPost, path: "/hull/v1/gc", query: q}
	if o.Progress == nil {
		err = c.hull(ctx, req, &out)
		return out, err
	}
	flag(q, "progress", true)
	m, err := c.hullMessages(ctx, req)
	if err != nil {
		return out, err
	}
	return out, m.result(o.Progress, &out)
}
