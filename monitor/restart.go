package monitor

import (
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/state"
)

// bide has the container started after d, unless it is cancelled before: the back-off of a restart policy. It holds the
// monitor for as long.
func (s *server) bide(d time.Duration) *Response {
	before, err := s.claim()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.phase = phaseIdle
		return refusal(err)
	}
	s.holds++ // this connection holds, so it is not leaving
	s.state, s.phase = *before, phaseBiding
	s.biding = time.AfterFunc(d, func() {
		defer s.release()
		if s.begin(phaseBiding) == nil {
			s.startNow(new(Request))
		}
	})
	return &Response{OK: true, State: before}
}

// claim reads what the engine wrote and takes the ports, which nobody else is to get meanwhile. It returns the state as it
// is on disk: who heals the firewall reads there what leads here.
func (s *server) claim() (*State, error) {
	cfg := new(Config)
	if err := readJSON(filepath.Join(s.path, ConfigFile), cfg); err != nil {
		return nil, err
	}
	st, err := ReadState(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.cfg = *cfg
	s.mu.Unlock()
	if err := s.publish(); err != nil {
		return nil, err
	}
	if st.Ports = s.ports.Ports(); len(st.Ports) > 0 {
		err = WriteState(cfg.StateDir, st, state.Write)
	}
	return st, err
}

// cancel ends the back-off without a start. When it comes too late, it answers only when the start has gone well or
// failed, so that whoever wants the container stopped knows what there is to stop.
func (s *server) cancel() *Response {
	s.mu.Lock()
	if s.phase != phaseBiding {
		starting := s.phase == phaseStarting
		s.mu.Unlock()
		if starting {
			<-s.started // bounded by createTimeout
		}
		return refusal(errdef.Conflict("no start is waiting"))
	}
	s.phase = phaseEnding // what the timer begins is refused from here on
	s.cfg.OnExit = nil
	st := s.state
	if s.biding.Stop() {
		defer s.release()
	}
	s.mu.Unlock()
	s.out.end(func() { s.finish(st) })
	return &Response{OK: true, State: s.current()}
}

// onExit replaces what the monitor becomes at its end.
func (s *server) onExit(req *Request) *Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseRunning && s.phase != phaseStarting {
		return refusal(errdef.Conflict("container %s is not running", filepath.Base(s.path)))
	}
	s.cfg.OnExit = req.OnExit
	return &Response{OK: true}
}
