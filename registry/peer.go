package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"hull/errdef"
	"hull/ref"
)

// Through opens the repository of r at another engine, which speaks the distribution protocol over HTTP/2 without TLS at
// the other end of conn. peer is what messages call it. Nobody else is asked for anything: no routes, no credentials and
// no redirects. The first answer is waited for as long as ctx lasts, since a person may have to let the connection in.
// Close closes conn, and so does an error.
func Through(ctx context.Context, conn net.Conn, peer string, r ref.Ref, o Options) (*Repository, error) {
	r.Tag, r.Digest = "", ""
	addr := "peer" // only messages show it: the connection is there
	if u, err := url.Parse(peer); err == nil && u.Host != "" {
		addr = u.Host
	}
	o.Credential, o.Proxy = nil, nil
	h, err := newHost(Host{
		Scheme: "http", Addr: addr, Path: "/v2", Repo: r.FamiliarName(), Pull: true, Resolve: true, Push: true,
	}, o)
	if err != nil {
		conn.Close()
		return nil, err
	}
	h.net, h.peer = throughConn(conn, peer), true
	repo := &Repository{name: r, notice: o.Notice, uploads: map[ref.Digest]*url.URL{}, hosts: []*host{h}, peer: peer}
	if repo.notice == nil {
		repo.notice = func(string) {}
	}
	h.notice = repo.notice
	if err := h.greet(ctx, peer); err != nil {
		conn.Close()
		return nil, err
	}
	repo.end = func() { conn.Close() }
	return repo, nil
}

// greet asks whether a registry is there at all.
func (h *host) greet(ctx context.Context, peer string) error {
	req, err := h.request(h.get(h.url("/"), ""), h.url("/"))
	if err != nil {
		return err
	}
	resp, err := h.net.home.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errdef.Unavailable("%s speaks no hull registry: %w", peer, err)
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return errdef.Unavailable("%s speaks no hull registry: it answers with status %d", peer, resp.StatusCode)
	}
	return nil
}

// throughConn is a network of one connection.
func throughConn(conn net.Conn, peer string) *network {
	var taken atomic.Bool
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	return &network{
		home: &http.Transport{
			Protocols: h2, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
			HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true}, // more than it takes at once has to wait
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				if taken.Swap(true) {
					return nil, final("the connection to %s has ended", peer)
				}
				return conn, nil
			},
		},
		away: &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return nil, final("%s sends us to %s: refused", peer, address)
		}},
	}
}

// peerRefused says in our words what another engine answers about a manifest.
func (r *Repository) peerRefused(name string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound {
		return errdef.As(errdef.ErrNotFound, fmt.Errorf("%s has no image %s", r.peer, name))
	}
	return err
}
