package registry

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"hull/errdef"
	"hull/ref"
)

// Login asks a registry, called as in references, whether it takes the credential. A registry may give an identity token
// to be kept instead of the password. The error is of the kind ErrUnauthorized when the credential is wrong.
func Login(ctx context.Context, server string, c Credential, o Options) (identity string, err error) {
	if _, err := ref.Parse(server + "/x"); err != nil {
		return "", errdef.Invalid("%q is no name of a registry: want HOST[:PORT]", server)
	}
	o.Credential = func(string) Credential { return c }
	repo, err := openHosts(ref.Ref{Registry: server}, o.Routes.upstream(ref.Ref{Registry: server}), o)
	if err != nil {
		return "", err
	}
	defer repo.Close()
	err = repo.each(ctx, func(h *host) error {
		h.auth.offline = true
		resp, err := h.do(ctx, h.get(h.url("/"), ""))
		if err != nil {
			return err
		}
		defer drop(resp)
		if resp.StatusCode != http.StatusOK {
			return h.answerError(resp)
		}
		identity = h.auth.identity
		return nil
	})
	var e *Error
	switch {
	case errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		e.Code, e.Message = cmp.Or(e.Code, "UNAUTHORIZED"), cmp.Or(e.Message, "incorrect username or password")
		return "", errdef.As(errdef.ErrUnauthorized, e)
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		return "", errdef.NotFound("%s is no registry: it answers 404 where the API should be", server)
	}
	return identity, err
}
