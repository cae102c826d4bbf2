package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Removal is how things are removed that could be restored. Engines that have no trash do not look at it.
type Removal struct {
	Now   bool   // for good, past the trash
	Batch string // the same for all that is to be restored together
}

func (r *Removal) query(q url.Values) {
	if r.Now {
		q.Set("trash", "0")
	}
}

// batchHeader is the same in all requests of one command.
const batchHeader = "Hull-Batch"

// savedHeader is how long what was removed can be restored.
const savedHeader = "Hull-Undo"

// remove makes a request that removes something.
func (c *Client) remove(ctx context.Context, o *Removal, r request, out any) (saved time.Duration, err error) {
	r.batch = o.Batch
	r.header = func(h http.Header) { saved, _ = time.ParseDuration(h.Get(savedHeader)) }
	err = c.call(ctx, r, out)
	return saved, err
}

// Plan is what a removal or a prune would take.
type Plan struct {
	Items          []PlanItem
	SpaceReclaimed int64
}

// PlanItem is one thing that would go. Kind is container, volume, reference, image, layer, blobs or trash.
type PlanItem struct {
	Kind, ID, Name string
	Size           int64
}

// removal asks what the removal of the thing at path would take.
func (c *Client) removal(ctx context.Context, path string, q url.Values) (out Plan, err error) {
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1" + path + "/removable", query: q}, &out)
	return out, err
}

// Trashed is one thing in the trash.
type Trashed struct {
	Number         int
	Kind, ID, Name string
	Size           int64 // bytes, -1 when that is not known
	Removed        time.Time
	Expires        time.Time
	By             string // the command that removed it
	Damaged        string // why it can only be removed for good
}

// TrashList lists what is in the trash, the last removal first; only what the names are of, if there are any.
func (c *Client) TrashList(ctx context.Context, names []string) (out []Trashed, err error) {
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/trash", query: url.Values{"name": names}}, &out)
	return out, err
}

// TrashEmpty removes for good what the names are of, or everything, and returns what is gone.
func (c *Client) TrashEmpty(ctx context.Context, names []string) (out []Trashed, err error) {
	err = c.hull(ctx, request{method: http.MethodDelete, path: "/hull/v1/trash", query: url.Values{"name": names}}, &out)
	return out, err
}

// Restored is one thing that came back from the trash.
type Restored struct {
	Kind, ID, Name string
	Notes          []string // what is not as it was
	Failed         string   // why it did not come back
}

// TrashRestore brings back what is called name, under the name as unless that is empty; with an empty name all that the
// last command removed.
func (c *Client) TrashRestore(ctx context.Context, name, as string) (out []Restored, err error) {
	q := url.Values{}
	text(q, "name", name)
	text(q, "as", as)
	err = c.hull(ctx, request{method: http.MethodPost, path: "/hull/v1/trash/restore", query: q}, &out)
	return out, err
}
