package api

import (
	"net/http"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// updateContainer is POST /containers/{name}/update.
func (s *server) updateContainer(q *request) error {
	var body container.UpdateConfig
	if err := q.decode(&body); err != nil {
		return err
	}
	if err := container.ValidateRestartPolicy(body.RestartPolicy); err != nil {
		return errdef.As(errdef.ErrInvalid, err)
	}
	change := resourcesFrom(&body.Resources)
	if n := body.PidsLimit; n != nil && *n == 0 { // unlimited, here
		change.PidsLimit = n
	}
	warnings, err := s.engine.Update(q.Context(), q.name, &change)
	if err != nil {
		return err
	}
	if body.RestartPolicy.Name != "" { // else it stays
		if err := s.engine.SetRestart(q.Context(), q.name, restartFrom(body.RestartPolicy)); err != nil {
			return err
		}
	}
	if warnings == nil {
		warnings = []string{}
	}
	return q.answer(http.StatusOK, container.UpdateResponse{Warnings: warnings})
}
