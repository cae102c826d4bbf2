package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/trash"
)

// Pruned is what a prune removed, or would remove.
type Pruned struct {
	Containers []PrunedContainer
	Images     []image.Deleted
	Volumes    []PrunedVolume
	Trash      []Trashed // that can no longer be restored
	Bytes      int64     // that are free for it
}

// PrunedContainer is one container that went.
type PrunedContainer struct {
	ID, Name string
	Size     int64 // of what it had written
}

// PrunedVolume is one volume that went.
type PrunedVolume struct {
	Name string
	Size int64
}

// PruneOptions choose what goes. Filters are those of all kinds: until (a time, or how long ago) and label; images also
// have dangling, true by default: only those without a name.
type PruneOptions struct {
	Filters map[string][]string
	Dry     bool // change nothing, only tell
	gone    map[string]bool
}

// PruneContainers removes the containers that do not run. One that is started or removed meanwhile is left out.
func (e *Engine) PruneContainers(ctx context.Context, o PruneOptions) (*Pruned, error) {
	f, err := newPruneFilter(o.Filters, "until", "label", "label!")
	if err != nil {
		return nil, err
	}
	list, err := e.List(ctx, ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	slices.Reverse(list) // the oldest first
	out := new(Pruned)
	for _, c := range list {
		if !prunable(c) || !f.holds(c.Created, c.Config.Labels) {
			continue
		}
		size, err := treeSize(ctx, e.Files(c).Upper)
		if err != nil {
			return out, err
		}
		if !o.Dry {
			_, err := e.Remove(ctx, c.ID, RemoveOptions{Now: true})
			if errors.Is(err, errdef.ErrNotFound) || errors.Is(err, errdef.ErrConflict) {
				continue
			}
			if err != nil {
				return out, err
			}
		}
		out.Containers = append(out.Containers, PrunedContainer{c.ID, c.Name, size})
		out.Bytes += size
	}
	if err := e.pruneTrash(ctx, trash.Container, len(o.Filters) == 0, o.Dry, out); err != nil {
		return out, err
	}
	if !o.Dry {
		e.event("container", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(out.Bytes, 10)})
	}
	return out, nil
}

// prunable says whether a prune takes the container: it does not run, and is not about to.
func prunable(c *Container) bool {
	switch c.State.Status {
	case StatusCreated, StatusExited, StatusDead:
		return c.known() // that somebody has to see first
	}
	return false
}

