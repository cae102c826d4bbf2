package api

import (
	"context"
	"net/http"

	"hull/engine"
)

// bootEvent is POST /hull/v1/events/boot: the machine has booted.
func (s *server) bootEvent(q *request) error {
	return q.outcomes(s.engine.Boot(context.WithoutCancel(q.Context())))
}

// shutdownEvent is POST /hull/v1/events/shutdown: the machine goes down.
func (s *server) shutdownEvent(q *request) error {
	return q.outcomes(s.engine.Shutdown(context.WithoutCancel(q.Context())))
}

func (q *request) outcomes(list []engine.Outcome, err error) error {
	if err != nil {
		return err
	}
	type outcome struct {
		ID, Name string
		Error    string `json:",omitempty"`
	}
	out := make([]outcome, len(list))
	for i, o := range list {
		out[i] = outcome{ID: o.ID, Name: o.Name}
		if o.Err != nil {
			out[i].Error = o.Err.Error()
		}
	}
	return q.answer(http.StatusOK, out)
}
