package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"hull/errdef"
)

// host is one place of a route with its connections and what it takes to be let in.
type host struct {
	place  Host
	net    *network
	auth   *auth
	agent  string
	idle   time.Duration
	first  time.Duration // wait before a retry
	tries  int           // how often it is asked in vain
	push   bool          // it is written to
	peer   bool          // it is another engine
	notice func(string)
	met    atomic.Bool // it answered once
	dead   atomic.Bool // nobody was there; others are asked
}

func newHost(place Host, o Options) (*host, error) {
	tls, err := place.tlsConfig()
	if err != nil {
		return nil, err
	}
	h := &host{
		place: place, agent: cmp.Or(o.Agent, "hull"), idle: cmp.Or(o.Idle, defaultIdle), first: cmp.Or(o.Backoff, defaultBackoff), tries: 6,
		notice: func(string) {}, push: o.Push,
	}
	h.net = newNetwork(tls, place.DialTimeout, o.Proxy)
	h.auth = &auth{host: h, tokens: map[string]token{}, asking: map[string]*quest{}}
	if o.Credential != nil {
		h.auth.credential = o.Credential(place.Login)
	}
	return h, nil
}

func (h *host) close() { h.net.close() }

// url is that of something in the API: parts are joined with slashes. What is in them was checked by package ref, or has
// no meaning in a path.
func (h *host) url(parts ...string) *url.URL {
	u := &url.URL{Scheme: h.place.Scheme, Host: h.place.Addr, Path: "/"}
	return u.JoinPath(append([]string{h.place.Path}, parts...)...)
}

// repo is the URL of something in the repository.
func (h *host) repo(parts ...string) *url.URL {
	return h.url(append([]string{h.place.Repo}, parts...)...)
}

// call is one request, which can be made again.
type call struct {
	method string
	url    *url.URL
	scope  string // what a token has to be good for
	header http.Header
	size   int64
	body   func() (io.ReadCloser, error) // nil: none
	// alone is a request that is not repeated after an error or status that may pass: its caller knows better how to go on.
	alone bool
}

func (h *host) get(u *url.URL, scope string) call {
	return call{method: http.MethodGet, url: u, scope: scope, header: http.Header{}}
}

// do makes the request until it is answered for good, and returns the answer whatever its status.
func (h *host) do(ctx context.Context, c call) (*http.Response, error) {
	p := pace{host: h}
	for {
		resp, err := h.send(ctx, c)
		if c.alone || !passing(resp, err) {
			return resp, err
		}
		if !p.wait(ctx, resp, err) {
			if ctx.Err() != nil {
				drop(resp)
				return nil, context.Cause(ctx)
			}
			return resp, err
		}
		drop(resp)
	}
}

// drop reads a little of an answer nobody wants, so that its connection can be used again.
func drop(resp *http.Response) {
	if resp != nil {
		io.CopyN(io.Discard, resp.Body, 4<<10)
		resp.Body.Close()
	}
}