// PruneImages removes images that no container is made of.
func (e *Engine) PruneImages(ctx context.Context, o PruneOptions) (*Pruned, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	f, err := newPruneFilter(o.Filters, "until", "label", "label!", "dangling")
	if err != nil {
		return nil, err
	}
	users, err := e.imageUsers(o.gone)
	if err != nil {
		return nil, err
	}
	out := new(Pruned)
	_, chosen := o.Filters["dangling"] // which all prunes of images have
	whole := len(o.Filters) == 0 || chosen && len(o.Filters) == 1
	if err := e.pruneTrash(ctx, trash.Image, whole, o.Dry, out); err != nil {
		return nil, err
	}
	inUse := e.usersOf
	kept := e.layersInUse
	if o.Dry {
		inUse = func(id string) []image.User { return users[id] }
		kept = func() (map[string]bool, error) { return e.layersInUseBut(o.gone) }
	}
	p, err := e.images().Prune(ctx, image.PruneOptions{
		Dry: o.Dry, Kept: kept, InUse: inUse,
		Wanted: func(i *image.Summary) bool {
			// The cheap test first: who uses an image is asked again before it goes.
			return (!f.dangling || len(i.RepoTags) == 0) && f.holds(i.Created, i.Labels) && len(users[i.ID]) == 0
		},
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	out.Images, out.Bytes = p.Deleted, out.Bytes+p.Bytes
	if !o.Dry {
		for _, d := range p.Deleted {
			if strings.HasPrefix(d.Deleted, "sha256:") {
				e.imageEvent("delete", d.Deleted, d.Deleted)
			}
		}
		e.event("image", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(out.Bytes, 10)})
	}
	return out, nil
}

// pruneTrash empties the trash of one kind, too, when everything of that kind is pruned that nobody needs: what a prune
// leaves no room for, it does not leave in the trash either.
func (e *Engine) pruneTrash(ctx context.Context, kind string, whole, dry bool, out *Pruned) (err error) {
	if !whole {
		return nil
	}
	wanted := func(t *Trashed) bool { return t.Kind == kind }
	if dry {
		list, err := e.Trash(ctx)
		if err != nil {
			return err
		}
		out.Trash = slices.DeleteFunc(list, func(t Trashed) bool { return !wanted(&t) })
	} else if out.Trash, err = e.emptyTrash(ctx, wanted); err != nil {
		return err
	}
	for _, t := range out.Trash {
		out.Bytes += max(t.Size, 0)
	}
	return nil
}

// imageUsers are the containers by the images they were made from or have mounted, but for those that are as good as gone.
func (e *Engine) imageUsers(gone map[string]bool) (map[string][]image.User, error) {
	users := map[string][]image.User{}
	err := e.each(func(c *Container) {
		if gone[c.ID] {
			return
		}
		used := map[string]bool{c.Image: true}
		for _, m := range c.Mounts {
			if m.ImageID != "" {
				used[m.ImageID] = true
			}
		}
		for id := range used {
			users[id] = append(users[id], image.User{ID: c.ID, Running: c.Running()})
		}
	})
	return users, err
}

// PruneKinds says what a plan is for, and by which filters each kind is chosen.
type PruneKinds struct {
	Containers, Images, Volumes bool
	Filters                     map[string]map[string][]string // by the words "containers", "images", "volumes"
}

// PrunePlan tells what pruning these kinds, containers first, would remove. Nothing changes.
func (e *Engine) PrunePlan(ctx context.Context, k PruneKinds) (*Pruned, error) {
	out := new(Pruned)
	gone := map[string]bool{}
	add := func(p *Pruned, err error) error {
		if err != nil {
			return err
		}
		for _, c := range p.Containers {
			gone[c.ID] = true
		}
		out.Containers = append(out.Containers, p.Containers...)
		out.Images = append(out.Images, p.Images...)
		out.Volumes = append(out.Volumes, p.Volumes...)
		out.Trash = append(out.Trash, p.Trash...)
		out.Bytes += p.Bytes
		return nil
	}
	if k.Containers {
		if err := add(e.PruneContainers(ctx, PruneOptions{Filters: k.Filters["containers"], Dry: true})); err != nil {
			return nil, err
		}
	}
	if k.Volumes {
		if err := add(e.pruneVolumes(ctx, k.Filters["volumes"], true, gone)); err != nil {
			return nil, err
		}
	}
	if k.Images {
		if err := add(e.PruneImages(ctx, PruneOptions{Filters: k.Filters["images"], Dry: true, gone: gone})); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// pruneFilter is a parsed PruneOptions.Filters.
type pruneFilter struct {
	until    time.Time // zero: no bound
	with     []string
	without  []string
	dangling bool
}

func newPruneFilter(in map[string][]string, known ...string) (*pruneFilter, error) {
	f := &pruneFilter{with: in["label"], without: in["label!"], dangling: true}
	for _, key := range slices.Sorted(maps.Keys(in)) {
		values := in[key]
		if !slices.Contains(known, key) {
			return nil, errdef.Invalid("invalid filter '%s'", clip(key))
		}
		var err error
		switch key {
		case "until":
			f.until, err = until(values, time.Now())
		case "dangling":
			f.dangling, err = danglingFilter(values)
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func danglingFilter(values []string) (bool, error) {
	if len(values) != 1 {
		return false, errdef.Invalid("invalid filter 'dangling=%s'", clip(strings.Join(values, ",")))
	}
	on, err := strconv.ParseBool(values[0])
	if err != nil {
		return false, errdef.Invalid("invalid filter 'dangling=%s'", clip(values[0]))
	}
	return on, nil
}

// until reads the one value of the filter until: seconds since 1970, a time, or a duration before now.
func until(values []string, now time.Time) (time.Time, error) {
	if len(values) != 1 {
		return time.Time{}, errdef.Invalid("more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if sec, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Unix(sec, 0), nil
	}
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errdef.Invalid("invalid filter 'until=%s': want a time like 2026-01-02T13:23:37Z or a duration like 24h", clip(v))
}

func (f *pruneFilter) holds(created time.Time, labels map[string]string) bool {
	if !f.until.IsZero() && created.After(f.until) {
		return false
	}
	for _, l := range f.without {
		if hasLabels(labels, []string{l}) {
			return false
		}
	}
	return hasLabels(labels, f.with)
}
