package monitor

import (
	"errors"

	"hull/errdef"
	"hull/monitor/relay"
)

// refusal is the answer that carries err, with its kind.
func refusal(err error) *Response {
	r := &Response{Error: err.Error(), Kind: errdef.Name(err)}
	if busy := new(relay.BindError); errors.As(err, &busy) {
		r.Port = &busy.Port
	}
	return r
}

// err is the error that the answer carries, or nil when it is OK.
func (r *Response) err() error {
	if r.OK {
		return nil
	}
	return errdef.Named(r.Kind, errors.New(r.Error))
}
