package image

import (
	"context"
	"io"
)

// Progress tells how far a layer is.
type Progress struct {
	ID      string // short id of the layer
	Action  string // "Loading layer", ...
	Current int64  // bytes
	Total   int64  // bytes; 0 if unknown
}

// LoadOptions are for Load.
type LoadOptions struct {
	Platform string         // os/arch[/variant]; "" is this machine's
	Progress func(Progress) // may be nil; not called by two goroutines at once
	By       string         // the command, for the log of references; "" is "load"
}

// Loaded is one image that Load brought.
type Loaded struct {
	ID  string
	Ref string // familiar; "" when the archive has no name for it
}

// Load reads an archive as `docker save` writes it, or a tar of an OCI image layout; either plain, gzip or zstd.
// r need not be seekable. Each image appears complete or not at all.
func (s *Store) Load(ctx context.Context, r io.Reader, opts LoadOptions) ([]Loaded, error) {
	panic("not yet")
}

// ImportOptions are for Import.
type ImportOptions struct {
	Ref      string   // name of the new image; "" leaves it without
	Message  string   // comment of the new image
	Changes  []string // Dockerfile instructions: CMD, ENV, USER, ...
	Platform string   // os/arch[/variant]; "" is this machine's
	Progress func(Progress)
	By       string // the command, for the log of references; "" is "import"
}

// Import makes an image of one layer from the tar of a root file system (plain, gzip or zstd); returns its id.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ImportOptions) (id string, err error) {
	panic("not yet")
}
