package api

import (
	"net/http"

	"hull/engine"

	"github.com/moby/moby/api/types/container"
)

// commitContainer is POST /commit. The body is a configuration that comes before the container's own, or nothing.
func (s *server) commitContainer(q *request) error {
	o := engine.CommitOptions{
		Author: q.query("author"), Comment: q.query("comment"), Changes: q.form["changes"], Pause: q.flagOr("pause", true),
	}
	if o.Ref = q.query("repo"); o.Ref != "" && q.query("tag") != "" {
		o.Ref += ":" + q.query("tag")
	}
	var body *container.Config
	if err := q.decodeOptional(&body); err != nil {
		return err
	}
	if body != nil {
		o.Config = configFrom(body)
	}
	id, warnings, err := s.engine.Commit(q.Context(), q.query("container"), o)
	if err != nil {
		return err
	}
	q.warn(warnings)
	return q.answer(http.StatusCreated, container.CommitResponse{ID: id})
}
