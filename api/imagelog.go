package api

import (
	"net/http"
	"time"

	"hull/errdef"
	"hull/image"
)

// imageVersion is an entry of the answer of GET /hull/v1/images/{name...}/log, in Docker's manner of naming.
type imageVersion struct {
	Ref      string
	N        int // Ref@{N} names it
	Time     time.Time
	By       string
	Target   string // digest; "" when the reference was removed
	ID       string
	Revision string
	Size     int64
	Change   *int64 // of the size; null when not known
	Present  bool
	Pinned   bool
}

// imageLog is GET /hull/v1/images/{name...}/log, and GET /hull/v1/images/log for all references.
func (s *server) imageLog(q *request) error {
	limit, err := q.number("limit", 0)
	if err != nil {
		return err
	}
	if limit < 0 {
		return errdef.Invalid("limit must not be negative")
	}
	list, err := s.engine.ImageLog(q.name, limit)
	if err != nil {
		return err
	}
	out := make([]imageVersion, 0, len(list))
	for _, v := range list {
		w := imageVersion{
			Ref: v.Ref, N: v.N, Time: v.Time, By: v.By, Target: v.Target, ID: v.ID,
			Revision: v.Revision, Size: v.Size, Present: v.Present, Pinned: v.Pinned,
		}
		if v.HasChange {
			w.Change = &v.Change
		}
		out = append(out, w)
	}
	return q.answer(http.StatusOK, out)
}

// imageRollback is the answer of POST /hull/v1/images/{name...}/rollback?to=@{1}&dry=1.
type imageRollback struct {
	Ref          string
	From, To     string // image ids
	Place        string // in the log before the change: @{1}
	Since        time.Time
	AlreadyThere bool
}

func (s *server) rollbackImage(q *request) error {
	r, err := s.engine.RollbackImage(q.Context(), q.name, q.query("to"), q.flag("dry"))
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, imageRollback{r.Ref, r.From, r.To, r.Place, r.Since, r.AlreadyThere})
}

// imagePin is an entry of the answer of GET /hull/v1/pins.
type imagePin struct {
	ID     string
	Name   string
	Reason string
	Time   time.Time
	Size   int64
}

func wirePin(p *image.Pin) imagePin { return imagePin{p.ID, p.Name, p.Reason, p.Time, p.Size} }

// pinImage is POST /hull/v1/images/{name...}/pin?reason=TEXT.
func (s *server) pinImage(q *request) error {
	p, err := s.engine.PinImage(q.Context(), q.name, q.query("reason"))
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, wirePin(p))
}

// unpinImage is DELETE /hull/v1/images/{name...}/pin.
func (s *server) unpinImage(q *request) error {
	p, err := s.engine.UnpinImage(q.Context(), q.name)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, wirePin(p))
}

func (s *server) listPins(q *request) error {
	list, err := s.engine.PinnedImages()
	if err != nil {
		return err
	}
	out := make([]imagePin, 0, len(list))
	for i := range list {
		out = append(out, wirePin(&list[i]))
	}
	return q.answer(http.StatusOK, out)
}

// untagImage is POST /hull/v1/images/{name...}/untag?name=NAME&name=...; without names all go.
func (s *server) untagImage(q *request) error {
	gone, err := s.engine.UntagImage(q.Context(), q.name, q.form["name"])
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, struct{ Untagged []string }{notNil(gone)})
}
