package api

import (
	"net/http"

	"hull/engine"
)

// checkedStore is what POST /hull/v1/check answers.
type checkedStore struct {
	Whole  bool // nothing is damaged, or all is repaired
	Damage []damage
}

type damage struct {
	Object, Problem string
	Cure            string // what to do; "" when it is repaired
	Repaired        bool
}

// checkStore is POST /hull/v1/check?repair=1.
func (s *server) checkStore(q *request) error {
	found, err := s.engine.CheckStore(q.Context(), q.flag("repair"), engine.Remote{})
	if err != nil {
		return err
	}
	out := checkedStore{Whole: true, Damage: []damage{}}
	for _, d := range found {
		out.Whole = out.Whole && d.Repaired
		out.Damage = append(out.Damage, damage{d.Object, d.Problem, d.Cure, d.Repaired})
	}
	return q.answer(http.StatusOK, out)
}
