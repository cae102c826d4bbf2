package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// Error is what a registry answered instead of what was asked for.
type Error struct {
	Host    string
	Status  int
	Code    string // of the specification, as MANIFEST_UNKNOWN; "" when the answer has none
	Message string // of the registry, without control characters; "" when it has none
}

// Error has Docker's form, "manifest unknown: manifest unknown".
func (e *Error) Error() string {
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	switch {
	case code == "" && e.Message == "":
		return fmt.Sprintf("%s answers %d %s", e.Host, e.Status, http.StatusText(e.Status))
	case code == "":
		return fmt.Sprintf("%s answers %d: %s", e.Host, e.Status, e.Message)
	case e.Message == "":
		return code
	}
	return code + ": " + e.Message
}

// maxText bounds what is read of an answer that is there to be read by people, and of tokens.
const maxText = 64 << 10

// maxMessage bounds what of it is shown.
const maxMessage = 500

// answerError reads an answer of 400 or above. Its text holds no secret of ours, even if the registry knows one.
func (h *host) answerError(resp *http.Response) *Error {
	e := &Error{Host: h.place.Addr, Status: resp.StatusCode}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil && len(data) == 0 {
		return e
	}
	var body struct {
		Errors []struct{ Code, Message string }
		// Of token servers, and of those who write it as they like.
		Code, Message, Details, Error string
	}
	if json.Unmarshal(data, &body) == nil {
		e.Code = body.Code
		for _, m := range []string{body.Details, body.Message, body.Error} {
			if m != "" {
				e.Message = m
				break
			}
		}
		if len(body.Errors) > 0 {
			e.Code, e.Message = body.Errors[0].Code, body.Errors[0].Message
		}
	} else if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		e.Message = string(data)
	}
	e.Code = h.text(e.Code)
	e.Message = h.text(e.Message)
	return e
}

// text is what a registry said, as it may be shown.
func (h *host) text(s string) string {
	s = h.auth.hide(strings.ToValidUTF8(s, "?"))
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s))
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "..."
	}
	return s
}
