package api

import "net/http"

// diagnosis is the answer of GET /hull/v1/doctor, in Docker's manner of naming.
type diagnosis struct {
	Healthy bool
	Kernel  string
	Arch    string
	UID     int
	Root    string
	Run     string
	Checks  []check
}

type check struct{ Group, Name, Level, Found, Means, Do string }

func (s *server) doctor(q *request) error {
	d := s.engine.Doctor(q.Context())
	out := diagnosis{d.Healthy(), d.Kernel, d.Arch, d.UID, d.Root, d.Run, make([]check, 0, len(d.Checks))}
	for _, c := range d.Checks {
		out.Checks = append(out.Checks, check{c.Group, c.Name, string(c.Level), c.Found, c.Means, c.Do})
	}
	return q.answer(http.StatusOK, out)
}
