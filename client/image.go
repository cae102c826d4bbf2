package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hull/errdef"

	"github.com/moby/moby/api/types/image"
)

// imagePath escapes a reference, whose slashes stay slashes in the API.
func imagePath(ref, rest string) (string, error) {
	parts := strings.Split(ref, "/")
	for i, p := range parts {
		// A server cleans such elements out of the path, and would then answer another question.
		if p == "" || p == "." || p == ".." {
			return "", errdef.Invalid("invalid reference format: %q", ref)
		}
		parts[i] = url.PathEscape(p)
	}
	return "/images/" + strings.Join(parts, "/") + rest, nil
}

// ImageListOptions of ImageList.
type ImageListOptions struct {
	All     bool
	Filters Filters
	// LastUsed asks Hull to say when each image was last used.
	LastUsed bool
}

// ImageSummary is a line of a list of images: of what the API tells in it, what is shown somewhere. With a thousand images
// reading the rest takes longer than all that the engine does.
type ImageSummary struct {
	ID          string   `json:"Id"`
	RepoTags    []string // "busybox:latest"
	RepoDigests []string // "busybox@sha256:..."
	Created     int64    // seconds since 1970
	Size        int64
	SharedSize  int64 // with other images; -1 is not known
	Containers  int64 // made of it; -1 is not known
	LastUsed    int64 // seconds since 1970; 0 is not known
}

// ImageList lists images, newest first.
func (c *Client) ImageList(ctx context.Context, o ImageListOptions) ([]ImageSummary, error) {
	q := url.Values{}
	flag(q, "all", o.All)
	flag(q, "last-used", o.LastUsed)
	o.Filters.query(q)
	return list[ImageSummary](ctx, c, request{method: http.MethodGet, path: "/images/json", query: q})
}

// ImageInspect returns what is known of an image, also as the server wrote it. The empty platform is the default.
func (c *Client) ImageInspect(ctx context.Context, ref, platform string) (image.InspectResponse, json.RawMessage, error) {
	p, err := imagePath(ref, "/json")
	if err != nil {
		return image.InspectResponse{}, nil, err
	}
	q, err := platformQuery(platform)
	if err != nil {
		return image.InspectResponse{}, nil, err
	}
	return inspect[image.InspectResponse](ctx, c, p, q)
}

// ImageHistory returns the steps that made an image, newest first. The empty platform is the default.
func (c *Client) ImageHistory(ctx context.Context, ref, platform string) (out []image.HistoryResponseItem, err error) {
	p, err := imagePath(ref, "/history")
	if err != nil {
		return nil, err
	}
	q, err := platformQuery(platform)
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, request{method: http.MethodGet, path: p, query: q}, &out)
	return out, err
}

func platformQuery(platform string) (url.Values, error) {
	if platform == "" {
		return nil, nil
	}
	j, err := platformJSON(platform)
	return url.Values{"platform": {j}}, err
}

// ImageTag gives the image ref another name. An empty tag is latest.
func (c *Client) ImageTag(ctx context.Context, ref, repo, tag string) error {
	p, err := imagePath(ref, "/tag")
	if err != nil {
		return err
	}
	q := url.Values{"repo": {repo}}
	text(q, "tag", tag)
	return c.call(ctx, request{method: http.MethodPost, path: p, query: q}, nil)
}

// ImageRemoveOptions of ImageRemove.
type ImageRemoveOptions struct {
	Removal
	Force     bool // even if stopped containers use it or it has several names
	NoPrune   bool // leave untagged parents
	Platforms []string
}

func (o *ImageRemoveOptions) query() (url.Values, error) {
	q := url.Values{}
	flag(q, "force", o.Force)
	flag(q, "noprune", o.NoPrune)
	o.Removal.query(q)
	if err := platformsQuery(q, "platforms", o.Platforms); err != nil {
		return nil, err
	}
	return q, nil
}

