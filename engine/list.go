package engine

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/network"
)

// ListOptions choose containers. Each key of Filters has values of which one must hold; all keys must.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the newest so many, running or not; 0 is no limit
	Filters map[string][]string
}

// List returns containers, newest first. Without All it looks only at those that run, however many others there are.
func (e *Engine) List(ctx context.Context, o ListOptions) ([]*Container, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	f, err := e.filter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	if err := e.repairAll(ctx); err != nil {
		return nil, err
	}
	all := o.All || o.Limit > 0 || f.anyState
	var out []*Container
	var forgotten []string
	collect := func(c *Container) {
		switch {
		case e.forsaken(c):
			forgotten = append(forgotten, c.ID)
		case c.step != "": // what a build runs is part of the build
		case (all || c.Running() || c.State.Status == StatusRestarting) && f.holds(c):
			out = append(out, c)
		}
	}
	if all {
		e.sweep()
		_ = e.tidyTrash(ctx, nil)
		err = e.each(collect)
	} else {
		err = e.eachRunning(collect)
	}
	for _, id := range forgotten {
		_ = e.remove(ctx, id) // or the next list does
	}
	sweepIDs()
	_ = e.networks().Sweep(network.Bridge)
	_ = e.healAll(out) // or the next list does
	slices.SortFunc(out, func(x, y *Container) int {
		return -x.Created.Compare(y.Created)
	})
	if o.Limit > 0 && len(out) > o.Limit {
		out = out[:o.Limit]
	}
	return out, err
}

// forsaken reports a container that was to remove itself at its end, has ended, and has no monitor that would still see
// to it: the machine went down, or whoever had promised to remove it was killed.
func (e *Engine) forsaken(c *Container) bool {
	if c.step != "" {
		return !c.Running() && e.stepForsaken(c)
	}
	if !c.Host.AutoRemove || c.State.Status != StatusExited || c.State.StartedAt.IsZero() {
		return false
	}
	_, alive := monitor.Alive(e.runDir(c.ID))
	return !alive
}

// each calls yield for every container, one at a time and in no order. Damaged ones come too. Definitions are read
// by two at once: with a thousand of them decoding is what takes the time.
func (e *Engine) each(yield func(*Container)) error {
	names, err := readNames(e.containers())
	if err != nil {
		return e.storeError(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !isID(n) })
	var mu sync.Mutex // held by whoever calls yield
	var readers sync.WaitGroup
	read := func(ids []string) {
		for _, id := range ids {
			if c := e.peek(id); c != nil {
				mu.Lock()
				yield(c)
				mu.Unlock()
			}
		}
	}
	mine, other := names, []string(nil)
	if half := len(names) / 2; half > 8 {
		mine, other = names[:half], names[half:]
	}
	readers.Go(func() { read(other) })
	read(mine)
	readers.Wait()
	return nil
}

// eachRunning is each for the containers that have a run directory.
func (e *Engine) eachRunning(yield func(*Container)) error {
	names, err := readNames(filepath.Join(e.run, "containers"))
	if err != nil {
		return err
	}
	for _, id := range names {
		if !isID(id) {
			continue
		}
		if c := e.peek(id); c != nil {
			yield(c)
		}
	}
	return nil
}

// peek is load for lists: nil when there is no such container (any more).
func (e *Engine) peek(id string) *Container {
	c, err := e.load(id)
	if err != nil {
		return nil
	}
	return c
}

// repairAll repairs what a killed monitor left: only containers with a run directory can need it.
func (e *Engine) repairAll(ctx context.Context) error {
	names, err := readNames(filepath.Join(e.run, "containers"))
	if err != nil {
		return err
	}
	for _, id := range names {
		if isID(id) {
			if _, err := e.settle(ctx, id); err != nil {
				return err
			}
		}
	}
	return e.resumeAll(ctx, names)
}

// filters is a parsed ListOptions.Filters.
type filters struct {
	tests    []func(*Container) bool // all must hold
	anyState bool                    // the filter itself says which states it wants
}

func (f *filters) holds(c *Container) bool {
	for _, t := range f.tests {
		if !t(c) {
			return false
		}
	}
	return true
}

