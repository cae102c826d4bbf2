package api

import (
	"net/http"

	"hull/errdef"
)

// Hull has no swarm: more machines than one are Kubernetes' work. Clients are told what Docker tells them on a machine
// that is in none, so that they go on without.

func (s *server) noManager(*request) error {
	return errdef.Unavailable("This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
}

func (s *server) noSwarm(*request) error {
	return errdef.Unavailable("This node is not part of a swarm")
}

func (s *server) refuseSwarm(*request) error {
	return errdef.NotImplemented("Hull has no swarm: for several machines use Kubernetes")
}

// noPlugins is GET /plugins.
func (s *server) noPlugins(q *request) error { return q.answer(http.StatusOK, []struct{}{}) }
