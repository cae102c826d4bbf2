package client

import (
	"context"
	"net/http"
	"net/url"
)

// Changelog says how one image became another.
type Changelog struct {
	From, To ImageSize
	Packages []PackageChange
	Config   []SettingChange
	Layers   []LayerStep
	Files    ImageDiffEnd
	Notes    []string // what could not be found out
}

// PackageChange is what became of a package. How is added, removed, up, down or changed.
type PackageChange struct {
	Kind string // deb, apk, rpm, go, python or npm
	Name string
	In   string `json:",omitempty"` // of a Go module: the program it is in
	How  string
	Old  string
	New  string
}

// LayerStep is a layer that only one of the images has, and the step of its history that made it.
type LayerStep struct {
	DiffID                  string
	Removed                 bool // only the old image has it
	Size                    int64
	Step                    string
	Added, Changed, Deleted int
}

// ImageChangelog compares two images.
func (c *Client) ImageChangelog(ctx context.Context, from, to string) (out Changelog, err error) {
	p, err := imagePath(from, "/changelog")
	if err != nil {
		return out, err
	}
	err = c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1" + p, query: url.Values{"to": {to}}}, &out)
	return out, err
}
