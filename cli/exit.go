package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

// The exit statuses beside 0, 1 and the container's own.
const (
	exitEngine     = 125 // the engine failed, or the command line was wrong
	exitCannotRun  = 126 // the command was found and cannot be executed
	exitNoCommand  = 127 // the command was not found
	exitTemplate   = 64  // of inspect and version: --format is no template
	exitSignalBase = 128 // plus the number of the signal that ended the client
)

// exitError carries an exit status. Without err nothing is printed: it was said already, or is the container's.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit returns an error that only sets the exit status; nil for 0.
func exit(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

// status gives err an exit status.
func status(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// hinted is an error with one line that says what helps.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

func hint(err error, text string) error { return &hinted{err, text} }

// report prints err and returns the exit status for it.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	a.screen.restore()
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{1, err}
	}
	if e.err != nil {
		a.complain(err)
	}
	return e.code
}

// complain prints one failure: a sentence, and a line of what helps when we know it.
func (a *app) complain(err error) {
	a.err.printf("%s: %s\n", a.Name, strings.TrimRight(err.Error(), "\n"))
	var h *hinted
	if errors.As(err, &h) {
		a.err.println(h.hint)
	}
	if a.debug {
		a.err.printf("(%s)\n", detail(err))
	}
}

// detail is what --debug adds: the kind of failure and the status of the answer.
func detail(err error) string {
	kind := "internal error"
	if k := errdef.Kind(err); k != nil {
		kind = k.Error()
	}
	var ce *client.Error
	if errors.As(err, &ce) {
		return fmt.Sprintf("%s, HTTP status %d", kind, ce.Status)
	}
	return kind
}

// usageError is a command line that cannot be understood. c is nil for what stands before a command.
func (a *app) usageError(c *cobra.Command, err error) error {
	path, usage := a.Name, a.Name+" [OPTIONS] COMMAND"
	if c != nil {
		path, usage = c.CommandPath(), c.UseLine()
	}
	return status(exitEngine, hint(err, fmt.Sprintf("\nUsage:  %s\n\nRun '%s --help' for more information", usage, path)))
}

func (a *app) unknownCommand(name string) error {
	if reason, ok := later(name); ok {
		return status(exitEngine, errdef.NotImplemented("%s %s", name, reason))
	}
	return hint(errdef.Invalid("unknown command: %s %s", a.Name, name), fmt.Sprintf("\nRun '%s --help' for more information", a.Name))
}

// startStatus gives a failed start the status that shells give a command they cannot run.
func startStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errdef.ErrNoCommand):
		return status(exitNoCommand, err)
	case errors.Is(err, errdef.ErrCannotRun):
		return status(exitCannotRun, err)
	}
	var answer *client.Error
	if errors.As(err, &answer) && answer.Hull {
		return status(exitEngine, err)
	}
	// An engine that does not name the kind says it in the words of the system.
	text := err.Error()
	for _, s := range [...]string{"executable file not found", syscall.ENOENT.Error()} {
		if strings.Contains(text, s) {
			return status(exitNoCommand, err)
		}
	}
	for _, s := range [...]string{syscall.EACCES.Error(), syscall.EISDIR.Error()} {
		if strings.Contains(text, s) {
			return status(exitCannotRun, err)
		}
	}
	return status(exitEngine, err)
}
