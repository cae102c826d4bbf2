package api

import (
	"strings"

	"hull/engine"
	"hull/image"
	"hull/ref"
)

// pullImage is POST /images/create with fromImage. The built-in image needs no registry.
func (s *server) pullImage(q *request, name, tag string) error {
	if err := noPeer(name); err != nil {
		return err
	}
	m := &messages{q: q}
	if full := withTag(name, tag); engine.IsBox(full) {
		if _, err := s.engine.Image(q.Context(), engine.BoxRef); err != nil {
			return err
		}
		m.send(message{Status: "Status: the image " + engine.BoxRef + " is built in"})
		return nil
	}
	remote, err := q.remote(m, name)
	if err != nil {
		return err
	}
	if err := s.pull(q, m, remote, name, tag); err != nil {
		return m.fail(err)
	}
	return nil
}

// pull brings what a registry or a peer has, and tells m.
func (s *server) pull(q *request, m *messages, remote engine.Remote, name, tag string) error {
	return s.engine.PullImage(q.Context(), name, tag, engine.PullOptions{
		Remote: remote, Platform: q.query("platform"), AllPlatforms: q.flag("allPlatforms"),
		Progress: m.progress,
		Done: func(p image.Pulled, r ref.Ref) {
			m.send(message{Status: "Digest: " + p.Digest})
			if p.New {
				m.send(message{Status: "Status: Downloaded newer image for " + r.Familiar()})
			} else {
				m.send(message{Status: "Status: Image is up to date for " + r.Familiar()})
			}
		},
	})
}

func withTag(name, tag string) string {
	switch {
	case tag == "":
		return name
	case strings.Contains(tag, ":"):
		return name + "@" + tag
	}
	return name + ":" + tag
}

// progress sends how far a layer is.
func (m *messages) progress(p image.Progress) {
	m.send(message{ID: p.ID, Status: p.Action, Progress: &progress{p.Current, p.Total}})
}
