package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"hull/image"
	"hull/ref"
	"hull/registry"
	"hull/state"
)

// CheckOptions are for CheckStore.
type CheckOptions struct {
	Remote
	Repair   bool
	Progress func(image.Progress) // as image.CheckOptions has it; may be nil
}

// CheckStore compares everything in the store with what it should be: images as image.Store.Check does, definitions of
// containers and the layers they are made of, names of containers. With Repair what is wrong is made good where that
// can be: missing and damaged blobs come from where their images were pulled, by the routes and with the credentials of
// a pull.
func (e *Engine) CheckStore(ctx context.Context, o CheckOptions) ([]image.Damage, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	var found []image.Damage
	err := e.each(func(c *Container) {
		if c.Unread != nil {
			found = append(found, image.Damage{Object: "container " + c.ID, Problem: "it could not be checked: " + c.Unread.Error(), Cure: "look at the disk: dmesg"})
		}
		if c.Damaged != "" {
			found = append(found, image.Damage{Object: "container " + c.ID, Problem: "its definition is damaged: " + c.Damaged, Cure: "hull rm -f " + c.ID[:12]})
		}
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	images, err := e.images().Check(ctx, image.CheckOptions{
		Repair: o.Repair, Busy: e.runsOn, Progress: o.Progress,
		Fetch: func(ctx context.Context, d ref.Digest) iter.Seq2[io.ReadCloser, error] {
			return e.fetchBlob(ctx, d, o.Remote)
		},
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	found = append(found, images...)
	// After the images: what they lacked may be there again.
	err = e.each(func(c *Container) {
		for _, l := range c.Layers {
			_, err := os.Lstat(filepath.Join(e.root, "layers", ref.Digest(l).Hex(), "fs"))
			switch {
			case errors.Is(err, os.ErrNotExist):
				found = append(found, image.Damage{Object: "container " + c.ID, Problem: "its layer " + l + " is missing",
					Cure: "pull or load the image " + c.Config.Image + " again"})
			case err != nil:
				found = append(found, image.Damage{Object: "container " + c.ID, Problem: "its layer " + l + " could not be checked: " + err.Error(),
					Cure: "hull system check, again", Unchecked: true})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return append(found, e.checkNames(o.Repair)...), nil
}

// runsOn says whether a container that runs is made of the layer, or has it mounted.
func (e *Engine) runsOn(chain string) (bool, error) {
	found := false
	err := e.each(func(c *Container) {
		if !c.Running() {
			return
		}
		found = found || slices.Contains(c.Layers, chain)
		for _, m := range c.Mounts {
			found = found || slices.Contains(m.Layers, chain)
		}
	})
	return found, err
}

// fetchBlob opens the blob d at one after the other of the repositories that are known to hold it.
func (e *Engine) fetchBlob(ctx context.Context, d ref.Digest, o Remote) iter.Seq2[io.ReadCloser, error] {
	return func(yield func(io.ReadCloser, error) bool) {
		for _, name := range e.images().Origins(d) {
			data, err := e.openBlob(ctx, name, d, o)
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			if !yield(data, err) {
				return
			}
		}
	}
}

func (e *Engine) openBlob(ctx context.Context, name string, d ref.Digest, o Remote) (io.ReadCloser, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	repo, err := e.repository(ctx, r, o, false)
	if err != nil {
		return nil, err
	}
	data, _, err := repo.Blob(ctx, d, 0)
	if err == nil {
		return &remoteBlob{data, repo}, nil
	}
	defer repo.Close()
	// A manifest is not among the blobs of a registry.
	text, _, manifestErr := repo.Manifest(ctx, string(d))
	if manifestErr != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(text)), nil
}

// remoteBlob is a blob that comes from a repository, which is closed with it.
type remoteBlob struct {
	io.ReadCloser
	repo *registry.Repository
}

func (b *remoteBlob) Close() error {
	defer b.repo.Close()
	return b.ReadCloser.Close()
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
