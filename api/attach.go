package api

import (
	"context"

	"hull/engine"
	"hull/errdef"
)

func badKeys(s string) error { return errdef.Invalid("Invalid detach keys (%s) provided", s) }

// attachContainer is POST /containers/{name}/attach.
func (s *server) attachContainer(q *request) error {
	keys, err := parseKeys(q.query("detachKeys"))
	if err != nil {
		return err
	}
	return q.connect(keys, func(ctx context.Context) (engine.Stream, bool, error) {
		o := engine.AttachOptions{Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr")}
		return s.engine.Attach(ctx, q.name, o)
	})
}
