package api

import (
	"net/http"

	"github.com/moby/moby/api/types/container"
)

// topContainer is GET /containers/{name}/top.
func (s *server) topContainer(q *request) error {
	t, err := s.engine.Top(q.Context(), q.name, q.query("ps_args"))
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, container.TopResponse{Titles: t.Titles, Processes: t.Processes})
}