func (e *Engine) filter(ctx context.Context, in map[string][]string) (*filters, error) {
	f := new(filters)
	for key, values := range in {
		if len(values) == 0 {
			continue
		}
		test, err := e.filterTest(ctx, key, values)
		if err != nil {
			return nil, err
		}
		f.tests = append(f.tests, test)
		switch key {
		case "status", "exited", "before", "since":
			f.anyState = true
		}
	}
	return f, nil
}

// filterTest is the test for one key: one of the values must hold, but all of them for labels, as in Docker.
func (e *Engine) filterTest(ctx context.Context, key string, values []string) (func(*Container) bool, error) {
	anyOf := func(one func(c *Container, v string) bool) func(*Container) bool {
		return func(c *Container) bool {
			return slices.ContainsFunc(values, func(v string) bool { return one(c, v) })
		}
	}
	switch key {
	case "id":
		return anyOf(func(c *Container, v string) bool { return strings.HasPrefix(c.ID, v) }), nil
	case "name":
		match, err := nameMatcher(values)
		return func(c *Container) bool { return match(c.Name) }, err
	case "label":
		return func(c *Container) bool { return hasLabels(c.Config.Labels, values) }, nil
	case "status":
		for _, v := range values {
			if !contains("created running paused restarting removing exited dead", v) {
				return nil, errdef.Invalid("invalid filter 'status=%s'", clip(v))
			}
		}
		return anyOf(func(c *Container, v string) bool { return c.State.Status == v }), nil
	case "exited":
		for _, v := range values {
			if _, err := strconv.Atoi(v); err != nil {
				return nil, errdef.Invalid("invalid filter 'exited=%s'", clip(v))
			}
		}
		return anyOf(func(c *Container, v string) bool {
			return c.State.Status == StatusExited && strconv.Itoa(c.State.ExitCode) == v
		}), nil
	case "ancestor":
		return e.ancestor(ctx, values), nil
	case "before", "since":
		return e.createdTest(ctx, key == "before", values)
	case "network":
		return anyOf(func(c *Container, v string) bool { return c.Host.Network == v }), nil
	case "volume":
		return anyOf(func(c *Container, v string) bool { return usesVolume(c, v) }), nil
	case "health":
		for _, v := range values {
			if !contains("none starting healthy unhealthy", v) {
				return nil, errdef.Invalid("invalid filter 'health=%s'", clip(v))
			}
		}
		return anyOf(func(c *Container, v string) bool { return c.State.healthStatus() == v }), nil
	case "publish", "expose":
		return portTest(key == "publish", values)
	case "is-task":
		return anyOf(func(_ *Container, v string) bool { return v == "false" || v == "0" }), nil
	}
	return nil, errdef.Invalid("invalid filter '%s'", clip(key))
}

func hasLabels(have map[string]string, want []string) bool {
	for _, w := range want {
		k, v, withValue := strings.Cut(w, "=")
		got, ok := have[k]
		if !ok || withValue && got != v {
			return false
		}
	}
	return true
}

// ancestor holds for containers of the images; an image nobody has yet matches by the word the person used.
func (e *Engine) ancestor(ctx context.Context, values []string) func(*Container) bool {
	ids := make(map[string]bool)
	for _, v := range values {
		if img, err := e.images().Resolve(ctx, v); err == nil {
			ids[img.ID] = true
		}
	}
	return func(c *Container) bool { return ids[c.Image] || slices.Contains(values, c.Config.Image) }
}

func (e *Engine) createdTest(ctx context.Context, before bool, values []string) (func(*Container) bool, error) {
	var at time.Time
	for _, v := range values {
		c, err := e.get(ctx, v)
		if err != nil {
			return nil, err
		}
		at = c.Created
	}
	return func(c *Container) bool {
		if before {
			return c.Created.Before(at)
		}
		return c.Created.After(at)
	}, nil
}

// usesVolume reports whether the container has a mount of the volume, source or place v.
func usesVolume(c *Container, v string) bool {
	return slices.ContainsFunc(c.Mounts, func(m MountPoint) bool { return m.Name == v || m.Target == v || m.Source == v })
}
