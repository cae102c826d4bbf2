package api

import (
	"context"
	"errors"
	"net/http"

	"hull/errdef"

	"github.com/moby/moby/api/types/common"
)

// KindHeader names the errdef kind of a failure, for clients that know Hull; its value is kindName's.
const KindHeader = "Hull-Error-Kind"

// status is the one mapping of kinds of failure to HTTP.
func status(err error) int {
	switch errdef.Kind(err) {
	case errdef.ErrInvalid, errdef.ErrNoCommand, errdef.ErrCannotRun:
		return http.StatusBadRequest
	case errdef.ErrNotFound:
		return http.StatusNotFound
	case errdef.ErrConflict:
		return http.StatusConflict
	case errdef.ErrNotModified:
		return http.StatusNotModified
	case errdef.ErrUnauthorized:
		return http.StatusUnauthorized
	case errdef.ErrForbidden:
		return http.StatusForbidden
	case errdef.ErrNotImplemented:
		return http.StatusNotImplemented
	case errdef.ErrUnavailable:
		return http.StatusServiceUnavailable
	case errdef.ErrDeadline:
		return http.StatusGatewayTimeout
	}
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusInternalServerError
}

// kindName is the word for the kind of err in KindHeader, the same words as in the monitor's protocol.
func kindName(err error) string {
	switch errdef.Kind(err) {
	case errdef.ErrInvalid:
		return "invalid"
	case errdef.ErrNotFound:
		return "not-found"
	case errdef.ErrConflict:
		return "conflict"
	case errdef.ErrNotModified:
		return "not-modified"
	case errdef.ErrUnauthorized:
		return "unauthorized"
	case errdef.ErrForbidden:
		return "forbidden"
	case errdef.ErrUnavailable:
		return "unavailable"
	case errdef.ErrNotImplemented:
		return "not-implemented"
	case errdef.ErrCannotRun:
		return "cannot-run"
	case errdef.ErrNoCommand:
		return "no-command"
	case errdef.ErrDeadline:
		return "deadline"
	case errdef.ErrCorrupt:
		return "corrupt"
	}
	return ""
}

// fail answers q with err. Nothing can be said any more once an answer has begun: the stream just ends.
func (s *server) fail(q *request, err error) {
	if errors.Is(err, errAnswered) || (q.Context().Err() != nil && errors.Is(err, context.Canceled)) {
		return
	}
	code := status(err)
	if code == http.StatusInternalServerError {
		s.log.Error("request failed", "method", q.Method, "path", q.URL.Path, "error", err)
	}
	if k := kindName(err); k != "" {
		q.w.Header().Set(KindHeader, k)
	}
	if code == http.StatusNotModified {
		q.w.WriteHeader(code)
		return
	}
	_ = q.answer(code, common.ErrorResponse{Message: err.Error()})
}

// errClosing ends streams.
var errClosing = errors.New("the server was told to end")

// errAnswered ends a handler whose answer has begun and cannot become an error any more.
var errAnswered = errors.New("answered")
