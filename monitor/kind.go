package monitor

import (
	"errors"

	"hull/errdef"
)

// kinds are the errdef kinds by their names on the wire.
var kinds = [...]struct {
	name string
	err  *error
}{
	{"invalid", &errdef.ErrInvalid},
	{"not-found", &errdef.ErrNotFound},
	{"conflict", &errdef.ErrConflict},
	{"not-modified", &errdef.ErrNotModified},
	{"forbidden", &errdef.ErrForbidden},
	{"unavailable", &errdef.ErrUnavailable},
	{"not-implemented", &errdef.ErrNotImplemented},
	{"cannot-run", &errdef.ErrCannotRun},
	{"no-command", &errdef.ErrNoCommand},
	{"deadline", &errdef.ErrDeadline},
	{"damaged", &errdef.ErrCorrupt},
}

// refusal is the answer that carries err, with its kind.
func refusal(err error) *Response {
	r := &Response{Error: err.Error()}
	kind := errdef.Kind(err)
	for _, k := range kinds {
		if *k.err == kind {
			r.Kind = k.name
		}
	}
	return r
}

// err is the error that the answer carries, or nil when it is OK.
func (r *Response) err() error {
	if r.OK {
		return nil
	}
	err := errors.New(r.Error)
	for _, k := range kinds {
		if k.name == r.Kind {
			return errdef.As(*k.err, err)
		}
	}
	return err
}
