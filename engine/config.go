package engine

import (
	"slices"
	"strings"

	"hull/config"
)

// Config is what the administrator's file settles now; the error says what is wrong with the file.
func (e *Engine) Config() (*config.Config, error) { return e.opt.Config.Config() }

// settle fills in what the person left open and the file settles. It comes before fill, as it stands above the image.
// What it settles is the container's from then on, whatever becomes of the file.
func (r *record) settle(c *config.Config) {
	if c.Path == "" {
		return
	}
	h := &r.Host
	h.Log.settle(c)
	h.Ulimits = settleUlimits(h.Ulimits, c.Ulimits)
	if h.Restart.Name == "" && !h.AutoRemove {
		h.Restart = restartPolicy(c.Restart)
	}
	if h.Resources.PidsLimit == nil && c.PidsLimit != 0 {
		h.Resources.PidsLimit = &c.PidsLimit
	}
	if h.Runtime == "" {
		h.Runtime = c.DefaultRuntime
	}
	if h.CgroupParent == "" {
		h.CgroupParent = c.CgroupParent
	}
	if h.ShmSize == 0 {
		h.ShmSize = c.ShmSize
	}
	if h.Userns == "" && c.Userns == modeHost {
		h.Userns = modeHost
	}
	if !h.NoInit && c.Init != nil {
		h.Init = h.Init || *c.Init
	}
	if c.Network.Publish.IsValid() {
		h.PublishIP = c.Network.Publish.String()
	}
	settleDNS(h, c)
	if !c.Proxy.Outside {
		r.Config.Env = append(r.Config.Env, proxyEnv(r.Config.Env, c)...)
	}
}

// settleStop comes after fill: what the image says of itself counts more.
func (r *record) settleStop(c *config.Config) {
	if d := c.StopTimeout; d != nil && r.Config.StopTimeout == nil {
		r.Config.StopTimeout = new(int(d.Seconds()))
	}
}

// settle takes the driver, and the options where the driver is the same, as Docker does.
func (l *Log) settle(c *config.Config) {
	if l.Driver == "" {
		l.Driver = c.Log.Driver
	}
	if l.Driver != c.Log.Driver && !(l.Driver == "json-file" && c.Log.Driver == "") {
		return
	}
	options := map[string]string{}
	for _, from := range []map[string]string{c.Log.Options, l.Options} {
		for k, v := range from {
			options[k] = v
		}
	}
	if len(options) > 0 {
		l.Options = options
	}
}

func settleUlimits(person []Ulimit, file []config.Ulimit) []Ulimit {
	for _, u := range file {
		if !slices.ContainsFunc(person, func(p Ulimit) bool { return p.Name == u.Name }) {
			person = append(person[:len(person):len(person)], Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
		}
	}
	return person
}

// restartPolicy reads a checked policy, as on-failure:3.
func restartPolicy(s string) RestartPolicy {
	name, count, _ := strings.Cut(s, ":")
	p := RestartPolicy{Name: name}
	for _, c := range count {
		p.Retries = p.Retries*10 + int(c-'0')
	}
	return p
}

// settleDNS leaves a container alone that has no resolv.conf of its own.
func settleDNS(h *Host, c *config.Config) {
	if h.Network == modeHost {
		return
	}
	for _, l := range []struct {
		to   *[]string
		from []string
	}{{&h.DNS, c.DNS.Servers}, {&h.DNSSearch, c.DNS.Search}, {&h.DNSOptions, c.DNS.Options}} {
		if len(*l.to) == 0 {
			*l.to = l.from
		}
	}
}

// proxyEnv are the proxies as programs look for them, in both cases, but what env mentions.
func proxyEnv(env []string, c *config.Config) (add []string) {
	for _, p := range []struct{ name, value string }{
		{"HTTP_PROXY", c.Proxy.HTTP}, {"HTTPS_PROXY", c.Proxy.HTTPS}, {"NO_PROXY", c.Proxy.No},
	} {
		for _, name := range []string{p.name, strings.ToLower(p.name)} {
			if p.value != "" && !slices.ContainsFunc(env, func(kv string) bool {
				have, _, _ := strings.Cut(kv, "=")
				return have == name
			}) {
				add = append(add, name+"="+p.value)
			}
		}
	}
	return add
}
