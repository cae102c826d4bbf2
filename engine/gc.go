package engine

import (
	"context"
	"strconv"
	"strings"
	"time"

	"hull/image"
)

// GCOptions are for GC. What is nil the file of settings says.
type GCOptions struct {
	Keep           *int64               // bytes that images may take
	Unused, Reflog *time.Duration       // as image.GCOptions has them
	Drop           *bool                // as image.GCOptions has it
	Dry            bool                 // change nothing, only tell
	Progress       func(image.Progress) // as image.GCOptions has it
	by             string
}

// GC removes images by when they were last used, and what nothing needs.
func (e *Engine) GC(ctx context.Context, o GCOptions) (*image.Collected, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	conf, err := e.Config()
	if err != nil {
		return nil, err
	}
	if o.Keep == nil && conf.GC.Keep > 0 {
		o.Keep = &conf.GC.Keep
	}
	if o.Unused == nil {
		o.Unused = conf.GC.Unused
	}
	window := image.DefaultWindow
	if o.Reflog == nil {
		o.Reflog = conf.GC.Reflog
	}
	if o.Reflog != nil {
		window = *o.Reflog
	}
	if o.Drop == nil {
		o.Drop = new(conf.GC.DropBlobs)
	}
	users, err := e.imageUsers(nil)
	if err != nil {
		return nil, err
	}
	inUse := func(id string) []image.User {
		if list := users[id]; len(list) > 0 { // who has begun to use it since is asked only about the others
			return list
		}
		if o.Dry {
			return nil
		}
		return e.usersOf(id)
	}
	c, err := e.images().GC(ctx, image.GCOptions{
		Keep: o.Keep, Unused: o.Unused, Window: window, Drop: *o.Drop, Dry: o.Dry, InUse: inUse, Kept: e.layersInUse, Progress: o.Progress, By: o.by,
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	if !o.Dry {
		for _, d := range c.Deleted {
			if strings.HasPrefix(d.Deleted, "sha256:") {
				e.imageEvent("delete", d.Deleted, d.Deleted)
			}
		}
		if len(c.Deleted)+len(c.Dropped) > 0 {
			e.event("image", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(c.Bytes, 10)})
		}
	}
	return c, nil
}

// keepBudget collects if the file of settings has a budget for images and they take more. Whoever has brought in an image
// calls it: what could not be freed then is the next one's to free, and no reason to say that the image did not come.
func (e *Engine) keepBudget(ctx context.Context) {
	conf, err := e.Config()
	if err != nil || conf.GC.Keep == 0 || e.images().Bytes() <= conf.GC.Keep {
		return
	}
	o := GCOptions{by: "gc, for the budget"}
	if conf.GC.Unused != nil { // a short one would take what has just been brought in before anybody could use it
		o.Unused = new(max(*conf.GC.Unused, image.GraceOfBudget))
	}
	_, _ = e.GC(context.WithoutCancel(ctx), o)
}

// LastUse is when the image id was brought in, or a container was last made of it or removed.
func (e *Engine) LastUse(id string) time.Time { return e.images().LastUse(id) }
