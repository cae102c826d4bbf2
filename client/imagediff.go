package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"hull/errdef"
)

// ImageDiff begins a comparison of two images.
type ImageDiff struct {
	From, To ImageSize
	Config   []SettingChange
}

// ImageSize is an image and the bytes of its files.
type ImageSize struct {
	ID   string
	Size int64
}

// SettingChange is one part of the configuration that differs. Kind is added, changed or deleted.
type SettingChange struct {
	Field string
	Key   string `json:",omitempty"` // of what has several: the variable, the label, the port, the volume
	Kind  string
	Old   string
	New   string
}

// FileChange is one path that differs. Kind is added, changed or deleted.
type FileChange struct {
	Path string
	Kind string
	What []string   `json:",omitempty"` // of a changed one: type, content, target, device, mode, owner, xattr
	Old  *FileEntry `json:",omitempty"`
	New  *FileEntry `json:",omitempty"`
}

// FileEntry is a file of an image; an owner of -1 is not known.
type FileEntry struct {
	Type   string // file, directory, symlink, chardevice, device, fifo or socket
	Mode   uint32
	UID    int
	GID    int
	Size   int64
	Target string   `json:",omitempty"`
	Device uint64   `json:",omitempty"`
	Xattrs []string `json:",omitempty"`
}

// ImageDiffEnd ends a comparison.
type ImageDiffEnd struct {
	Added, Changed, Deleted int
	Bytes                   int64 // how much more the files of the new image have
	Unreadable              int   // files the engine's user may not read: taken for unchanged
	Findings                []Finding
}

// Finding is something that a person who ships an image should know of.
type Finding struct{ Rule, Text string }

// ImageDiff compares two images: f is called with the head, and then with each path that differs.
func (c *Client) ImageDiff(ctx context.Context, from, to string, head func(ImageDiff) error, f func(FileChange) error) (end ImageDiffEnd, err error) {
	r, err := diffRequest(from, to)
	if err != nil {
		return end, err
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return end, c.notHull(r, err)
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var line struct {
			Head  *ImageDiff
			File  *FileChange
			End   *ImageDiffEnd
			Error *struct{ Message string }
		}
		if err := dec.Decode(&line); err != nil { // without an end also when there is no more
			return end, cause(ctx, decodeError(err))
		}
		switch {
		case line.Error != nil:
			return end, errdef.As(errdef.ErrInvalid, &Error{Message: line.Error.Message})
		case line.End != nil:
			return *line.End, nil
		case line.Head != nil:
			err = head(*line.Head)
		case line.File != nil:
			err = f(*line.File)
		}
		if err != nil {
			return end, err
		}
	}
}

// ImageContent compares a text file of two images, and returns the unified difference.
func (c *Client) ImageContent(ctx context.Context, from, to, path string) (string, error) {
	r, err := diffRequest(from, to)
	if err != nil {
		return "", err
	}
	r.query.Set("content", path)
	var out struct{ Diff string }
	err = c.hull(ctx, r, &out)
	return out.Diff, err
}

func diffRequest(from, to string) (request, error) {
	p, err := imagePath(from, "/diff")
	return request{method: http.MethodGet, path: "/hull/v1" + p, query: url.Values{"to": {to}}, bare: true}, err
}