// ImageRemove removes a name of an image, and with the last one the image. saved is for how long they can be restored; 0
// is not at all.
func (c *Client) ImageRemove(ctx context.Context, ref string, o ImageRemoveOptions) (gone []image.DeleteResponse, saved time.Duration, err error) {
	p, err := imagePath(ref, "")
	if err != nil {
		return nil, 0, err
	}
	q, err := o.query()
	if err != nil {
		return nil, 0, err
	}
	saved, err = c.remove(ctx, &o.Removal, request{method: http.MethodDelete, path: p, query: q}, &gone)
	return gone, saved, err
}

// ImageRemoval is what ImageRemove would do, after the removal of others in this order.
func (c *Client) ImageRemoval(ctx context.Context, ref string, after []string, o ImageRemoveOptions) (Plan, error) {
	p, err := imagePath(ref, "")
	if err != nil {
		return Plan{}, err
	}
	q, err := o.query()
	if err != nil {
		return Plan{}, err
	}
	q["after"] = after
	return c.removal(ctx, p, q)
}

// ImageSaveOptions of ImageSave.
type ImageSaveOptions struct {
	Platforms []string // os/arch[/variant]; none means all that are there
	Format    string   // empty is the server's own; others only Hull has
	Auths     string   // credentials for where blobs that were dropped are fetched from: see EncodeAuths
}

// ImageSave returns an archive of images, and its length if the server says it or -1. The caller closes it. An archive
// that could not be finished ends in an error.
func (c *Client) ImageSave(ctx context.Context, names []string, o ImageSaveOptions) (io.ReadCloser, int64, error) {
	q := url.Values{"names": names}
	text(q, "format", o.Format)
	if err := platformsQuery(q, "platform", o.Platforms); err != nil {
		return nil, 0, err
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/images/get", query: q, auths: o.Auths})
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// ImageLoad sends an archive of images; the answer is a stream of messages.
func (c *Client) ImageLoad(ctx context.Context, archive io.Reader, quiet bool, platforms []string) (*Messages, error) {
	q := url.Values{"quiet": {"0"}}
	flag(q, "quiet", quiet)
	if err := platformsQuery(q, "platform", platforms); err != nil {
		return nil, err
	}
	return c.messages(ctx, request{method: http.MethodPost, path: "/images/load", query: q, stream: archive})
}

// ImportOptions of ImageImport.
type ImportOptions struct {
	Name     string // with or without a tag; empty makes an image without a name
	Message  string
	Platform string
	Changes  []string // instructions of a Dockerfile that describe how to run it
}

// ImageImport makes an image of one layer from the tar of a root file system: rootfs, or, when that is nil, what the
// server gets from the address source.
func (c *Client) ImageImport(ctx context.Context, rootfs io.Reader, source string, o ImportOptions) (*Messages, error) {
	q := url.Values{"fromSrc": {"-"}}
	if rootfs == nil {
		q.Set("fromSrc", source)
	}
	text(q, "repo", o.Name)
	text(q, "message", o.Message)
	text(q, "platform", strings.ToLower(o.Platform))
	for _, s := range o.Changes {
		q.Add("changes", s)
	}
	return c.messages(ctx, request{method: http.MethodPost, path: "/images/create", query: q, stream: rootfs})
}

// platformsQuery adds a parameter for each platform.
func platformsQuery(q url.Values, key string, platforms []string) error {
	for _, p := range platforms {
		j, err := platformJSON(p)
		if err != nil {
			return err
		}
		q.Add(key, j)
	}
	return nil
}

// platformJSON turns os/arch[/variant] into the form newer requests take it in.
func platformJSON(s string) (string, error) {
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", s}
	}
	if len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return "", errdef.Invalid("%q is not a platform; one looks like linux/amd64", s)
	}
	p := map[string]string{"os": parts[0], "architecture": parts[1]}
	if len(parts) == 3 {
		p["variant"] = parts[2]
	}
	b, err := json.Marshal(p)
	return string(b), err
}
