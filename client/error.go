package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/common"
)

// maxError bounds the text of an error a server may send.
const maxError = 64 << 10

// kindHeader is Hull's addition to the API: the kind of a failure by name, as statuses do not tell all of them apart.
const kindHeader = "Hull-Error-Kind"

// Error is the server's refusal. It is wrapped in an errdef kind.
type Error struct {
	Status  int
	Message string
	Hull    bool // the server is Hull, which names kinds and leaves nothing to be read from the text
}

func (e *Error) Error() string { return e.Message }

// answerError turns an answer of 304 or 400 and above into an error.
func answerError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	var m common.ErrorResponse
	if json.Unmarshal(b, &m) != nil || m.Message == "" {
		m.Message = strings.TrimSpace(string(b))
	}
	if m.Message == "" {
		m.Message = strings.ToLower(http.StatusText(resp.StatusCode))
	}
	err := &Error{resp.StatusCode, m.Message, isHull(resp.Header)}
	if kind := answerKind(resp.StatusCode, resp.Header.Get(kindHeader)); kind != nil {
		return errdef.As(kind, err)
	}
	return err
}

func answerKind(status int, name string) error {
	switch name {
	case "cannot-run":
		return errdef.ErrCannotRun
	case "no-command":
		return errdef.ErrNoCommand
	case "corrupt":
		return errdef.ErrCorrupt
	}
	switch status {
	case http.StatusNotModified:
		return errdef.ErrNotModified
	case http.StatusBadRequest:
		return errdef.ErrInvalid
	case http.StatusUnauthorized:
		return errdef.ErrUnauthorized
	case http.StatusForbidden:
		return errdef.ErrForbidden
	case http.StatusNotFound:
		return errdef.ErrNotFound
	case http.StatusConflict:
		return errdef.ErrConflict
	case http.StatusNotImplemented:
		return errdef.ErrNotImplemented
	case http.StatusServiceUnavailable:
		return errdef.ErrUnavailable
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return errdef.ErrDeadline
	}
	return nil
}

// cause prefers the reason the caller stopped waiting to the broken connection that followed from it.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func decodeError(err error) error { return fmt.Errorf("read answer: %w", noEOF(err)) }
