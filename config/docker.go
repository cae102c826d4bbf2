package config

import "strings"

// dockerOnly are keys of Docker's daemon.json that have no counterpart. What they ask for is so already, is chosen elsewhere
// or makes no difference here: then they are noted. The others are refused, as somebody relies on them.
var dockerOnly = [...]struct{ name, why string }{
	{"builder", noEffect},
	{"containerd", noEffect},
	{"containerd-namespace", noEffect},
	{"containerd-plugin-namespace", noEffect},
	{"data-root", "choose the store with --root or HULL_ROOT"},
	{"debug", noEffect},
	{"exec-opts", "Hull uses the control groups' files"},
	{"exec-root", "choose the directory with --run or HULL_RUN"},
	{"experimental", noEffect},
	{"features", noEffect},
	{"group", "the socket's unit says who may use it"},
	{"hosts", "hull serve says where it listens"},
	{"ip-forward", "Hull turns forwarding on where a network needs it"},
	{"live-restore", "containers live on whatever happens to hull serve"},
	{"log-format", noEffect},
	{"log-level", noEffect},
	{"max-download-attempts", noEffect},
	{"metrics-addr", noEffect},
	{"oom-score-adjust", noEffect},
	{"pidfile", noEffect},
	{"raw-logs", noEffect},
	{"shutdown-timeout", "the unit that stops containers says how long it waits"},
	{"storage-driver", "layers are kept in one way, for overlayfs"},
	{"storage-opts", "layers are kept in one way, for overlayfs"},
	{"swarm-default-advertise-addr", noEffect},
	{"userland-proxy", noEffect},
	{"userland-proxy-path", noEffect},
	{"userns-remap", "every container has a user namespace of its own; see userns"},
}

const noEffect = "it means nothing here"

// fromDocker replaces what is said in daemon.json's words at the top of a JSON document by what it means.
func (c *Config) fromDocker(root *value, p *problems) *value {
	out := &value{line: root.line, kind: isTable}
	for _, m := range root.members {
		name, ours := dockerKey(m)
		switch why := onlyDocker(m.name); {
		case why != "":
			c.Notes = append(c.Notes, m.name+" has no effect: "+why)
		case m.name == "proxies":
			c.dockerProxies(out, m.value, p)
		case ours:
			at, err := descend(out, strings.Split(name, ".")[:strings.Count(name, ".")], m.value.line)
			if err == nil {
				err = at.put(name[strings.LastIndex(name, ".")+1:], m.value)
			}
			if err != nil {
				p.add(m.value.line, err)
			}
		default:
			if err := merge(out, m); err != nil {
				p.add(m.value.line, err)
			}
		}
	}
	return out
}

// merge puts a member in our own words beside what came from Docker's.
func merge(at *value, m member) error {
	old := at.get(m.name)
	if old == nil || old.kind != isTable || m.value.kind != isTable {
		return at.put(m.name, m.value)
	}
	for _, below := range m.value.members {
		if err := merge(old, below); err != nil {
			return err
		}
	}
	return nil
}

// dockerKey is the key that daemon.json calls so. A word that both use, but for other things, is Docker's when its value
// cannot be ours: dns is a list there and a table here.
func dockerKey(m member) (name string, ok bool) {
	for i := range Keys {
		if k := &Keys[i]; k.Docker == m.name && k.Docker != k.Name && (m.name != "dns" || m.value.kind != isTable) {
			return k.Name, true
		}
	}
	return "", false
}

func onlyDocker(name string) string {
	for _, d := range dockerOnly {
		if d.name == name {
			return d.why
		}
	}
	return ""
}

// dockerProxies are the daemon's own: containers get theirs from the client's configuration.
func (c *Config) dockerProxies(out *value, v *value, p *problems) {
	f, err := v.fields("http-proxy", "https-proxy", "no-proxy")
	if err != nil {
		p.add(v.line, say("proxies", err))
		return
	}
	at, err := descend(out, []string{"proxy"}, v.line)
	if err != nil {
		p.add(v.line, err)
		return
	}
	for i, name := range []string{"http", "https", "no"} {
		if f[i] == nil {
			continue
		}
		if err := at.put(name, f[i]); err != nil {
			p.add(f[i].line, err)
		}
	}
	if at.get("containers") == nil {
		at.members = append(at.members, member{"containers", &value{kind: isBool, text: "false", line: v.line}})
	}
}
