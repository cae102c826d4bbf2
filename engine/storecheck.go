package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"hull/image"
	"hull/ref"
	"hull/state"
)

// CheckStore compares everything in the store with what it should be: images as image.Store.Check does, definitions of
// containers and the layers they are made of, names of containers, volumes. With repair what is wrong is made good where
// that can be: missing and damaged blobs come from where their images were pulled.
func (e *Engine) CheckStore(ctx context.Context, repair bool, o Remote) ([]image.Damage, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	busy := map[string]bool{}
	var found []image.Damage
	err := e.each(func(c *Container) {
		if c.Damaged != "" {
			found = append(found, image.Damage{Object: "container " + c.ID, Problem: "its definition is damaged: " + c.Damaged, Cure: "hull rm -f " + c.ID[:12]})
		}
		if !c.Running() {
			return
		}
		for _, l := range c.Layers {
			busy[l] = true
		}
		for _, m := range c.Mounts {
			for _, l := range m.Layers {
				busy[l] = true
			}
		}
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	images, err := e.images().Check(ctx, image.CheckOptions{
		Repair: repair,
		Busy:   func(chain string) bool { return busy[chain] },
		Fetch:  func(ctx context.Context, d ref.Digest) (io.ReadCloser, error) { return e.fetchBlob(ctx, d, o) },
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	found = append(found, images...)
	// After the images: what they lacked may be there again.
	err = e.each(func(c *Container) {
		for _, l := range c.Layers {
			if _, err := os.Lstat(filepath.Join(e.root, "layers", ref.Digest(l).Hex(), "fs")); errors.Is(err, os.ErrNotExist) {
				found = append(found, image.Damage{Object: "container " + c.ID, Problem: "its layer " + l + " is missing",
					Cure: "pull or load the image " + c.Config.Image + " again"})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return append(found, e.checkNames(repair)...), nil
}

// fetchBlob opens the blob d at one of the repositories that are known to hold it.
func (e *Engine) fetchBlob(ctx context.Context, d ref.Digest, o Remote) (io.ReadCloser, error) {
	origins := e.images().Origins(d)
	if len(origins) == 0 {
		return nil, errors.New("it is not known where it came from")
	}
	var errs []error
	for _, name := range origins {
		r, err := ref.Parse(name)
		if err == nil {
			var data io.ReadCloser
			if data, err = e.openBlob(ctx, r, d, o); err == nil {
				return data, nil
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return nil, errors.Join(errs...)
}

func (e *Engine) openBlob(ctx context.Context, r ref.Ref, d ref.Digest, o Remote) (io.ReadCloser, error) {
	repo, err := e.repository(r, o, false)
	if err != nil {
		return nil, err
	}
	data, _, err := repo.Blob(ctx, d, 0)
	if err != nil { // a manifest is not among the blobs of a registry
		text, _, manifestErr := repo.Manifest(ctx, string(d))
		if manifestErr != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	return data, nil
}

// checkNames finds names of containers that no container has.
func (e *Engine) checkNames(repair bool) []image.Damage {
	names, err := readNames(e.names())
	if err != nil {
		return nil
	}
	var found []image.Damage
	for _, name := range names {
		if target, alive, err := state.Holder(e.names(), name); err == nil && !alive {
			found = append(found, image.Damage{Object: "container name " + name, Problem: "it belongs to " + filepath.Base(target) + ", which is gone",
				Cure: "hull system check --repair", Repaired: repair})
		}
	}
	if repair && len(found) > 0 && state.SweepClaims(e.names()) != nil {
		for i := range found {
			found[i].Repaired = false
		}
	}
	return found
}
