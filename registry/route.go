package registry

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"hull/config"
	"hull/errdef"
	"hull/ref"
)

// Routes say where registries are to be found: what the administrator's configuration makes of their names, and the
// directories that other engines read.
type Routes struct {
	config *config.Config
	dirs   []string
}

// NewRoutes are the routes of a configuration; nil is none.
func NewRoutes(c *config.Config) *Routes {
	if c == nil {
		c = new(config.Config)
	}
	dirs := c.Registry.Directories
	if dirs == nil {
		dirs = []string{"/etc/containerd/certs.d", "/etc/docker/certs.d"}
	}
	return &Routes{config: c, dirs: dirs}
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

	Pull, Resolve, Push bool // what it may be asked for; Resolve is what a tag means

	Insecure    bool        // certificates are not looked at
	CA          []string    // files of certificates that vouch for it, beside the system's
	Client      [][2]string // files of our certificate and its key
	Header      http.Header
	DialTimeout time.Duration // 0 is the default

	was, is string // a rewrite of the beginning of names
}

// HubAddr is where the registry of docker.io is.
const HubAddr = "registry-1.docker.io"

// Route is the way to the repository of r. A nil Routes asks each registry under its own name.
//
// One rule decides, the one whose name says most of the repository's: its path, then the host, then its domain, then all.
// Where no rule of ours says where to ask, a hosts.toml does.
func (s *Routes) Route(r ref.Ref) (*Route, error) {
	s = s.orNone()
	rule := s.rule(r)
	if rule != nil && rule.Block != nil && *rule.Block {
		return &Route{Blocked: cmp.Or(rule.Why, "the settings block "+rule.Name)}, nil
	}
	if rule == nil || rule.Mirrors == nil && rule.Rewrite == "" {
		if f, err := s.hostsFile(r.Registry); err != nil {
			return nil, err
		} else if f != nil {
			return s.fromFile(f, r)
		}
	}
	route := new(Route)
	for _, m := range s.mirrors(rule, r) {
		h, err := s.mirror(m.address, r, m.why)
		if err != nil {
			return nil, err
		}
		route.Hosts = append(route.Hosts, h...)
	}
	up, err := s.rewritten(rule, r)
	if err != nil {
		return nil, err
	}
	if rule != nil && rule.Direct != nil && !*rule.Direct {
		for i := range up {
			up[i].Pull, up[i].Resolve = false, false
		}
	}
	route.Hosts = append(route.Hosts, up...)
	return route, nil
}

func (s *Routes) orNone() *Routes {
	if s == nil {
		return NewRoutes(nil)
	}
	return s
}

// weight is how much of the name of a repository a rule's name says; 0 is another name.
func weight(rule string, r ref.Ref) int {
	host, path, _ := strings.Cut(rule, "/")
	switch domain, star := strings.CutPrefix(host, "*"); {
	case star && domain == "":
		return 1
	case star && strings.HasSuffix(strings.ToLower(hostname(r.Registry)), strings.ToLower(domain)):
		return 1 + len(domain)
	case star || !strings.EqualFold(host, r.Registry):
		return 0
	case path == "" || path == r.Repo || strings.HasPrefix(r.Repo, path+"/"):
		return 1000 + len(path)
	}
	return 0
}

func hostname(addr string) string { return (&url.URL{Host: addr}).Hostname() }

// rule is the one that says where to ask for r, or nil.
func (s *Routes) rule(r ref.Ref) *config.RegistryRoute {
	return s.heaviest(r, (*config.RegistryRoute).Leads)
}

func (s *Routes) heaviest(r ref.Ref, counts func(*config.RegistryRoute) bool) (best *config.RegistryRoute) {
	most := 0
	for i := range s.config.Registry.Routes {
		rule := &s.config.Registry.Routes[i]
		if w := weight(rule.Name, r); w > most && counts(rule) {
			best, most = rule, w
		}
	}
	return best
}

type mirror struct{ address, why string }

func (s *Routes) mirrors(rule *config.RegistryRoute, r ref.Ref) (out []mirror) {
	list, why := s.config.Registry.Mirrors, "registry.mirrors"
	switch {
	case rule != nil && rule.Mirrors != nil:
		list, why = rule.Mirrors, "mirror of "+rule.Name
	case r.Registry != ref.DefaultRegistry:
		return nil
	}
	for _, m := range list {
		out = append(out, mirror{strings.ReplaceAll(m, config.RegistryPlaceholder, r.Registry), why})
	}
	return out
}

