package api

import "net/http"

func (s *server) pauseContainer(q *request) error {
	if err := s.engine.Pause(q.Context(), q.name); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (s *server) unpauseContainer(q *request) error {
	if err := s.engine.Unpause(q.Context(), q.name); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}
