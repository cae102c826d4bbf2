package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/errdef"
	"hull/image"
	"hull/ref"
	"hull/trash"

	"golang.org/x/sys/unix"
)

// The way back from the trash:
//
//	container   rename its entry to undo/.limbo/out-N · mkdir ID · claim the name · its anonymous volumes · rename over the
//	            empty ID · remove the entry
//	volume      out-N · rename, unless the name is taken · remove the entry
//	image       out-N · image and references, synced · remove the entry
//
// Whoever finds an out-N that nobody works at puts it back into the list.

// Restored is what came back from the trash.
type Restored struct {
	Kind, ID, Name string
	Notes          []string // what is not as it was
	Failed         string   // why it did not come back
}

// RestoreOptions are for Restore.
type RestoreOptions struct {
	Name string // of a container or volume, or one reference of an image, instead of the old one
}

// Undo restores what the last command removed that removed anything. What of it can be restored is, whatever becomes of
// the rest.
func (e *Engine) Undo(ctx context.Context, o RestoreOptions) ([]Restored, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	_ = e.tidyTrash(ctx, nil) // whoever comes next tries again
	last, err := e.trash().Last()
	if err != nil {
		return nil, e.storeError(err)
	}
	if len(last) == 0 {
		return nil, errdef.NotFound("there is nothing to undo: the trash is empty")
	}
	if len(last) > 1 && o.Name != "" {
		return nil, errdef.Invalid("the last command removed %d things, which cannot all be called %s", len(last), clip(o.Name))
	}
	var out []Restored
	for _, i := range last {
		r, err := e.restore(ctx, i.Number, o)
		if err != nil && len(last) == 1 {
			return nil, err
		}
		if err != nil {
			r = &Restored{Kind: i.Kind, ID: i.ID, Name: i.Name, Failed: err.Error()}
		}
		out = append(out, *r)
	}
	return out, nil
}

// Restore brings back what is called name in the trash: its number there, a name it had, or its id. Of several of one name
// it is the last.
func (e *Engine) Restore(ctx context.Context, name string, o RestoreOptions) (*Restored, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	_ = e.tidyTrash(ctx, nil)
	list, err := e.trash().List()
	if err != nil {
		return nil, e.storeError(err)
	}
	var all []Trashed
	for i := len(list) - 1; i >= 0; i-- {
		t := e.mend(list[i])
		all = append(all, Trashed{Number: t.Number, Kind: t.Kind, ID: t.ID, Name: t.Name})
	}
	t, err := findTrashed(all, name)
	if err != nil {
		return nil, err
	}
	return e.restore(ctx, t.Number, o)
}

func (e *Engine) restore(ctx context.Context, number int, o RestoreOptions) (*Restored, error) {
	lease, err := e.images().Lease(ctx) // while it moves, nobody may look for the layers that are needed
	if err != nil {
		return nil, e.storeError(err)
	}
	defer lease.Unlock()
	t, err := e.trash().Take(ctx, number)
	if err != nil {
		return nil, e.storeError(err)
	}
	e.mend(&t.Item)
	if t.Damaged != "" {
		_ = t.Back()
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("%d in the trash is damaged and can only be removed for good (hull trash empty %d): %s",
			number, number, t.Damaged))
	}
	if o.Name == "" {
		o.Name = t.Name
	}
	var out *Restored
	switch t.Kind {
	case trash.Container:
		out, err = e.restoreContainer(ctx, t, o.Name)
	case trash.Volume:
		out, err = e.restoreVolume(t, o.Name)
	case trash.Image:
		out, err = e.restoreImage(ctx, t, o.Name)
	}
	if err != nil {
		_ = t.Back() // or the next command does
		return nil, e.storeError(err)
	}
	t.Done()
	return out, nil
}

