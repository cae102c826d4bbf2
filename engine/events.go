package engine

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/state/journal"
	"hull/volume"
)

// Event is one line of the journal.
type Event = journal.Event

// EventsOptions choose events. Without Since and Until those are meant that happen from now on; with Until in the past
// nothing is waited for. Each key of Filters has values of which one must hold; all keys must.
type EventsOptions struct {
	Since, Until time.Time
	Filters      map[string][]string
}

// Events reads the journal. Nothing that happens after it has returned is missed. The sequence has to be ranged over;
// it ends at Until or with ctx, and its error is the last element.
func (e *Engine) Events(ctx context.Context, o EventsOptions) (iter.Seq2[*Event, error], error) {
	if !o.Until.IsZero() && o.Until.Before(o.Since) {
		return nil, errdef.Invalid("`since` time (%s) cannot be after `until` time (%s)", stamp(o.Since), stamp(o.Until))
	}
	f, err := newEventFilter(o.Filters)
	if err != nil {
		return nil, err
	}
	if err := e.ready(); err != nil {
		return nil, err
	}
	r, err := e.journal.Read(journal.Range{
		Since: o.Since, Until: o.Until,
		Tail:   o.Since.IsZero() && o.Until.IsZero(),
		Follow: o.Until.IsZero() || o.Until.After(time.Now()),
	})
	if err != nil {
		return nil, e.storeError(err)
	}
	return func(yield func(*Event, error) bool) {
		defer r.Close()
		for {
			ev, err := r.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil && !f.holds(ev) {
				continue
			}
			if !yield(ev, err) || err != nil {
				return
			}
		}
	}, nil
}

// stamp is a time as Docker puts it into this message.
func stamp(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// event records what happened to an object. Nobody is to fail for it: where there is no space for an event, it is lost.
func (e *Engine) event(kind, action, id string, attrs map[string]string) {
	_ = e.journal.Append(&Event{Type: kind, Action: action, ID: id, Attributes: attrs})
}

// containerEvent records what happened to c. The pairs are attributes beside those that every event of c has.
func (e *Engine) containerEvent(c *Container, action string, pairs ...string) {
	if c.step != "" { // part of a build
		return
	}
	attrs := c.eventAttributes()
	for i := 0; i+1 < len(pairs); i += 2 {
		attrs[pairs[i]] = pairs[i+1]
	}
	e.event("container", action, c.ID, attrs)
}

// eventAttributes are those of all events of c, in Docker's words: its labels, and what it is.
func (c *Container) eventAttributes() map[string]string {
	attrs := make(map[string]string, len(c.Config.Labels)+5)
	maps.Copy(attrs, c.Config.Labels)
	attrs["image"], attrs["name"] = c.Config.Image, c.Name
	return attrs
}

// uses is what c uses while it runs, for events.
func (e *Engine) uses(c *Container) monitor.Uses {
	var u monitor.Uses
	if _, joined := other(c.Host.Network); !joined {
		name := c.Host.Network
		u.Network = &monitor.NetworkUse{ID: e.networkID(name), Name: name, Driver: networkDriver(name)}
	}
	for _, m := range c.Mounts {
		if m.Type == mountVolume {
			u.Volumes = append(u.Volumes, monitor.VolumeUse{Name: m.Name, Driver: volume.Driver, Destination: m.Target, ReadOnly: m.ReadOnly, Propagation: m.Propagation})
		}
	}
	return u
}

// imageEvent records what happened to the image id, called name by whoever asked.
func (e *Engine) imageEvent(action, id, name string) {
	attrs := map[string]string{}
	if name != "" {
		attrs["name"] = name
	}
	e.event("image", action, id, attrs)
}

// recorded reports whether the journal has an event of this action and object since then. It reads the journal from
// there on: for repairs only, so that what a killed process may have recorded is not recorded twice.
func (e *Engine) recorded(action, id string, since time.Time) bool {
	r, err := e.journal.Read(journal.Range{Since: since, With: id})
	if err != nil {
		return false
	}
	defer r.Close()
	for {
		ev, err := r.Next(context.Background())
		if err != nil {
			return false
		}
		if ev.ID == id && ev.Action == action {
			return true
		}
	}
}

// eventFilter is the filters of Events by key.
type eventFilter map[string][]string

func newEventFilter(f map[string][]string) (eventFilter, error) {
	for key := range f {
		switch key {
		case "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume":
		default:
			return nil, errdef.Invalid("invalid filter '%s'", clip(key))
		}
	}
	return f, nil
}

// exact reports whether one of the values of key is one of words; a key without values holds for everything.
func (f eventFilter) exact(key string, words ...string) bool {
	values := f[key]
	return len(values) == 0 || slices.ContainsFunc(values, func(v string) bool { return slices.Contains(words, v) })
}

// begins is exact for values that may be the beginning of a word, as ids are shortened.
func (f eventFilter) begins(key string, words ...string) bool {
	values := f[key]
	return len(values) == 0 || slices.ContainsFunc(values, func(v string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, v) })
	})
}

func (f eventFilter) holds(ev *Event) bool {
	name := ev.Attributes["name"]
	// Docker looks at the id and name of whatever the event is about, but for these the type is meant too.
	for _, kind := range [...]string{"container", "network", "volume", "plugin", "daemon", "node", "service", "secret", "config"} {
		if len(f[kind]) > 0 && (ev.Type != kind || !f.begins(kind, ev.ID, name)) {
			return false
		}
	}
	return f.exact("type", ev.Type) && f.exact("scope", "local") && f.holdsAction(ev.Action) &&
		f.holdsImage(ev) && (len(f["label"]) == 0 || hasLabels(ev.Attributes, f["label"]))
}

// holdsAction lets exec_create, exec_start and health_status stand for what begins so: a command or a status follows.
func (f eventFilter) holdsAction(action string) bool {
	kind, _, _ := strings.Cut(action, ":")
	return f.exact("event", action, kind)
}

// holdsImage is for events of images and of containers made of them, with or without tag.
func (f eventFilter) holdsImage(ev *Event) bool {
	name := ev.Attributes["name"]
	if ev.Type == "container" {
		name = ev.Attributes["image"]
	}
	return f.exact("image", ev.ID, untagged(ev.ID), name, untagged(name))
}

// untagged is a reference without its tag.
func untagged(ref string) string {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}
