package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"hull/errdef"
	"hull/trash"
	"hull/volume"
)

// VolumePath is where the data of the volume name lie on the host.
func (e *Engine) VolumePath(name string) string { return e.volumes().Path(name) }

// CreateVolume makes a volume, or returns the one that has the name already. Without a name one is made up.
func (e *Engine) CreateVolume(ctx context.Context, o volume.Spec) (*volume.Volume, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = newID()
		labels := map[string]string{anonymousLabel: ""}
		for k, v := range o.Labels {
			labels[k] = v
		}
		o.Labels = labels
	}
	var v *volume.Volume
	err := e.roomy(ctx, func() (err error) {
		v, err = e.volumes().Create(ctx, o)
		return err
	})
	return v, e.storeError(err)
}

// Volume returns the volume called name.
func (e *Engine) Volume(name string) (*volume.Volume, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	return e.volumes().Get(name)
}

// Volumes lists the volumes for which all filters hold, by name.
func (e *Engine) Volumes(_ context.Context, filters map[string][]string) ([]*volume.Volume, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	e.sweepTrash()
	list, err := e.volumes().List()
	if err != nil {
		return nil, e.storeError(err)
	}
	for key, values := range filters {
		test, err := e.volumeTest(key, values)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(v *volume.Volume) bool { return !test(v) })
	}
	return list, nil
}

// volumeTest is the test for one filter key: one of the values must hold, but all of them for labels.
func (e *Engine) volumeTest(key string, values []string) (func(*volume.Volume) bool, error) {
	switch key {
	case "name":
		match, err := nameMatcher(values)
		return func(v *volume.Volume) bool { return match(v.Name) }, err
	case "driver":
		return func(*volume.Volume) bool { return slices.Contains(values, volume.Driver) }, nil
	case "label":
		return func(v *volume.Volume) bool { return hasLabels(v.Labels, values) }, nil
	case "label!":
		return func(v *volume.Volume) bool { return !hasLabels(v.Labels, values) }, nil
	case "dangling":
		want, err := oneBool(key, values)
		if err != nil {
			return nil, err
		}
		users, err := e.volumeUsers()
		if err != nil {
			return nil, err
		}
		return func(v *volume.Volume) bool { return (len(users[v.Name]) == 0) == want }, nil
	}
	return nil, errdef.Invalid("invalid filter '%s'", clip(key))
}

// oneBool reads the values of a filter that is true or false.
func oneBool(key string, values []string) (bool, error) {
	yes, no := false, false
	for _, v := range values {
		switch v {
		case "1", "true":
			yes = true
		case "0", "false":
			no = true
		default:
			return false, errdef.Invalid("invalid filter '%s=%s'", key, clip(v))
		}
	}
	if yes && no {
		return false, errdef.Invalid("invalid filter '%s=[%s]'", key, "true false")
	}
	return yes, nil
}

// RemoveVolumeOptions are for RemoveVolume.
type RemoveVolumeOptions struct {
	Force bool   // one that is not there is no failure
	Now   bool   // past the trash
	Batch string // the same for all that one command removes
}

// RemoveVolume removes the volume called name with all its data. One that a container has, running or not, stays. saved is
// for how long it can be restored; 0 is not at all.
func (e *Engine) RemoveVolume(ctx context.Context, name string, o RemoveVolumeOptions) (saved time.Duration, err error) {
	if err := e.ready(); err != nil {
		return 0, err
	}
	done := false
	if !o.Now {
		done, saved, err = e.saveVolume(ctx, name, &o)
	}
	if !done && err == nil {
		err = e.volumes().Remove(ctx, name, e.unused)
	}
	if o.Force && errors.Is(err, errdef.ErrNotFound) {
		return 0, nil
	}
	if err == nil {
		_ = e.tidyTrash(ctx, nil) // or the next command does
	}
	return saved, e.storeError(err)
}

// PruneVolumes removes the volumes that no container has and all filters hold for: of those only the anonymous ones,
// unless the filter all says otherwise. A volume that somebody begins to use meanwhile stays.
func (e *Engine) PruneVolumes(ctx context.Context, filters map[string][]string) (*Pruned, error) {
	return e.pruneVolumes(ctx, filters, false, nil)
}

// pruneVolumes is PruneVolumes; a dry one takes the containers in gone for removed.
func (e *Engine) pruneVolumes(ctx context.Context, filters map[string][]string, dry bool, gone map[string]bool) (*Pruned, error) {
	all := false
	rest := make(map[string][]string, len(filters))
	for key, values := range filters {
		switch key {
		case "all":
			var err error
			if all, err = oneBool(key, values); err != nil {
				return nil, err
			}
		case "label", "label!":
			rest[key] = values
		default:
			return nil, errdef.Invalid("invalid filter '%s'", clip(key))
		}
	}
	list, err := e.Volumes(ctx, rest)
	if err != nil {
		return nil, err
	}
	users, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	out := new(Pruned)
	for _, v := range list {
		_, marked := v.Labels[anonymousLabel]
		used := slices.ContainsFunc(users[v.Name], func(id string) bool { return !gone[id] })
		if used || !all && !marked && !v.Anonymous() {
			continue
		}
		size, err := treeSize(ctx, v.Path())
		if err != nil {
			return out, err
		}
		switch {
		case !dry:
			_, err = e.RemoveVolume(ctx, v.Name, RemoveVolumeOptions{Now: true})
		case len(users[v.Name]) == 0:
			_, err = e.VolumeRemoval(ctx, v.Name, RemoveVolumeOptions{})
		}
		if errors.Is(err, errdef.ErrNotFound) || errors.Is(err, errdef.ErrConflict) {
			continue // somebody was quicker
		}
		if err != nil {
			return out, err
		}
		out.Volumes = append(out.Volumes, PrunedVolume{v.Name, size})
		out.Bytes += size
	}
	// Only who takes named volumes means those of the trash too.
	if err := e.pruneTrash(ctx, trash.Volume, all && len(rest) == 0, dry, out); err != nil {
		return out, err
	}
	if !dry {
		e.event("volume", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(out.Bytes, 10)})
	}
	return out, nil
}
