package monitor

import (
	"maps"
	"strconv"
	"strings"

	"hull/state/journal"
)

// event appends to the journal what only the monitor sees. The pairs are attributes beside those that every event of
// the container has.
func (s *server) event(action string, pairs ...string) { s.tell(s.containerEvent(action, pairs...)) }

// tell appends events to the journal. Nobody is to fail for it: where there is no space for an event, it is lost.
func (s *server) tell(events ...*journal.Event) {
	s.mu.Lock()
	dir := s.cfg.Events
	s.mu.Unlock()
	if dir != "" {
		_ = journal.Open(dir).Append(events...)
	}
}

func (s *server) containerEvent(action string, pairs ...string) *journal.Event {
	s.mu.Lock()
	id, attrs := s.cfg.ID, s.cfg.Attributes
	s.mu.Unlock()
	if len(pairs) > 0 {
		attrs = maps.Clone(attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		attrs[pairs[i]] = pairs[i+1]
	}
	return &journal.Event{Type: "container", Action: action, ID: id, Attributes: attrs}
}

// tellStart tells of a start in Docker's order: the network, the volumes, the container.
func (s *server) tellStart() {
	s.mu.Lock()
	u := s.cfg.Uses
	s.mu.Unlock()
	s.tell(append(u.Begun(s.cfg.ID), s.containerEvent("start"))...)
}

// tellEnd tells of an end in Docker's order: die, the network, the volumes.
func (s *server) tellEnd(st *State) {
	s.mu.Lock()
	u := s.cfg.Uses
	s.mu.Unlock()
	var events []*journal.Event
	if st.OOMKilled {
		events = append(events, s.containerEvent("oom"))
	}
	seconds := int(st.FinishedAt.Sub(st.StartedAt).Seconds())
	events = append(events, s.containerEvent("die", "exitCode", strconv.Itoa(st.ExitCode), "execDuration", strconv.Itoa(seconds)))
	s.tell(append(events, u.Ended(s.cfg.ID)...)...)
}

// Begun are the events of the container's start about what it uses.
func (u *Uses) Begun(container string) []*journal.Event {
	return u.events("connect", "mount", container)
}

// Ended are the events of the container's end about what it uses.
func (u *Uses) Ended(container string) []*journal.Event {
	return u.events("disconnect", "unmount", container)
}

func (u *Uses) events(network, volume, container string) []*journal.Event {
	out := make([]*journal.Event, 0, 2+len(u.Volumes))
	if n := u.Network; n != nil {
		out = append(out, &journal.Event{Type: "network", Action: network, ID: n.ID,
			Attributes: map[string]string{"container": container, "name": n.Name, "type": n.Driver}})
	}
	for i := range u.Volumes {
		out = append(out, u.Volumes[i].event(volume, container))
	}
	return out
}

// event is Docker's event of the type volume about the use by a container.
func (v *VolumeUse) event(action, container string) *journal.Event {
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
