package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"hull/engine"
	"hull/errdef"
	"hull/registry"
)

// Builder executes builds. hulld has one.
type Builder interface {
	// Build runs b to its end. status is called with what happens, as JSON; it is never called after Build has returned.
	Build(ctx context.Context, b *Build, status func(json.RawMessage)) (*BuildResult, error)
}

// Build is the body of POST /hull/v1/build.
type Build struct {
	Attrs   map[string]string // of the frontend
	Locals  map[string]string // directories of this machine: only for who shares this process
	Secrets map[string][]byte
	Agents  map[string]string // sockets of ssh agents
	Allow   []string
	Tags    []string
	By      string
	Epoch   *time.Time    // that everything is made at
	Output  string        // "image", "none"
	Remote  engine.Remote `json:"-"`
}

// BuildResult is what a build made.
type BuildResult struct {
	ID       string            // of the build
	Image    string            // id
	Manifest string            // digest
	Metadata map[string][]byte // of the frontend
}

// BuildError is one that has more to show than a sentence.
type BuildError struct {
	Err    error
	Source string // lines of the Dockerfile, with a mark at those at fault
	Status int    // that of the command that failed
}

func (e *BuildError) Error() string { return e.Err.Error() }
func (e *BuildError) Unwrap() error { return e.Err }

// hullBuild is POST /hull/v1/build. The answer is a stream of messages: what happens is under aux.status, the result under
// aux.result, what there is to show of an error under aux.failure.
func (s *server) hullBuild(q *request) error {
	if s.builder == nil {
		return errdef.NotImplemented("this program cannot build: ask hulld")
	}
	var b Build
	if err := q.decode(&b); err != nil {
		return err
	}
	if len(b.Locals)+len(b.Agents) > 0 && !s.local {
		return errdef.Forbidden("a build may name directories of this machine only from this machine: send a context")
	}
	logins, err := q.logins()
	if err != nil {
		return err
	}
	b.Remote.Credential = func(name string) registry.Credential { return logins[name] }
	m := &messages{q: q}
	res, err := s.builder.Build(q.Context(), &b, func(status json.RawMessage) {
		m.send(message{Aux: map[string]json.RawMessage{"status": status}})
	})
	if failed := (*BuildError)(nil); errors.As(err, &failed) {
		m.send(message{Aux: map[string]any{"failure": map[string]any{"source": failed.Source, "status": failed.Status}}})
	}
	if err != nil {
		return m.fail(err)
	}
	m.send(message{Aux: map[string]any{"result": res}})
	return nil
}