// rewritten is the registry itself, or what is asked in its place.
func (s *Routes) rewritten(rule *config.RegistryRoute, r ref.Ref) ([]Host, error) {
	if rule == nil || rule.Rewrite == "" {
		return s.upstream(r), nil
	}
	_, was, _ := strings.Cut(rule.Name, "/")
	host, is, _ := strings.Cut(strings.ReplaceAll(rule.Rewrite, config.RegistryPlaceholder, r.Registry), "/")
	to := ref.Ref{Registry: host, Repo: moved(r.Repo, was, is)}
	if _, err := ref.Parse(to.Name()); err != nil || to.Repo == "" {
		return nil, errdef.Invalid("the settings rewrite %s to %s, which is no name of a repository", r.Name(), to.Name())
	}
	hosts := s.upstream(to)
	for i := range hosts {
		hosts[i].Why = "rewrite of " + rule.Name
		hosts[i].was, hosts[i].is = was, is
	}
	return hosts, nil
}

// moved puts is for the path was at the beginning of a repository's name.
func moved(repo, was, is string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(repo, was), "/")
	if is == "" || rest == "" {
		return is + rest
	}
	return is + "/" + rest
}

// rewritten is how another repository of the same registry is called here.
func (h *Host) rewritten(repo string) string {
	if h.was == "" && h.is == "" || h.was != "" && repo != h.was && !strings.HasPrefix(repo, h.was+"/") {
		return repo
	}
	return moved(repo, h.was, h.is)
}

// upstream is the registry itself.
func (s *Routes) upstream(r ref.Ref) []Host {
	s = s.orNone()
	addr := r.Registry
	if addr == ref.DefaultRegistry {
		addr = HubAddr
	}
	return s.places(Host{
		Scheme: "https", Addr: addr, Path: "/v2", Repo: r.Repo, Login: r.Registry, Why: "the registry itself", Pull: true, Resolve: true, Push: true,
	})
}

// mirror is a place that has, or gets, what the registry has. The path of its address stands before the repository's
// name, unless there is a v2 in it: then it is that of the API.
func (s *Routes) mirror(address string, r ref.Ref, why string) ([]Host, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, errdef.Invalid("%s: %q is no URL", why, address)
	}
	path := strings.TrimRight(u.Path, "/")
	if !slices.Contains(strings.Split(path, "/"), "v2") {
		path = "/v2" + path
	}
	return s.places(Host{
		Scheme: u.Scheme, Addr: u.Host, Path: path, Repo: r.Repo, Login: u.Host, Why: why, Mirror: true, Pull: true, Resolve: true,
	}), nil
}

// places are the ways to speak to a host: over TLS; if it may be insecure, also with anybody's certificate or, if it does
// not know TLS, without.
func (s *Routes) places(h Host) []Host {
	rule := s.speaking(h)
	s.certificates(&h)
	insecure := s.insecure(h.Addr)
	if rule != nil {
		h.CA = append(slices.Clone(rule.CA), h.CA...)
		if rule.Cert != "" {
			h.Client = [][2]string{{rule.Cert, rule.Key}}
		}
		insecure = insecure || rule.Insecure
		if rule.HTTP {
			h.Scheme = "http"
		}
	}
	if !insecure || h.Scheme == "http" {
		return []Host{h}
	}
	h.Insecure = true
	plain := h
	plain.Scheme = "http"
	return []Host{h, plain}
}

// speaking is the rule of how to speak to a host, or nil.
func (s *Routes) speaking(h Host) *config.RegistryRoute {
	name := h.Addr
	if name == HubAddr {
		name = ref.DefaultRegistry
	}
	speaks := (*config.RegistryRoute).Speaks
	if rule := s.heaviest(ref.Ref{Registry: name}, speaks); rule != nil || name == h.Addr {
		return rule
	}
	return s.heaviest(ref.Ref{Registry: h.Addr}, speaks)
}

// insecure reports whether nobody needs to vouch for the host: it is this machine, or the configuration says so.
func (s *Routes) insecure(addr string) bool {
	host := hostname(addr)
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
