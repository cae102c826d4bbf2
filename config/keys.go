package config

import (
	"fmt"
	"strings"
)

// Key is one setting.
type Key struct {
	Name    string // dotted, as in TOML
	Docker  string // what daemon.json calls the same; "" where Docker has none
	Kind    string // what the value is, for people
	Default string // what holds where the file says nothing, for people
	About   string // a sentence
	set     func(*Config, *value) error
	show    func(*Config) string
}

// Keys are all settings there are, in the order of the documentation.
var Keys = [...]Key{
	{"log.driver", "log-driver", "name", "json-file", "Log driver of containers that name none.",
		func(c *Config, v *value) error { return v.oneOf(&c.Log.Driver, logDrivers[:]) },
		func(c *Config) string { return c.Log.Driver }},
	{"log.options", "log-opts", "table of texts", "", "Options of that driver, as --log-opt; a container's own come first.",
		func(c *Config, v *value) error { return v.texts(&c.Log.Options) },
		func(c *Config) string { return pairs(c.Log.Options) }},

	{"network.address", "bip", "address/length", "chosen from the pools", "IPv4 address of the host on the default bridge, and with its length the bridge's network.",
		func(c *Config, v *value) error { return v.address(&c.Network.Address) },
		func(c *Config) string { return stringOf(c.Network.Address) }},
	{"network.pools", "default-address-pools", "list of {base, size}", "chosen not to shadow a route of the host", "Ranges that networks take their addresses from: base is a range, size the length of each network's prefix.",
		func(c *Config, v *value) error { return v.pools(&c.Network.Pools) },
		func(c *Config) string { return showPools(c.Network.Pools) }},
	{"network.mtu", "mtu", "number", "1500", "Largest packet of the default bridge.",
		func(c *Config, v *value) error { return number(v, &c.Network.MTU, 68, 65535) },
		func(c *Config) string { return nonzero(int64(c.Network.MTU)) }},
	{"network.publish", "ip", "address", "all addresses", "Where -p listens when it names no address.",
		func(c *Config, v *value) error { return v.addr(&c.Network.Publish) },
		func(c *Config) string { return stringOf(c.Network.Publish) }},

	{"dns.servers", "dns", "list of addresses", "the host's", "Name servers of containers that name none, as --dns.",
		func(c *Config, v *value) error { return v.strings(&c.DNS.Servers, checkAddr) },
		func(c *Config) string { return strings.Join(c.DNS.Servers, ", ") }},
	{"dns.search", "dns-search", "list of domains", "the host's", "Search domains of containers that name none, as --dns-search.",
		func(c *Config, v *value) error { return v.strings(&c.DNS.Search, checkWord) },
		func(c *Config) string { return strings.Join(c.DNS.Search, ", ") }},
	{"dns.options", "dns-opts", "list of words", "the host's", "Resolver options of containers that name none, as --dns-option.",
		func(c *Config, v *value) error { return v.strings(&c.DNS.Options, checkWord) },
		func(c *Config) string { return strings.Join(c.DNS.Options, ", ") }},

	{"proxy.http", "", "URL", "", "Proxy for http: of Hull's own requests, and as HTTP_PROXY and http_proxy in containers.",
		func(c *Config, v *value) error { return v.checked(&c.Proxy.HTTP, checkProxy) },
		func(c *Config) string { return HidePassword(c.Proxy.HTTP) }},
	{"proxy.https", "", "URL", "", "The same for https.",
		func(c *Config, v *value) error { return v.checked(&c.Proxy.HTTPS, checkProxy) },
		func(c *Config) string { return HidePassword(c.Proxy.HTTPS) }},
	{"proxy.no", "", "text", "", "Hosts that are asked without a proxy, with commas between them.",
		func(c *Config, v *value) error { return v.checked(&c.Proxy.No, checkLine) },
		func(c *Config) string { return c.Proxy.No }},
	{"proxy.containers", "", "true or false", "true", "Whether containers get the proxies in their environment.",
		func(c *Config, v *value) error {
			var in bool
			err := v.flag(&in)
			c.Proxy.Outside = !in
			return err
		},
		func(c *Config) string { return fmt.Sprint(!c.Proxy.Outside) }},

	{"registry.insecure", "insecure-registries", "list of HOST[:PORT] or address ranges", "127.0.0.0/8, ::1/128", "Registries that are spoken to without TLS or without looking at their certificate.",
		func(c *Config, v *value) error { return v.strings(&c.Registry.Insecure, checkRegistry) },
		func(c *Config) string { return strings.Join(c.Registry.Insecure, ", ") }},
	{"registry.mirrors", "registry-mirrors", "list of URLs", "", "Registries that are asked before Docker Hub.",
		func(c *Config, v *value) error { return v.strings(&c.Registry.Mirrors, checkMirror) },
		func(c *Config) string { return strings.Join(c.Registry.Mirrors, ", ") }},
	{"registry.downloads", "max-concurrent-downloads", "number", "3", "How many layers of one image a pull fetches at once.",
		func(c *Config, v *value) error { return number(v, &c.Registry.Downloads, 1, 100) },
		func(c *Config) string { return nonzero(int64(c.Registry.Downloads)) }},
	{"registry.uploads", "max-concurrent-uploads", "number", "5", "How many layers of one image a push sends at once.",
		func(c *Config, v *value) error { return number(v, &c.Registry.Uploads, 1, 100) },
		func(c *Config) string { return nonzero(int64(c.Registry.Uploads)) }},
	{"registry.compress", "", "gzip, zstd or none", "gzip", "How a push compresses layers that were made here, as --compress.",
		func(c *Config, v *value) error {
			return v.oneOf(&c.Registry.Compress, []string{"gzip", "zstd", "none"})
		},
		func(c *Config) string { return c.Registry.Compress }},
	{"registry.routes", "", "table of {mirrors, rewrite, block, direct, insecure, http, ca, cert, key}", "", "Where repositories are asked for and how, by the name of a registry, a repository or the path of several; see registries.md.",
		func(c *Config, v *value) error { return v.routes(&c.Registry.Routes) },
		func(c *Config) string { return showRoutes(c.Registry.Routes) }},
	{"registry.directories", "", "list of paths", "/etc/containerd/certs.d, /etc/docker/certs.d", "Where directories HOST[:PORT] with a hosts.toml or certificates are looked for.",
		func(c *Config, v *value) error { return v.strings(&c.Registry.Directories, checkFile) },
		func(c *Config) string { return strings.Join(c.Registry.Directories, ", ") }},

	{"trash.keep", "", "duration", "24h", "How long what rm, rmi and volume rm remove can be restored; 0 removes at once.",
		func(c *Config, v *value) error { return v.duration(&c.Trash.Keep, false) },
		func(c *Config) string { return stringOf(c.Trash.Keep) }},
	{"trash.size", "", "size", "a tenth of the disk, 10g at most", "How much of that is kept; the oldest goes first.",
		func(c *Config, v *value) error { return v.size(&c.Trash.Size) },
		func(c *Config) string { return nonzero(c.Trash.Size) }},
	{"gc.keep", "", "size", "", "Budget of images, as --keep of hull gc. Settled, whoever brings in an image sees to it that it is kept.",
		func(c *Config, v *value) error { return v.size(&c.GC.Keep) },
		func(c *Config) string { return nonzero(c.GC.Keep) }},
	{"gc.unused-for", "", "age", "1h", "How long an image has not been used before it may go for the budget, as --unused-for.",
		func(c *Config, v *value) error { return v.age(&c.GC.Unused) },
		func(c *Config) string { return stringOf(c.GC.Unused) }},
	{"gc.reflog", "", "age", "30d", "For how long gc keeps what a name was before it was given to another image, as --reflog.",
		func(c *Config, v *value) error { return v.age(&c.GC.Reflog) },
		func(c *Config) string { return stringOf(c.GC.Reflog) }},
	{"gc.drop-blobs", "", "true or false", "false", "Whether gc, and whoever keeps to the budget, drops the blobs of layers that a registry is known to hold, as --drop-blobs.",
		func(c *Config, v *value) error { return v.flag(&c.GC.DropBlobs) },
		func(c *Config) string { return fmt.Sprint(c.GC.DropBlobs) }},

	{"ulimits", "default-ulimits", "table of NUMBER, \"SOFT:HARD\" or {soft, hard}", "core 0, nofile 1024:524288", "Resource limits of containers, as --ulimit; -1 is unlimited.",
		func(c *Config, v *value) error { return v.ulimits(&c.Ulimits) },
		func(c *Config) string { return showUlimits(c.Ulimits) }},
	{"default-runtime", "default-runtime", "name", OwnRuntime, "Runtime of containers that name none: hull, one of runtimes, or runc, crun or youki from PATH.",
		func(c *Config, v *value) error { return v.checked(&c.DefaultRuntime, checkRuntimeName) },
		func(c *Config) string { return c.DefaultRuntime }},
	{"runtimes", "runtimes", "table of {path, args}", "", "OCI runtimes beside Hull's own, by the name that --runtime takes; args come before the runtime's command.",
		func(c *Config, v *value) error { return v.runtimes(&c.Runtimes) },
		func(c *Config) string { return showRuntimes(c.Runtimes) }},

	{"stop-timeout", "", "duration", "10s", "How long stop waits before it kills, where neither container nor command says; -1 for ever.",
		func(c *Config, v *value) error { return v.duration(&c.StopTimeout, true) },
		func(c *Config) string { return stringOf(c.StopTimeout) }},
	{"restart", "", "policy", "no", "Restart policy of containers that name none, as --restart, and do not remove themselves.",
		func(c *Config, v *value) error { return v.checked(&c.Restart, checkRestart) },
		func(c *Config) string { return c.Restart }},
	{"pids-limit", "", "number", "4096", "How many tasks a container may have, as --pids-limit; -1 is unlimited.",
		func(c *Config, v *value) error { return number(v, &c.PidsLimit, -1, 1<<22) },
		func(c *Config) string { return nonzero(c.PidsLimit) }},
	{"shm-size", "default-shm-size", "size", "64m", "Size of /dev/shm, as --shm-size.",
		func(c *Config, v *value) error { return v.size(&c.ShmSize) },
		func(c *Config) string { return nonzero(c.ShmSize) }},
	{"userns", "", "private or host", "private", "Whether containers have a user namespace of their own, as --userns.",
		func(c *Config, v *value) error { return v.oneOf(&c.Userns, []string{"private", "host"}) },
		func(c *Config) string { return c.Userns }},
	{"cgroup-parent", "cgroup-parent", "path", "the engine's own", "Control group below which containers live, as --cgroup-parent.",
		func(c *Config, v *value) error { return v.checked(&c.CgroupParent, checkCgroup) },
		func(c *Config) string { return c.CgroupParent }},
	{"init", "init", "true or false", "false", "Whether containers get an init program, as --init.",
		func(c *Config, v *value) error { c.Init = new(bool); return v.flag(c.Init) },
		func(c *Config) string { return stringOf(c.Init) }},
	{"labels", "labels", "list of NAME=VALUE", "", "Labels of this engine, shown by hull info.",
		func(c *Config, v *value) error { return v.strings(&c.Labels, checkLabel) },
		func(c *Config) string { return strings.Join(c.Labels, ", ") }},
	{"serve.idle-timeout", "", "duration", "5m", "How long hull serve stays without a request where systemd's socket starts it again; 0 is for ever.",
		func(c *Config, v *value) error { return v.duration(&c.IdleTimeout, false) },
		func(c *Config) string { return stringOf(c.IdleTimeout) }},
}

// lookup finds the key of that name. below says that there are keys whose names begin with it.
func lookup(name string) (key *Key, below bool) {
	for i := range Keys {
		k := &Keys[i]
		if k.Name == name {
			return k, false
		}
		below = below || len(k.Name) > len(name) && k.Name[len(name)] == '.' && strings.HasPrefix(k.Name, name)
	}
	return nil, below
}

// Setting is a key with what holds.
type Setting struct {
	*Key
	Value string // "" is nothing
	Line  int    // of the file; 0: the default
}

// Settings are all keys with what holds. Passwords in URLs are not shown.
func (c *Config) Settings() []Setting {
	out := make([]Setting, len(Keys))
	for i := range Keys {
		k := &Keys[i]
		out[i] = Setting{k, k.Default, c.Line(k.Name)}
		if out[i].Line != 0 {
			out[i].Value = k.show(c)
		}
	}
	return out
}
