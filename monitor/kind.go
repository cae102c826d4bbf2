package monitor

import (
	"errors"

	"hull/errdef"
)

// refusal is the answer that carries err, with its kind.
func refusal(err error) *Response { return &Response{Error: err.Error(), Kind: errdef.Name(err)} }

// err is the error that the answer carries, or nil when it is OK.
func (r *Response) err() error {
	if r.OK {
		return nil
	}
	return errdef.Named(r.Kind, errors.New(r.Error))
}
