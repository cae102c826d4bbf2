// Package image keeps images: blobs by digest in an OCI image layout, references with a log of what they were,
// and unpacked layers that containers share.
//
//	s := image.Open(root)                        // opens nothing yet
//	img, err := s.Resolve(ctx, "busybox:1.36")   // or an id, name@sha256:..., name@{yesterday}
//	if err := img.Config.Validate(); err != nil  // before anything of it steers a container
//	for _, l := range img.Layers { ... l.Dir }   // overlayfs lower directories, lowest first
//
// An image that is listed is complete, also after a power cut; what a killed Load leaves is never listed and is
// swept later. Everything of an image (names in tars, configuration, labels) was written by strangers.
//
// Beware: whoever resolves an image and goes on to use its layers holds a Lease meanwhile, or a Remove by
// somebody else may take the layers away.
package image

import (
	"time"

	"hull/ref"
)

// Store is the images below one root directory. Its methods may be used by many goroutines and processes.
type Store struct {
	root string
	// Kept returns the chain ids of the layers that containers are mounted on (the topmost of each is enough), as
	// they are at the moment of the call. Without it only Remove and Sweep, which are told, remove garbage.
	Kept func() (map[string]bool, error)
	// Saved returns the roots of what was removed and can be restored: see Removed.
	Saved func() ([]ref.Digest, error)
}

// Open returns the store below root, which state.Open has prepared. It does no I/O.
func Open(root string) *Store { return &Store{root: root} }

// Image is one image for one platform.
type Image struct {
	ID       string // "sha256:" and the digest of the configuration: what Docker calls the image ID
	Manifest string // digest of the manifest
	Target   string // digest that the reference names: Manifest, or that of an index with several platforms
	Ref      string // the reference it was found by, in full ("docker.io/library/busybox:latest"); "" if by id
	Config   Config
	Layers   []Layer // lowest first
	Size     int64   // bytes of all regular files in the layers
	Created  time.Time
}

// Layer is an unpacked layer.
type Layer struct {
	ChainID string // names the layer with all layers below it
	DiffID  string // digest of the uncompressed tar
	Dir     string // absolute; whiteouts are in overlayfs form
}
