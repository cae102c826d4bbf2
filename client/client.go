// Package client speaks the Docker Engine API, to Hull in the same process or to any engine behind a socket.
//
//	c := client.New(dial, client.Options{})
//	created, err := c.ContainerCreate(ctx, client.CreateOptions{Name: "web"}, request)
//	...
//	err = c.ContainerStart(ctx, created.ID)
//
// Each method is one request and returns when its answer is complete, except those that return a stream.
// Errors carry an errdef kind, from the status of the answer, and the text of the server.
//
// Beware: what a server sends is untrusted; the texts here may hold control characters.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"hull/errdef"

	"github.com/moby/moby/api/types/registry"
)

// Version is the newest version of the Engine API this client was written for, MinVersion the oldest it can use.
const (
	Version    = "1.55"
	MinVersion = "1.40"
)

// Dial opens one connection to an engine. The connection must be able to half-close (CloseWrite), or
// the end of stdin does not arrive.
type Dial func(ctx context.Context) (net.Conn, error)

// Call has an engine in this process answer a request, without a connection. The body of an answer to an upgrade is a
// connection as Dial's are, behind the head of the answer.
type Call func(*http.Request) (*http.Response, error)

// Options of New.
type Options struct {
	// Call answers, unless it is nil, what needs no connection; Dial is for what is sent or answered as a stream.
	Call Call
	// Version fixes the version of the API; empty asks the server at the first request, and takes the older of the two.
	Version string
	// Host is what messages call the server.
	Host string
	// Warn is told what the server did otherwise than asked; nil drops it.
	Warn func(string)
}

// Client is safe for concurrent use.
type Client struct {
	dial  Dial
	local Call // may be nil
	host  string
	warn  func(string)

	// mu protects the following.
	mu      sync.Mutex
	version string
	idle    []*conn
}

// New returns a client that connects with dial when it first has something to ask.
func New(dial Dial, o Options) *Client {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return &Client{dial: dial, local: o.Call, host: o.Host, warn: o.Warn, version: o.Version}
}

// Close drops the idle connections. Streams in use are not touched.
func (c *Client) Close() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, k := range idle {
		k.Close()
	}
}

// APIVersion is the version requests are made in, asking the server for it if nobody has yet.
func (c *Client) APIVersion(ctx context.Context) (string, error) {
	c.mu.Lock()
	v := c.version
	c.mu.Unlock()
	if v != "" {
		return v, nil
	}
	p, err := c.Ping(ctx)
	if err != nil {
		return "", err
	}
	if v, err = negotiate(p.APIVersion); err != nil {
		return "", err
	}
	c.mu.Lock()
	c.version = v
	c.mu.Unlock()
	return v, nil
}

// negotiate returns the newest version both sides know. A server that names none predates negotiation.
func negotiate(server string) (string, error) {
	switch {
	case server == "":
		return MinVersion, nil
	case versionLess(server, MinVersion):
		return "", errdef.Unavailable("the server speaks API %s, the oldest this client can use is %s", server, MinVersion)
	case versionLess(server, Version):
		return server, nil
	}
	return Version, nil
}

