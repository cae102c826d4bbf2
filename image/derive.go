package image

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"hull/errdef"
	"hull/ref"
)

// DeriveOptions are for Derive.
type DeriveOptions struct {
	Ref     string // name of the new image; "" leaves it without
	Author  string
	Comment string
	Run     Run    // how containers of the new image run
	Command string // for the history: what wrote the layer
	By      string // the command, for the log of references; "" is "commit"
}

// Derive makes an image of the image with the id base and one layer on top of it, a plain tar; returns its id. The layers
// below are shared.
func (s *Store) Derive(ctx context.Context, base string, layer io.Reader, o DeriveOptions) (id string, err error) {
	if err := o.Run.Validate(); err != nil {
		return "", err
	}
	refs, err := newRefs(o.Ref, "commit")
	if err != nil {
		return "", err
	}
	in, err := s.receive(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	// Under the lease: what is found now stays.
	img, err := s.Resolve(ctx, base)
	if err != nil {
		return "", err
	}
	m, _, err := s.manifestOf(ref.Digest(img.Manifest))
	if err != nil {
		return "", err
	}
	below := img.Config.RootFS.DiffIDs
	if len(below) >= maxLayers {
		return "", errdef.Invalid("the image has %d layers, and one more is too many: export the container and import that", len(below))
	}
	l, res, err := in.importLayer(ctx, layer, below, nil)
	if err != nil {
		return "", err
	}
	now := time.Now().UTC()
	c := img.Config
	c.Created, c.Author, c.Comment, c.Run = &now, o.Author, o.Comment, o.Run
	c.RootFS = RootFS{Type: "layers", DiffIDs: append(slices.Clone(below), res.DiffID)}
	c.History = append(slices.Clone(c.History), History{Created: &now, CreatedBy: o.Command, Author: o.Author, Comment: o.Comment})
	return in.conclude(ctx, &c, append(slices.Clone(m.Layers), l), refs, orDefault(o.By, "commit"))
}

// newRefs parses the name of an image to be; "" is none.
func newRefs(name, verb string) ([]ref.Ref, error) {
	if name == "" {
		return nil, nil
	}
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	if r.Digest != "" {
		return nil, errdef.Invalid("cannot %s digest reference", verb)
	}
	return []ref.Ref{r.Tagged()}, nil
}
