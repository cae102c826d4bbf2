package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"hull/runtime/files"
)

// Change is one way in which a container's files differ from its image's.
type Change = files.Change

// Diff lists the changes, directories before what is in them. What is mounted in the container does not count.
func (e *Engine) Diff(ctx context.Context, name string) ([]Change, error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, err
	}
	w, err := e.work(ctx, c, &files.Job{Op: files.OpChanges}, nil)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	var out []Change
	for dec := json.NewDecoder(w); ; {
		var change Change
		if err := dec.Decode(&change); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		out = append(out, change)
	}
}