func versionLess(a, b string) bool {
	amaj, amin, _ := strings.Cut(a, ".")
	bmaj, bmin, _ := strings.Cut(b, ".")
	if amaj != bmaj {
		return number(amaj) < number(bmaj)
	}
	return number(amin) < number(bmin)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// request is one call. The path is escaped already and has no version; paths outside Docker's API get none.
type request struct {
	method, path string
	query        url.Values
	json         any               // body as JSON
	stream       io.Reader         // or body as a tar stream of unknown length
	upgrade      bool              // the connection becomes a raw stream
	whole        bool              // the answer is one document
	bare         bool              // no version in the path
	startSoon    bool              // see CreateOptions.StartSoon
	batch        string            // see Removal.Batch
	header       func(http.Header) // is told the header of a good answer
	auth         string            // for a registry: the value of X-Registry-Auth
	auths        string            // for several: the value of X-Registry-Config
}

func (c *Client) url(ctx context.Context, r request) (string, error) {
	var prefix string
	if !r.bare {
		v, err := c.APIVersion(ctx)
		if err != nil {
			return "", err
		}
		prefix = "/v" + v
	}
	u := "http://engine" + prefix + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	return u, nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	u, err := c.url(ctx, r)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	switch {
	case r.stream != nil:
		// A reader of its own type, so that net/http does not look for a length or a second meaning in it.
		body = struct{ io.Reader }{r.stream}
	case r.json != nil:
		b, err := json.Marshal(r.json)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, body)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	req.Header.Set("User-Agent", "hull")
	if r.batch != "" {
		req.Header.Set(batchHeader, r.batch)
	}
	if r.startSoon {
		req.Header.Set("Hull-Start", "soon")
	}
	if r.auths != "" {
		req.Header.Set("X-Registry-Config", r.auths)
	}
	if r.auth != "" {
		req.Header.Set(registry.AuthHeader, r.auth)
	}
	if r.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.stream != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	if r.upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
	}
	return req, nil
}

// send makes the request and returns the answer if it is a good one. The caller closes its body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	var resp *http.Response
	if c.local != nil && r.stream == nil && (r.whole || r.upgrade) {
		resp, err = c.callLocal(ctx, req)
	} else {
		resp, err = c.roundTrip(ctx, req, r.stream != nil)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 || resp.StatusCode == http.StatusNotModified {
		defer resp.Body.Close()
		return nil, answerError(resp)
	}
	for _, w := range resp.Header.Values("Hull-Warning") {
		c.warn(w)
	}
	return resp, nil
}

// call makes the request and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	r.whole = true
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if r.header != nil {
		r.header(resp.Header)
	}
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return cause(ctx, err)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return cause(ctx, decodeError(err))
	}
	// What follows the value is at most a newline; reading it lets the connection be used again.
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	return nil
}

// list makes the request, whose answer is an array, and decodes each value while the next ones are on their way.
func list[T any](ctx context.Context, c *Client, r request) ([]T, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var out []T
	d := json.NewDecoder(resp.Body)
	start, err := d.Token()
	if start == nil && err == nil { // null
		return nil, nil
	}
	if err == nil && start != json.Delim('[') {
		err = fmt.Errorf("%v where a list begins", start)
	}
	for err == nil && d.More() {
		var v T
		if err = d.Decode(&v); err == nil {
			out = append(out, v)
		}
	}
	if err == nil {
		_, err = d.Token()
	}
	if err != nil {
		return nil, cause(ctx, decodeError(err))
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // as in call
	return out, nil
}

// HostFromEnv is the server DOCKER_HOST or HULL_HOST name; empty when neither is set.
func HostFromEnv() string {
	if h := os.Getenv("HULL_HOST"); h != "" {
		return h
	}
	return os.Getenv("DOCKER_HOST")
}

// SSH says how an engine is reached over ssh.
type SSH struct {
	Command string            // what stands for hull there, "" is that
	Say     func(line string) // is told what ssh and the other side write to stderr; may be nil
}

// DialHost returns a Dial for an address as --host takes it: unix:///path, or ssh://[user@]host[:port].
func DialHost(host string, o SSH) (Dial, error) {
	scheme, path, ok := strings.Cut(host, "://")
	switch {
	case !ok:
		return nil, errdef.Invalid("%q is not an address of an engine; one looks like unix:///run/docker.sock", host)
	case scheme == "unix" && path != "":
		return func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}, nil
	case scheme == "ssh":
		return dialSSH(host, o)
	case scheme == "tcp":
		return nil, errdef.NotImplemented("%s:// addresses are not taken yet; use unix:// or ssh://", scheme)
	}
	return nil, errdef.Invalid("%q: an address of an engine looks like unix:///run/docker.sock or ssh://host", host)
}
