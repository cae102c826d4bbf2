package api

import (
	"net/http"

	"hull/engine"
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
	var policy *engine.RestartPolicy // nil: it stays
	if body.RestartPolicy.Name != "" {
		p := restartFrom(body.RestartPolicy)
		policy = &p
	}
	warnings, err := s.engine.Update(q.Context(), q.name, &change, policy)
	if err != nil {
		return err
	}
	if warnings == nil {
		warnings = []string{}
	}
	return q.answer(http.StatusOK, container.UpdateResponse{Warnings: warnings})
}
