package api

import (
	"net/http"
	"time"

	"hull/engine"
	"hull/errdef"
	"hull/ref"

	"github.com/docker/go-units"
	images "github.com/moby/moby/api/types/image"
)

// collected is what POST /hull/v1/gc answers.
type collected struct {
	Images         []collectedImage // that went, the least recently used first
	Stay           []stayingImage
	Deleted        []images.DeleteResponse
	Dropped        []droppedBlob
	SpaceReclaimed int64
	Before, After  int64 // bytes of all layers and blobs
}

type collectedImage struct {
	ID       string
	Names    []string
	LastUsed time.Time
	Size     int64 // that nothing else needed
}

type droppedBlob struct {
	Digest ref.Digest
	Size   int64
	From   string // a repository that holds it
}

type stayingImage struct{ ID, Why string }

// collectGarbage is POST /hull/v1/gc?keep=20GB&unused-for=14d&reflog=30d&drop-blobs=1&dry-run=1. With progress=1 the answer is
// a stream of messages, of which the last has under aux what it is otherwise.
func (s *server) collectGarbage(q *request) error {
	o := engine.GCOptions{Dry: q.flag("dry-run")}
	if text := q.query("keep"); text != "" {
		n, err := units.RAMInBytes(text)
		if err != nil || n < 0 {
			return errdef.Invalid("invalid size %q to keep: want one like 20GB or 500m", text)
		}
		o.Keep = &n
	}
	for key, to := range map[string]**time.Duration{"unused-for": &o.Unused, "reflog": &o.Reflog} {
		text := q.query(key)
		if text == "" {
			continue
		}
		d, ok := ref.ParseAge(text)
		if !ok {
			return errdef.Invalid("invalid age %q of %s: want one like 14d, 12h or 0s", text, key)
		}
		*to = &d
	}
	if q.flag("drop-blobs") {
		o.Drop = new(true)
	}
	m := &messages{q: q}
	streams := q.flag("progress")
	if streams {
		o.Progress = m.progress
	}
	c, err := s.engine.GC(q.Context(), o)
	if err != nil {
		return m.fail(err)
	}
	out := collected{Images: []collectedImage{}, Stay: []stayingImage{}, Deleted: deletedImages(c.Deleted), Dropped: []droppedBlob{}, SpaceReclaimed: c.Bytes, Before: c.Before, After: c.After}
	for _, i := range c.Images {
		out.Images = append(out.Images, collectedImage{i.ID, notNil(i.Names), i.Used, i.Bytes})
	}
	for _, b := range c.Dropped {
		out.Dropped = append(out.Dropped, droppedBlob(b))
	}
	for _, i := range c.Stay {
		out.Stay = append(out.Stay, stayingImage(i))
	}
	if streams {
		m.send(message{Aux: out})
		return nil
	}
	return q.answer(http.StatusOK, out)
}
