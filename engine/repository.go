package engine

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"hull/config"
	"hull/errdef"
	"hull/ref"
	"hull/registry"
)

// Remote says how registries are to be spoken to. All fields are optional.
type Remote struct {
	// Credential is what the person has for a registry, called as in references, or for a mirror, host[:port].
	Credential func(registry string) registry.Credential
	// Notice is told in a sentence what takes time or was passed over. It may be called by several goroutines.
	Notice func(string)
	// Peer is another engine that is asked instead of any registry.
	Peer *Peer
}

// repository opens the repository of r where the administrator's routes lead, or at a peer.
func (e *Engine) repository(ctx context.Context, r ref.Ref, o Remote, push bool) (*registry.Repository, error) {
	opt, err := e.registryOptions(o)
	if err != nil {
		return nil, err
	}
	opt.Push = push
	if p := o.Peer; p != nil {
		return registry.Through(ctx, p.Conn, p.Name, r, opt)
	}
	return registry.Open(r, opt)
}

// registryOptions are what the administrator's file says of registries, and what came with the request.
func (e *Engine) registryOptions(o Remote) (registry.Options, error) {
	c, err := e.Config()
	if err != nil {
		return registry.Options{}, err
	}
	return registry.Options{
		Routes: registry.NewRoutes(c), Credential: o.Credential, Notice: o.Notice, Agent: "hull/" + e.opt.Version, Proxy: proxyFor(c),
	}, nil
}

// proxyFor is the proxy that the file settles for what Hull itself fetches, or else that of the environment.
func proxyFor(c *config.Config) func(*http.Request) (*url.URL, error) {
	if c.Proxy.HTTP == "" && c.Proxy.HTTPS == "" {
		return http.ProxyFromEnvironment
	}
	return func(q *http.Request) (*url.URL, error) {
		proxy := c.Proxy.HTTP
		if q.URL.Scheme == "https" {
			proxy = c.Proxy.HTTPS
		}
		if proxy == "" || direct(q.URL.Hostname(), q.URL.Port(), c.Proxy.No) {
			return nil, nil
		}
		if !strings.Contains(proxy, "://") {
			proxy = "http://" + proxy
		}
		return url.Parse(proxy)
	}
}

// direct says whether a host is asked without a proxy: loopback, and what a list as no_proxy has it names by host,
// domain, address or range, perhaps with a port.
func direct(host, port, list string) bool {
	addr, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && addr.IsLoopback() {
		return true
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if h, p, err := net.SplitHostPort(name); err == nil {
			if p != port {
				continue
			}
			name = h
		}
		if p, perr := netip.ParsePrefix(name); perr == nil && err == nil && p.Contains(addr) {
			return true
		}
		name = strings.TrimPrefix(name, ".")
		if name == "*" || name != "" && (host == name || err != nil && strings.HasSuffix(strings.ToLower(host), "."+name)) {
			return true
		}
	}
	return false
}

// reference reads a name that a person gave for something at a registry.
func reference(name, tag string) (ref.Ref, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return ref.Ref{}, err
	}
	if tag == "" {
		return r, nil
	}
	if r.Tag != "" || r.Digest != "" {
		return ref.Ref{}, errdef.Invalid("invalid reference format: %s has a tag or digest already", name)
	}
	sep := ":"
	if strings.Contains(tag, ":") {
		sep = "@"
	}
	return ref.Parse(r.String() + sep + tag)
}
