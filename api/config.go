package api

import (
	"cmp"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"hull/config"
	"hull/errdef"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
)

// settled is the answer of /hull/v1/config, in Docker's manner of naming.
type settled struct {
	Path     string // of the file; "" when there is none
	Problems []string
	Notes    []string
	Settings []setting // none when there are problems
}

type setting struct {
	Key, Value, About string
	Line              int // of the file; 0: the default
}

// maxConfig bounds a file that is offered for a check.
const maxConfig = 1 << 20

// showConfig is GET /hull/v1/config: the engine's own file. What is wrong with it is part of the answer.
func (s *server) showConfig(q *request) error {
	c, err := s.engine.Config()
	return answerConfig(q, c, err)
}

// checkConfig is POST /hull/v1/config/check?name=NAME: the file in the body, which is not kept.
func (s *server) checkConfig(q *request) error {
	text, err := io.ReadAll(http.MaxBytesReader(q.w, q.Body, maxConfig))
	if err != nil {
		return errdef.As(errdef.ErrInvalid, err)
	}
	name := q.query("name")
	c, err := config.Parse(name, text)
	if err == nil {
		c.Path = name
	}
	return answerConfig(q, c, err)
}

func answerConfig(q *request, c *config.Config, err error) error {
	out := settled{Problems: []string{}, Notes: []string{}, Settings: []setting{}}
	if err != nil {
		out.Problems = strings.Split(err.Error(), "\n")
		return q.answer(http.StatusOK, out)
	}
	out.Path, out.Notes = c.Path, append(out.Notes, c.Notes...)
	for _, s := range c.Settings() {
		out.Settings = append(out.Settings, setting{s.Name, s.Value, s.About, s.Line})
	}
	return q.answer(http.StatusOK, out)
}

// settledInfo puts into the answer of GET /info what the configuration settles.
func (s *server) settledInfo(out *system.Info) {
	c, err := s.engine.Config()
	if err != nil {
		out.Warnings = append(out.Warnings, strings.Split("WARNING: "+err.Error(), "\n")...)
		return
	}
	out.LoggingDriver = cmp.Or(c.Log.Driver, out.LoggingDriver)
	out.DefaultRuntime = cmp.Or(c.DefaultRuntime, out.DefaultRuntime)
	out.HTTPProxy, out.HTTPSProxy, out.NoProxy = config.HidePassword(c.Proxy.HTTP), config.HidePassword(c.Proxy.HTTPS), c.Proxy.No
	out.Labels = append(out.Labels, c.Labels...)
	for _, r := range c.Runtimes {
		out.Runtimes[r.Name] = runtimeStatus(r.Path, r.Args)
	}
	for _, p := range c.Network.Pools {
		out.DefaultAddressPools = append(out.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	out.RegistryConfig = registries(c)
}

// registries are those spoken to otherwise than usual.
func registries(c *config.Config) *registry.ServiceConfig {
	hub := &registry.IndexInfo{Name: "docker.io", Mirrors: append([]string{}, c.Registry.Mirrors...), Secure: true, Official: true}
	out := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.PrefixFrom(netip.IPv6Loopback(), 128), netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)},
		IndexConfigs:          map[string]*registry.IndexInfo{hub.Name: hub},
		Mirrors:               hub.Mirrors,
	}
	for _, r := range c.Registry.Insecure {
		if p, err := netip.ParsePrefix(r); err == nil {
			out.InsecureRegistryCIDRs = append(out.InsecureRegistryCIDRs, p)
		} else {
			out.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
		}
	}
	return out
}
