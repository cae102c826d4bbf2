package registry

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"hull/config"
	"hull/ref"
)

// Routes say where registries are to be found: what the administrator's configuration makes of their names.
type Routes struct {
	config *config.Config
}

// NewRoutes are the routes of a configuration; nil is none.
func NewRoutes(c *config.Config) *Routes {
	if c == nil {
		c = new(config.Config)
	}
	return &Routes{config: c}
}

func (s *Routes) orNone() *Routes {
	if s == nil {
		return NewRoutes(nil)
	}
	return s
}

// Route is where one repository is asked for, in order.
type Route struct {
	Blocked string // why nobody is asked
	Hosts   []Host
}

// Host is one place of a route.
type Host struct {
	Scheme string // "https" or "http"
	Addr   string // host[:port]
	Path   string // of the API: "/v2", or what the mirror's address adds to it
	Repo   string // how the repository is called there
	Login  string // what its credentials are kept under
	Why    string // which rule put it here, for people
	Mirror bool

	Pull, Push bool // what it may be asked for

	Insecure    bool // certificates are not looked at
	Header      http.Header
	DialTimeout time.Duration // 0 is the default
}

// HubAddr is where the registry of docker.io is.
const HubAddr = "registry-1.docker.io"

// Route is the way to the repository of r. A nil Routes asks each registry under its own name.
func (s *Routes) Route(r ref.Ref) (*Route, error) {
	s = s.orNone()
	route := new(Route)
	if r.Registry == ref.DefaultRegistry {
		for _, m := range s.config.Registry.Mirrors {
			route.Hosts = append(route.Hosts, s.mirror(m, r, "registry.mirrors")...)
		}
	}
	route.Hosts = append(route.Hosts, s.upstream(r)...)
	return route, nil
}

// upstream is the registry itself.
func (s *Routes) upstream(r ref.Ref) []Host {
	s = s.orNone()
	addr := r.Registry
	if addr == ref.DefaultRegistry {
		addr = HubAddr
	}
	return s.places(Host{Scheme: "https", Addr: addr, Path: "/v2", Repo: r.Repo, Login: r.Registry, Why: "the registry itself", Pull: true, Push: true})
}

// mirror is a place that has, or gets, what the registry has.
func (s *Routes) mirror(address string, r ref.Ref, why string) []Host {
	u, err := url.Parse(address)
	if err != nil {
		return nil // the configuration was checked
	}
	path := strings.TrimRight(u.Path, "/")
	if !slices.Contains(strings.Split(path, "/"), "v2") {
		path = "/v2" + path
	}
	h := Host{Scheme: u.Scheme, Addr: u.Host, Path: path, Repo: r.Repo, Login: u.Host, Why: why, Mirror: true, Pull: true}
	if u.Scheme == "http" {
		return []Host{h}
	}
	return s.places(h)
}

// places are the ways to speak to a host: over TLS; if it may be insecure, also with anybody's certificate or, if it does
// not know TLS, without.
func (s *Routes) places(h Host) []Host {
	if !s.insecure(h.Addr) {
		return []Host{h}
	}
	h.Insecure = true
	plain := h
	plain.Scheme = "http"
	return []Host{h, plain}
}

// insecure reports whether nobody needs to vouch for the host: it is this machine, or the configuration says so.
func (s *Routes) insecure(addr string) bool {
	host := (&url.URL{Host: addr}).Hostname()
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return true
	}
	for _, entry := range s.config.Registry.Insecure {
		if p, perr := netip.ParsePrefix(entry); perr == nil {
			if err == nil && p.Contains(ip.Unmap()) {
				return true
			}
			continue
		}
		if strings.EqualFold(entry, addr) || !strings.Contains(entry, ":") && strings.EqualFold(entry, host) {
			return true
		}
	}
	return false
}

// rewritten is how another repository of the same registry is called here.
func (h *Host) rewritten(repo string) string { return repo }

func (h *Host) tlsConfig() (*tls.Config, error) {
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.Insecure}, nil
}
