package monitor

import (
	"maps"
	"strconv"
	"strings"

	"hull/state/journal"
)

// event appends to the journal what only the monitor sees. The pairs are attributes beside those that every event of
// the container has. Nobody is to fail for it: where there is no space for an event, it is lost.
func (s *server) event(action string, pairs ...string) {
	s.mu.Lock()
	dir, id, attrs := s.cfg.Events, s.cfg.ID, s.cfg.Attributes
	s.mu.Unlock()
	if dir == "" {
		return
	}
	if len(pairs) > 0 {
		attrs = maps.Clone(attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		attrs[pairs[i]] = pairs[i+1]
	}
	_ = journal.Open(dir).Append(&journal.Event{Type: "container", Action: action, ID: id, Attributes: attrs})
}

// volumeEvents tells of each volume of the container that it is used from now on ("mount") or no longer ("unmount").
func (s *server) volumeEvents(action string) {
	s.mu.Lock()
	dir, id, volumes := s.cfg.Events, s.cfg.ID, s.cfg.Volumes
	s.mu.Unlock()
	if dir == "" {
		return
	}
	j := journal.Open(dir)
	for i := range volumes {
		_ = j.Append(volumes[i].Event(action, id))
	}
}

// Event is Docker's event of the type volume about the use by a container.
func (v *VolumeUse) Event(action, container string) *journal.Event {
	attrs := map[string]string{"driver": v.Driver, "container": container}
	if action == "mount" {
		attrs["destination"], attrs["propagation"] = v.Destination, v.Propagation
		attrs["read/write"] = strconv.FormatBool(!v.ReadOnly)
	}
	return &journal.Event{Type: "volume", Action: action, ID: v.Name, Attributes: attrs}
}

// execEvent is event about an exec, whose command is part of Docker's word for it.
func (s *server) execEvent(action string, e *exec, pairs ...string) {
	if action != "exec_die" {
		action += ": " + strings.Join(e.state.Process.Args, " ")
	}
	s.event(action, append(pairs, "execID", s.cfg.ID+e.state.ID)...)
}

// rename gives the container the name that its events are to carry from now on.
func (s *server) rename(req *Request) *Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	attrs := maps.Clone(s.cfg.Attributes) // the old map may be in use
	if attrs == nil {
		attrs = map[string]string{}
	}
	attrs["name"] = req.Name
	s.cfg.Name, s.cfg.Attributes = req.Name, attrs
	return &Response{OK: true}
}
