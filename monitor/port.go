package monitor

import (
	"hull/monitor/relay"
)

// publish claims the ports of the host that s.cfg asks for, once: a start that waits for its back-off has them already.
// They are given back when the container has ended, or was not started after all.
func (s *server) publish() error {
	if s.cfg.Publish == nil || s.ports != nil {
		return nil
	}
	r, err := relay.Listen(s.cfg.Publish)
	if err != nil {
		return err
	}
	s.ports = r
	return nil
}