func (e *Engine) restoreContainer(ctx context.Context, t *trash.Entry, name string) (_ *Restored, err error) {
	dir := t.Path(t.ID)
	r, err := e.readRecord(dir)
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := e.makeStore(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(e.dir(t.ID), 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	if e.exists(t.ID) {
		return nil, errdef.Conflict("there is a container %s already", t.ID[:12])
	}
	claimed := ""
	defer func() {
		if err != nil {
			if claimed != "" {
				_ = e.releaseName(claimed, t.ID)
			}
			_ = unix.Rmdir(e.dir(t.ID))
		}
	}()
	if err := e.claimName(name, t.ID); err != nil {
		if errors.Is(err, errdef.ErrConflict) {
			err = errdef.Conflict("%w Or restore it under another one: hull undo --name NAME %d", err, t.Number)
		}
		return nil, err
	}
	claimed = name
	if r.Name != name {
		r.Name = name
		if err := r.write(dir); err != nil {
			return nil, err
		}
	}
	if err := e.restoreVolumes(t); err != nil {
		return nil, err
	}
	// The empty directory becomes the container's, whole. (os.Rename refuses a directory that is there.)
	if err := unix.Rename(dir, e.dir(t.ID)); err != nil {
		return nil, &os.PathError{Op: "restore", Path: e.dir(t.ID), Err: err}
	}
	c := r.container()
	e.containerEvent(c, "create")
	return &Restored{Kind: t.Kind, ID: t.ID, Name: name, Notes: e.missing(ctx, c)}, nil
}

// restoreVolumes brings back the anonymous volumes of a container. One that is there already was brought back by somebody
// who was killed.
func (e *Engine) restoreVolumes(t *trash.Entry) error {
	names, err := readNames(t.Path(volumesPart))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := e.volumes().Put(filepath.Join(t.Path(volumesPart), n), n); err != nil {
			return err
		}
	}
	return nil
}

// settleRestore takes back what a killed restore of the container id began, and says whether there is still one to
// restore.
func (e *Engine) settleRestore(t *trash.Entry, id string) bool {
	if e.exists(id) {
		return true
	}
	if r, err := e.readRecord(t.Path(id)); err == nil {
		_ = e.releaseName(r.Name, id)
	}
	if t.Name != "" {
		_ = e.releaseName(t.Name, id)
	}
	_ = unix.Rmdir(e.dir(id)) // a name that leads there is nobody's from now on
	return true
}

// missing says what a restored container needs and is not there any more.
func (e *Engine) missing(ctx context.Context, c *Container) []string {
	var notes []string
	if _, err := e.images().Resolve(ctx, c.Image); errors.Is(err, errdef.ErrNotFound) {
		notes = append(notes, "its image "+c.Config.Image+" is not listed any more; the container does not need it")
	}
	for _, m := range c.Mounts {
		if m.Type != mountVolume {
			continue
		}
		if _, err := e.volumes().Get(m.Name); errors.Is(err, errdef.ErrNotFound) {
			notes = append(notes, "its volume "+m.Name+" is gone, and is made anew, empty, at its next start")
		}
	}
	return notes
}

func (e *Engine) restoreVolume(t *trash.Entry, name string) (*Restored, error) {
	if err := e.volumes().Put(t.Path(volumePart), name); err != nil {
		if errors.Is(err, errdef.ErrConflict) {
			err = errdef.Conflict("%w: remove it first, or restore this one under another name: hull undo --name NAME %d", err, t.Number)
		}
		return nil, err
	}
	return &Restored{Kind: t.Kind, Name: name}, nil
}

// oneTarget is what a removed image is restored as under one other name: what all its names named.
func oneTarget(r *image.Removed) (ref.Digest, error) {
	target := r.Manifest
	names := slices.Sorted(maps.Keys(r.Refs))
	for i, name := range names {
		if d := r.Refs[name]; i > 0 && d != target {
			return "", errdef.Invalid("the image had names for different things, of which one name can be only one: %s: restore it without --name",
				strings.Join(names, ", "))
		}
		target = r.Refs[name]
	}
	return target, nil
}

func (e *Engine) restoreImage(ctx context.Context, t *trash.Entry, name string) (*Restored, error) {
	r, err := removedImage(&t.Item)
	if err != nil {
		return nil, err
	}
	if name != t.Name {
		as, err := ref.Parse(name)
		if err != nil {
			return nil, err
		}
		if as.Digest != "" {
			return nil, errdef.Invalid("%s: want a name and a tag", clip(name))
		}
		target, err := oneTarget(r)
		if err != nil {
			return nil, err
		}
		r.Refs = map[string]ref.Digest{as.Tagged().String(): target}
	}
	done, err := e.images().Restore(ctx, r, "undo")
	if err != nil {
		return nil, err
	}
	out := &Restored{Kind: t.Kind, ID: r.ID}
	for i, n := range done.Refs {
		if i > 0 {
			out.Name += ", "
		}
		out.Name += n
		e.imageEvent("tag", r.ID, n)
	}
	for _, n := range done.Taken {
		out.Notes = append(out.Notes, n+" names another image by now, and still does")
	}
	return out, nil
}
