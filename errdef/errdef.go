// Package errdef holds the kinds of failure the engine knows. A kind decides the HTTP status and the exit
// code, once per face; the text is what the person who typed the command reads.
//
//	return errdef.NotFound("no such container: %s", name)
//	...
//	if errors.Is(err, errdef.ErrNotFound) { ... }
//
// Beware: wrap with %w, not with a second kind; the outermost kind wins.
package errdef

import (
	"errors"
	"fmt"
)

// The kinds. Test with errors.Is.
var (
	ErrInvalid        = errors.New("invalid argument")  // the request itself is wrong
	ErrNotFound       = errors.New("not found")         // the named object does not exist
	ErrConflict       = errors.New("conflict")          // the object's state forbids it, or the name is taken
	ErrNotModified    = errors.New("not modified")      // already as asked (start of a running container)
	ErrUnauthorized   = errors.New("unauthorized")      // a registry does not take the credentials
	ErrForbidden      = errors.New("forbidden")         // a right or policy is missing
	ErrUnavailable    = errors.New("unavailable")       // this kernel, host or build cannot do it
	ErrNotImplemented = errors.New("not implemented")   // Docker has it, Hull does not
	ErrCannotRun      = errors.New("cannot be run")     // command found but not executable: exit code 126
	ErrNoCommand      = errors.New("command not found") // exit code 127
	ErrDeadline       = errors.New("deadline exceeded") // a bounded wait ended
	ErrCorrupt        = errors.New("damaged")           // what is on disk is not what was written
)

type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string        { return e.err.Error() }
func (e *kindError) Unwrap() error        { return e.err }
func (e *kindError) Is(target error) bool { return target == e.kind }

// As gives err the kind, keeping its text and chain. A nil err stays nil.
func As(kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{kind, err}
}

// Kind returns the outermost kind of err, or nil when it has none: an internal failure.
func Kind(err error) error {
	var e *kindError
	if errors.As(err, &e) {
		return e.kind
	}
	return nil
}

// Each constructor formats like fmt.Errorf, %w included.

// Invalid reports a request that can never succeed as it is.
func Invalid(format string, a ...any) error { return As(ErrInvalid, fmt.Errorf(format, a...)) }

// NotFound reports that the named object does not exist.
func NotFound(format string, a ...any) error { return As(ErrNotFound, fmt.Errorf(format, a...)) }

// Conflict reports a taken name or a state that forbids the request.
func Conflict(format string, a ...any) error { return As(ErrConflict, fmt.Errorf(format, a...)) }

// NotModified reports that everything is already as asked.
func NotModified(format string, a ...any) error { return As(ErrNotModified, fmt.Errorf(format, a...)) }

// Forbidden reports a missing right.
func Forbidden(format string, a ...any) error { return As(ErrForbidden, fmt.Errorf(format, a...)) }

// Unavailable reports something this kernel or host cannot do.
func Unavailable(format string, a ...any) error { return As(ErrUnavailable, fmt.Errorf(format, a...)) }

// NotImplemented reports a part of Docker that Hull does not have.
func NotImplemented(format string, a ...any) error {
	return As(ErrNotImplemented, fmt.Errorf(format, a...))
}

// names are the kinds as one process of ours tells another.
var names = [...]struct {
	name string
	kind *error
}{
	{"invalid", &ErrInvalid},
	{"not-found", &ErrNotFound},
	{"conflict", &ErrConflict},
	{"not-modified", &ErrNotModified},
	{"unauthorized", &ErrUnauthorized},
	{"forbidden", &ErrForbidden},
	{"unavailable", &ErrUnavailable},
	{"not-implemented", &ErrNotImplemented},
	{"cannot-run", &ErrCannotRun},
	{"no-command", &ErrNoCommand},
	{"deadline", &ErrDeadline},
	{"damaged", &ErrCorrupt},
}

// Name is the word for the kind of err, for whoever gets it as text; "" for an internal failure.
func Name(err error) string {
	kind := Kind(err)
	for _, n := range names {
		if *n.kind == kind {
			return n.name
		}
	}
	return ""
}

// Named gives err the kind that Name called so; with an unknown name it is an internal failure.
func Named(name string, err error) error {
	for _, n := range names {
		if n.name == name {
			return As(*n.kind, err)
		}
	}
	return err
}
