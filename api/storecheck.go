package api

import (
	"hull/engine"
	"hull/registry"
)

// checkedStore is the last message of POST /hull/v1/check, under aux.
type checkedStore struct {
	Whole  bool // nothing is damaged, or all is repaired; and everything could be looked at
	Damage []damage
}

type damage struct {
	Object, Problem string
	Cure            string // what to do; "" when it is repaired
	Repaired        bool
	Unchecked       bool // it could not be looked at: nobody knows
}

// checkStore is POST /hull/v1/check?repair=1: a stream of messages, of which the last is what was found. Credentials for a
// repair come as X-Registry-Config.
func (s *server) checkStore(q *request) error {
	logins, err := q.logins()
	if err != nil {
		return err
	}
	m := &messages{q: q}
	found, err := s.engine.CheckStore(q.Context(), engine.CheckOptions{
		Repair: q.flag("repair"), Progress: m.progress,
		Remote: engine.Remote{Credential: func(name string) registry.Credential { return logins[name] }},
	})
	if err != nil {
		return m.fail(err)
	}
	out := checkedStore{Whole: true, Damage: []damage{}}
	for _, d := range found {
		out.Whole = out.Whole && d.Repaired
		out.Damage = append(out.Damage, damage{d.Object, d.Problem, d.Cure, d.Repaired, d.Unchecked})
	}
	m.send(message{Aux: out})
	return nil
}
