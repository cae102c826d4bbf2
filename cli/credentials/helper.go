package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"hull/errdef"
)

// helperTime is what a program gets: it may have to ask somebody for a passphrase.
const helperTime = time.Minute

// maxAnswer bounds what a program may say.
const maxAnswer = 64 << 10

// program is docker-credential-NAME, which keeps secrets for others:
//
//	get    server on stdin -> {ServerURL, Username, Secret}
//	store  the same on stdin
//	erase  server on stdin
//
// A Username of "<token>" says that the secret is an identity token.
type program struct {
	name string
	time time.Duration // to the end of one call
}

const (
	tokenUser = "<token>"
	notFound  = "credentials not found in native keychain"
)

type secret struct {
	ServerURL, Username, Secret string
}

func (s *Store) program(name string) program { return program{name, s.helperTime} }

func (p program) get(ctx context.Context, server string) (Login, bool, error) {
	out, err := p.run(ctx, "get", server)
	if err != nil {
		if isNotFound(err) {
			return Login{}, false, nil
		}
		return Login{}, false, err
	}
	var got secret
	if json.Unmarshal(out, &got) != nil { // the text of that error could hold the secret
		return Login{}, false, errdef.Invalid("docker-credential-%s get answers with something that is not a credential", p.name)
	}
	if got.Username == tokenUser {
		return Login{IdentityToken: got.Secret}, true, nil
	}
	return Login{Username: got.Username, Password: got.Secret}, true, nil
}

func (p program) store(ctx context.Context, server string, l Login) error {
	s := secret{server, l.Username, l.Password}
	if l.IdentityToken != "" {
		s.Username, s.Secret = tokenUser, l.IdentityToken
	}
	in, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = p.run(ctx, "store", string(in))
	return err
}

func (p program) erase(ctx context.Context, server string) (had bool, err error) {
	_, err = p.run(ctx, "erase", server)
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

type notFoundError struct{ error }

func isNotFound(err error) bool {
	var e *notFoundError
	return errors.As(err, &e)
}

// run calls the program. Its errors hold what it said, but not what it was told.
func (p program) run(ctx context.Context, action, in string) ([]byte, error) {
	if p.name == "" || strings.ContainsAny(p.name, "/\\\x00") {
		return nil, errdef.Invalid("%q is no name of a credential helper: want NAME of docker-credential-NAME", p.name)
	}
	name := "docker-credential-" + p.name
	ctx, cancel := context.WithTimeoutCause(ctx, p.time, fmt.Errorf("%s %s did not end within %s", name, action, p.time))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, action)
	cmd.Stdin = strings.NewReader(in)
	cmd.Stderr = os.Stderr // where it may ask for a passphrase
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout = &limited{&out, maxAnswer}
	err := cmd.Run()
	said := strings.TrimSpace(out.String())
	var exited *exec.ExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, errdef.As(errdef.ErrDeadline, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, errdef.NotFound("error getting credentials: %s is configured and not in PATH", name)
	case strings.Contains(said, notFound):
		return nil, &notFoundError{errors.New(said)}
	case errors.As(err, &exited) && said != "" && action != "get":
		return nil, fmt.Errorf("%s %s: %s", name, action, said)
	case errors.As(err, &exited) && !strings.Contains(said, "{"):
		return nil, fmt.Errorf("error getting credentials - err: %w, out: `%s`", err, said)
	}
	return nil, fmt.Errorf("%s %s: %w", name, action, err)
}

// limited writes at most n bytes on, and drops the rest.
type limited struct {
	w io.Writer
	n int
}

func (l *limited) Write(p []byte) (int, error) {
	k := min(len(p), l.n)
	l.n -= k
	if _, err := l.w.Write(p[:k]); err != nil {
		return 0, err
	}
	return len(p), nil
}
