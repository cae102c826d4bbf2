package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/trash"
	"hull/volume"
)

// The way into the trash is made of renames:
//
//	container   lock ID · undo/.limbo/in-X with a record · rename ID into it · release the name · its anonymous volumes ·
//	            rename in-X to the next number
//	volume      in-X · lock and rename the volume into it · rename in-X to the next number
//	image       lock the references · in-X, synced · references and image go · rename in-X to the next number
//
// What cannot go this way, because the disk is full, say, is removed for good instead.

// sizeWait bounds how long a removal looks at how much it saves; what takes longer is measured when somebody asks.
const sizeWait = 200 * time.Millisecond

// quickSize is the size of the files below dir, -1 when there are too many for that.
func quickSize(ctx context.Context, dir string) int64 {
	ctx, cancel := context.WithTimeout(ctx, sizeWait)
	defer cancel()
	size, err := treeSize(ctx, dir)
	if err != nil {
		return -1
	}
	return size
}

func containerRecord(r *record) *trash.Record {
	t := &trash.Record{Kind: trash.Container, ID: r.ID, Name: r.Name, By: "rm", Layers: slices.Clone(r.Layers)}
	for _, m := range r.Mounts {
		t.Layers = append(t.Layers, m.Layers...)
	}
	return t
}

// saveContainer moves the stopped container into the trash. done is false, without an error, when it cannot go there and
// is where it was.
func (e *Engine) saveContainer(ctx context.Context, c *Container, o *RemoveOptions) (done bool, saved time.Duration, err error) {
	limits, on := e.trashLimits()
	if !on {
		return false, 0, nil
	}
	l, err := e.lockStopped(ctx, c.ID)
	if err != nil {
		return false, 0, err
	}
	defer l.Unlock()
	r, err := e.readRecord(e.dir(c.ID))
	if err != nil {
		return false, 0, nil
	}
	rec := containerRecord(r)
	rec.Removed, rec.Batch, rec.Volumes = time.Now().UTC(), o.Batch, o.Volumes
	if rec.Size = quickSize(ctx, e.dir(c.ID)); rec.Size > limits.Size {
		return false, 0, nil
	}
	// While it moves, nobody may look for the layers that are needed.
	lease, err := e.images().Lease(ctx)
	if err != nil {
		return false, 0, nil
	}
	defer lease.Unlock()
	t, err := e.trash().Begin(rec)
	if err != nil {
		return false, 0, nil
	}
	if err := e.unpublish(ctx, c.ID); err != nil {
		t.Drop()
		return false, 0, err
	}
	if err := os.Rename(e.dir(c.ID), t.Path(c.ID)); err != nil {
		t.Drop()
		if isMissing(err) {
			err = noSuchContainer(c.ID)
		} else {
			err = nil
		}
		return false, 0, err
	}
	// From here on the container is gone for everybody, and whoever comes next finishes what we do not.
	whole := e.finishSaved(t, r)
	e.containerEvent(c, "destroy")
	if !whole {
		t.Done()
		return true, 0, nil
	}
	_ = t.Keep()
	return true, limits.Keep, nil
}

// finishSaved takes away what belongs to a container that is in the trash, and is elsewhere. whole is false when a volume
// that goes with it had to be removed for good, as on a full disk: then it could not come back as it was.
func (e *Engine) finishSaved(t *trash.Entry, r *record) (whole bool) {
	e.unkeep(r.ID)
	_ = e.releaseName(r.Name, r.ID) // or whoever wants it finds that nobody has it
	if !t.Volumes {
		return true
	}
	whole = true
	_ = os.Mkdir(t.Path(volumesPart), 0o700)
	for _, m := range r.Mounts {
		if !m.Anonymous {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), dropWait)
		to := filepath.Join(t.Path(volumesPart), m.Name)
		err := e.volumes().Take(ctx, m.Name, to, e.unused)
		if err != nil && !errors.Is(err, errdef.ErrNotFound) && !errors.Is(err, errdef.ErrConflict) {
			_ = e.volumes().Drop(ctx, m.Name, e.unused) // one that is in the way of nothing is still listed
			whole = false
		}
		cancel()
	}
	return whole
}

// settleSaved finishes the removal of the container id, which somebody was killed at; whole is as in finishSaved.
func (e *Engine) settleSaved(t *trash.Entry, id string) (whole bool) {
	r, err := e.readRecord(t.Path(id))
	if err != nil {
		_ = e.releaseNames(id)
		return true
	}
	whole = e.finishSaved(t, r)
	if begin := t.Removed.Add(-time.Second); !e.recorded("destroy", id, begin) {
		e.containerEvent(r.container(), "destroy")
	}
	return whole
}

// saveVolume moves a volume that nobody uses into the trash; done is as in saveContainer.
func (e *Engine) saveVolume(ctx context.Context, name string, o *RemoveVolumeOptions) (done bool, saved time.Duration, err error) {
	limits, on := e.trashLimits()
	if !on {
		return false, 0, nil
	}
	v, err := e.volumes().Get(name)
	if err != nil || v.Damaged != "" {
		return false, 0, nil // the removal says what is to be said
	}
	size := quickSize(ctx, v.Path())
	if size > limits.Size {
		return false, 0, nil
	}
	t, err := e.trash().Begin(&trash.Record{
		Kind: trash.Volume, Name: name, Removed: time.Now().UTC(), By: "volume rm", Batch: o.Batch, Size: size,
	})
	if err != nil {
		return false, 0, nil
	}
	refused := false
	err = e.volumes().Take(ctx, name, t.Path(volumePart), func(v *volume.Volume) error {
		err := e.unused(v)
		refused = err != nil
		return err
	})
	if err != nil {
		if t.Drop(); !refused && errdef.Kind(err) == nil {
			err = nil
		}
		return false, 0, err
	}
	_ = t.Keep()
	return true, limits.Keep, nil
}

// saveImage writes down what is about to go of an image, by which command. keep gets how long it can be restored.
func (e *Engine) saveImage(by, batch string, limits *trash.Limits, keep *time.Duration) func(*image.Removed) func(bool) {
	return func(r *image.Removed) func(bool) {
		detail, err := json.Marshal(r)
		if err != nil || r.Own > limits.Size {
			return nil
		}
		name := strings.Join(r.Familiar(), ", ")
		t, err := e.trash().BeginDurable(&trash.Record{
			Kind: trash.Image, ID: r.ID, Name: name, Removed: time.Now().UTC(), By: by, Batch: batch, Size: r.Own, Detail: detail,
		})
		if err != nil {
			return nil
		}
		return func(went bool) {
			if !went && !e.images().Gone(r) { // a change that failed may have been made all the same
				t.Drop()
				return
			}
			if t.Keep() == nil {
				*keep = limits.Keep
			}
		}
	}
}
