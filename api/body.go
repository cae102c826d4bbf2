package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"hull/errdef"
)

// maxBody bounds a JSON request. Docker's own clients stay below some hundred kilobytes.
const maxBody = 8 << 20

// decode reads the JSON body into v. Garbage is the client's fault and is told so.
func (q *request) decode(v any) error {
	raw, err := q.raw()
	if err != nil {
		return err
	}
	return parse(raw, v)
}

// raw reads the body of a JSON request.
func (q *request) raw() ([]byte, error) {
	if err := q.wantJSON(); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(http.MaxBytesReader(q.w, q.Body, maxBody))
	if err != nil {
		return nil, jsonError(err)
	}
	return b, nil
}

func parse(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(v); err != nil {
		return jsonError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errdef.Invalid("unexpected content after JSON in the request body")
	}
	return nil
}

// decodeOptional is decode for the calls whose body may be left out.
func (q *request) decodeOptional(v any) error {
	if q.ContentLength == 0 {
		return nil
	}
	return q.decode(v)
}

// wantJSON holds clients to the one content type a web page cannot send without asking first.
func (q *request) wantJSON() error {
	h := q.Header.Get("Content-Type")
	t, _, err := mime.ParseMediaType(h)
	if h == "" || (err == nil && t == "application/json") {
		return nil
	}
	return errdef.Invalid("unsupported Content-Type header (%s): must be 'application/json'", h)
}

func jsonError(err error) error {
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return err
	case errors.Is(err, io.EOF):
		return errdef.Invalid("invalid JSON: got EOF while reading request body")
	}
	return errdef.Invalid("invalid JSON: %w", err)
}

// answer sends v as JSON.
func (q *request) answer(code int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := q.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	q.w.WriteHeader(code)
	_, _ = q.w.Write(append(b, '\n'))
	return nil
}

// answerList sends list as a JSON array, in pieces: the other side reads the first while the next ones are made.
func answerList[T any](q *request, list []T) error {
	q.w.Header().Set("Content-Type", "application/json")
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	b.WriteByte('[')
	for i := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		if e.Encode(&list[i]) != nil {
			panic(http.ErrAbortHandler) // half a list must not look like a whole one
		}
		b.Truncate(b.Len() - 1) // the newline that ends a value
		if b.Len() >= piece {
			_, _ = q.w.Write(b.Bytes())
			b.Reset()
		}
	}
	b.WriteString("]\n")
	_, _ = q.w.Write(b.Bytes())
	return nil
}

// piece is how much of a list is made before it is sent.
const piece = 16 << 10

// WarningHeader carries what was done otherwise than asked, for the answers that Docker gives no body.
const WarningHeader = "Hull-Warning"

// warn adds warnings to the answer. It comes before the body.
func (q *request) warn(warnings []string) {
	for _, w := range warnings {
		q.w.Header().Add(WarningHeader, w)
	}
}

// empty answers with a status alone.
func (q *request) empty(code int) error {
	q.w.WriteHeader(code)
	return nil
}

// query returns the first value of a query parameter.
func (q *request) query(key string) string { return q.form.Get(key) }

// flag reads a boolean parameter as Docker does: anything but these words is true.
func (q *request) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(q.query(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a default for a parameter that is not there.
func (q *request) flagOr(key string, def bool) bool {
	if !q.form.Has(key) {
		return def
	}
	return q.flag(key)
}

// number reads an integer parameter; missing is def.
func (q *request) number(key string, def int) (int, error) {
	v := q.query(key)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, errdef.Invalid("invalid value for %s: %q is not a number", key, v)
	}
	return n, nil
}
