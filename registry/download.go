package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"hull/errdef"
)

// Download asks for what an address (http or https) gives that a person named. Where the server sends us is held to the
// rules for registries: never from https to http, no nearer to us than the server is, and a user that stands in the address
// is told to nobody else. The body ends with an error when nothing comes for o.Idle.
func Download(ctx context.Context, address string, o Options) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errdef.Invalid("%q is no address: want http://HOST/PATH or https://HOST/PATH", withoutUser(u))
	}
	authorization := ""
	if u.User != nil {
		password, _ := u.User.Password()
		authorization = "Basic " + basic(u.User.Username(), password)
	}
	u.User, u.Fragment = nil, ""
	o.Credential = nil
	h, err := newHost(Host{Scheme: u.Scheme, Addr: u.Host}, o)
	if err != nil {
		return nil, err
	}
	resp, err := h.follow(ctx, h.get(u, ""), authorization)
	if err != nil {
		h.close()
		return nil, err
	}
	resp.Body = &download{resp.Body, h}
	return resp, nil
}

// withoutUser is an address for people; "" when it is none.
func withoutUser(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.Redacted()
}

// download is a body whose connection is closed with it.
type download struct {
	io.ReadCloser
	host *host
}

func (d *download) Close() error {
	defer d.host.close()
	return d.ReadCloser.Close()
}
