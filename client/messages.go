package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"hull/errdef"

	"github.com/moby/moby/api/types/jsonstream"
)

// Messages is the progress of long work.
type Messages struct {
	ctx  context.Context
	body io.ReadCloser
	dec  *json.Decoder
}

func (c *Client) messages(ctx context.Context, r request) (*Messages, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Messages{ctx, resp.Body, json.NewDecoder(resp.Body)}, nil
}

// Each calls f with each message until the work is done. A message that says the work failed is returned as error,
// and so is an end in the middle of a message.
func (m *Messages) Each(f func(jsonstream.Message)) error {
	defer m.body.Close()
	for {
		var msg struct {
			jsonstream.Message
			Text string `json:"error"` // what servers before errorDetail sent, and still do beside it
		}
		if err := m.dec.Decode(&msg); err != nil {
			if errors.Is(err, io.EOF) {
				return cause(m.ctx, nil)
			}
			return cause(m.ctx, decodeError(err))
		}
		if msg.Error != nil || msg.Text != "" {
			return messageError(msg.Error, msg.Text)
		}
		f(msg.Message)
	}
}

// result is Each of a stream whose last message has the outcome, which goes to out. progress may be nil.
func (m *Messages) result(progress func(jsonstream.Message), out any) error {
	ended := false
	err := m.Each(func(msg jsonstream.Message) {
		switch {
		case msg.Aux != nil:
			ended = json.Unmarshal(*msg.Aux, out) == nil
		case progress != nil:
			progress(msg)
		}
	})
	if err == nil && !ended {
		err = decodeError(io.ErrUnexpectedEOF)
	}
	return err
}

func messageError(detail *jsonstream.Error, text string) error {
	e := &Error{Message: text}
	if detail != nil {
		e.Status, e.Message = detail.Code, detail.Message
	}
	if kind := answerKind(e.Status, ""); kind != nil {
		return errdef.As(kind, e)
	}
	return e
}
