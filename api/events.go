package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"hull/engine"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
)

// events is GET /events: a stream of JSON values that ends with `until`, or with the client. A client that reads slowly
// costs nothing but its connection: the journal is on disk.
func (s *server) events(q *request) error {
	o := engine.EventsOptions{}
	var err error
	if o.Since, err = parseTime("since", q.query("since")); err != nil {
		return err
	}
	if o.Until, err = parseTime("until", q.query("until")); err != nil {
		return err
	}
	if o.Filters, err = q.filters(); err != nil {
		return err
	}
	ctx, cancel := s.whileOpen(q)
	defer cancel()
	list, err := s.engine.Events(ctx, o)
	if err != nil {
		return err
	}
	kind, prefix := q.streamOfJSON()
	q.w.Header().Set("Content-Type", kind)
	q.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(q.w).Flush
	_ = flush()
	enc := json.NewEncoder(q.w)
	for ev, err := range list {
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("read journal", "error", err)
			}
			break
		}
		if prefix != "" {
			_, _ = q.w.Write([]byte(prefix))
		}
		if enc.Encode(q.wireEvent(ev)) != nil || flush() != nil {
			break // the client has gone
		}
	}
	return errAnswered
}

// streamOfJSON is the content type of a stream of JSON values that the client likes best, and what is before each value.
func (q *request) streamOfJSON() (kind, prefix string) {
	for accepted := range strings.SplitSeq(q.Header.Get("Accept"), ",") {
		switch accepted, _, _ = strings.Cut(accepted, ";"); strings.TrimSpace(accepted) {
		case types.MediaTypeNDJSON:
			return types.MediaTypeNDJSON, ""
		case types.MediaTypeJSONLines:
			return types.MediaTypeJSONLines, ""
		case types.MediaTypeJSONSequence:
			return types.MediaTypeJSONSequence, "\x1e" // RFC 7464
		}
	}
	return "application/json", ""
}

// legacyEvent has the members that clients read before there was an Actor, and some still do.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// wireEvent is ev as API version q.minor has it: 1.52 dropped what legacyEvent adds.
func (q *request) wireEvent(ev *engine.Event) any {
	attrs := ev.Attributes
	if attrs == nil {
		attrs = map[string]string{}
	}
	m := events.Message{
		Type: events.Type(ev.Type), Action: events.Action(ev.Action), Actor: events.Actor{ID: ev.ID, Attributes: attrs},
		Scope: "local", Time: ev.Nano / 1e9, TimeNano: ev.Nano,
	}
	if q.minor >= 52 {
		return m
	}
	old := legacyEvent{Message: m}
	switch ev.Type {
	case "container":
		old.Status, old.ID, old.From = ev.Action, ev.ID, attrs["image"]
	case "image":
		old.Status, old.ID = ev.Action, ev.ID
	}
	return old
}