// passing says of an answer that the same question may get another one later.
func passing(resp *http.Response, err error) bool {
	if err != nil {
		var final *finalError
		var answer *Error
		return !errors.As(err, &final) && !errors.As(err, &answer) && errdef.Kind(err) == nil && !errors.Is(err, context.Canceled) && !isCertificate(err) && !isNobody(err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// finalError is one that no repetition changes.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

func final(format string, args ...any) error { return &finalError{fmt.Errorf(format, args...)} }

// maxLogins bounds how often one request is repeated for a login: a token may end between two requests, and again for one
// that runs beside this.
const maxLogins = 3

// send makes the request, and again when a login is asked for.
func (h *host) send(ctx context.Context, c call) (*http.Response, error) {
	authorization := h.auth.have(c.scope)
	for logins := 0; ; logins++ {
		resp, err := h.follow(ctx, c, authorization)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || !sameOrigin(resp.Request.URL, c.url) || logins == maxLogins {
			return resp, err
		}
		next, err := h.auth.answer(ctx, resp.Header.Values("WWW-Authenticate"), c.scope, authorization)
		if err != nil {
			drop(resp)
			return nil, err
		}
		if next == "" || next == authorization {
			return resp, nil
		}
		drop(resp)
		authorization = next
	}
}

// maxHops bounds redirects.
const maxHops = 5

// follow makes the request and goes where the answer sends it. Authorization and the host's own headers stay behind when
// scheme, host or port change, for good.
func (h *host) follow(ctx context.Context, c call, authorization string) (*http.Response, error) {
	u, home := c.url, true
	for hop := 0; ; hop++ {
		req, err := h.request(c, u)
		if err != nil {
			return nil, err
		}
		if home {
			for k, v := range h.place.Header {
				req.Header[k] = v
			}
			if authorization != "" {
				req.Header.Set("Authorization", authorization)
			}
		}
		resp, err := h.roundTrip(ctx, req, home)
		if err != nil {
			return nil, err
		}
		next, err := h.redirect(resp, u)
		if next == nil && err == nil {
			return resp, nil
		}
		drop(resp)
		switch {
		case err != nil:
			return nil, err
		case hop == maxHops:
			return nil, final("%s redirects more than %d times", h.place.Addr, maxHops)
		case c.body != nil && !sameOrigin(next, c.url):
			return nil, final("%s sends an upload to %s: refused, as it is another host", h.place.Addr, next.Host)
		}
		u, home = next, home && sameOrigin(next, c.url)
	}
}

func (h *host) request(c call, u *url.URL) (*http.Request, error) {
	req := &http.Request{Method: c.method, URL: u, Host: u.Host, Header: c.header.Clone(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", h.agent)
	// A length that is known is wanted, and no bomb in an error's text.
	req.Header.Set("Accept-Encoding", "identity")
	if c.body != nil {
		body, err := c.body()
		if err != nil {
			return nil, &finalError{err}
		}
		req.Body, req.ContentLength = body, c.size
		if c.size == 0 {
			body.Close()
			req.Body = http.NoBody
		}
	}
	return req, nil
}

// redirect is where an answer sends a request, or nil.
func (h *host) redirect(resp *http.Response, from *url.URL) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, final("%s redirects to nowhere", h.place.Addr)
	}
	return h.checked(location, from)
}

// checked is a URL that a host named, as it may be asked: over HTTP or HTTPS, never from HTTPS to HTTP, and with no
// user in it.
func (h *host) checked(location string, from *url.URL) (*url.URL, error) {
	u, err := from.Parse(location)
	switch {
	case err != nil:
		return nil, final("%s sends us to something that is no URL", h.place.Addr)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, final("%s sends us to a URL of scheme %q: only http and https are followed", h.place.Addr, u.Scheme)
	case u.Scheme == "http" && from.Scheme == "https":
		return nil, final("%s sends us from https to http://%s: refused", h.place.Addr, u.Host)
	case u.User != nil:
		return nil, final("%s sends us to a URL with a user in it: refused", h.place.Addr)
	}
	u.Fragment = ""
	return u, nil
}

// roundTrip makes one request. Its answer's body ends with an error when nothing comes for the idle time.
func (h *host) roundTrip(ctx context.Context, req *http.Request, home bool) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := newWatch(h.idle, func() {
		cancel(fmt.Errorf("%s has been silent for %s", req.URL.Host, h.idle))
	})
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{req.Body, watch}
	}
	resp, err := h.net.roundTrip(req.WithContext(ctx), home)
	if err == nil {
		h.met.Store(true)
	} else {
		watch.stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, h.plain(err, req)
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, watch: watch, ctx: ctx, cancel: cancel}
	return resp, nil
}

// plain says what failed without a URL: those of redirects have keys in their query.
func (h *host) plain(err error, req *http.Request) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	err = fmt.Errorf("%s %s: %w", req.Method, bare(req.URL), err)
	switch {
	case h.met.Load():
		return err
	case isCutOff(err):
		return final("no network leads to %s: %w (check the network; hull load brings images from files, and the image box is built in)", req.URL.Host, err)
	case isRefused(err), isUnresolvable(err):
		return &finalError{err} // it is not that it was restarted: nobody was ever there
	}
	return err
}

// bare is a URL without its query, for people.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}
