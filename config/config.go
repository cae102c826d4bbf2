// Package config reads the one file of settings: hull.toml, or the same as JSON, or Docker's daemon.json.
//
//	r := config.At("/etc/hull/hull.toml", "/etc/hull/hull.json")
//	c, err := r.Config() // the same until the file changes; an error says file and line of all that is wrong
//
// Every key is optional, and without a file everything is as its zero value says: not settled, so the engine's own
// default holds. Keys are in one table (Keys), from which the documentation is checked and `hull config show` is made.
//
// Beware: a setting that shapes a container is taken when it is created; the container keeps it.
package config

import (
	"net/netip"
	"slices"
	"time"
)

// Config is what the file settles. Slices and maps are shared by all readers: do not change them.
type Config struct {
	Path  string   // of the file; "" when there is none
	Notes []string // what the file says that has no effect, and why

	Log struct {
		Driver  string
		Options map[string]string
	}
	Network struct {
		Pools   []Pool       // where addresses of networks come from
		Address netip.Prefix // of the default bridge on the host, and with its length the bridge's network
		MTU     int
		Publish netip.Addr // where -p listens when it names no address
	}
	DNS struct {
		Servers, Search, Options []string
	}
	Proxy struct {
		HTTP, HTTPS, No string
		Outside         bool // only what Hull itself fetches, not containers
	}
	Registry struct {
		Insecure []string // HOST[:PORT] or a range of addresses
		Mirrors  []string // URLs

		Downloads, Uploads int    // layers of one image at once; 0 is the default
		Compress           string // as --compress of push
		Routes             []RegistryRoute
		Directories        []string // of hosts.toml and certificates; nil is the default
	}
	Trash struct {
		Keep *time.Duration // 0: nothing is kept
		Size int64          // bytes
	}
	GC struct {
		Keep           int64          // bytes; 0 lets nothing go by itself
		Unused, Reflog *time.Duration // as --unused-for and --reflog of gc
		DropBlobs      bool           // as --drop-blobs
	}
	Ulimits        []Ulimit
	DefaultRuntime string
	Runtimes       []Runtime
	StopTimeout    *time.Duration // negative waits for ever
	Restart        string         // as --restart
	PidsLimit      int64          // -1 is unlimited
	ShmSize        int64          // bytes
	Userns         string         // "private" or "host"
	CgroupParent   string
	Init           *bool
	Labels         []string       // of the engine, NAME=VALUE
	IdleTimeout    *time.Duration // of serve; 0 never ends it

	lines map[string]int // where each key of the file stands
}

// Pool is a range of addresses that is cut into networks of Size bits of prefix.
type Pool struct {
	Base netip.Prefix
	Size int
}

// Ulimit is one resource limit; -1 is unlimited.
type Ulimit struct {
	Name       string // one of LimitNames
	Soft, Hard int64
}

// LimitNames are the resources of setrlimit(2), as ulimits are called.
var LimitNames = [...]string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
	"rttime", "sigpending", "stack", "as",
}

// Runtime is an OCI runtime beside Hull's own.
type Runtime struct {
	Name string
	Path string // absolute, or a name to be found in PATH
	Args []string
}

// OwnRuntime is the name of the runtime that Hull carries.
const OwnRuntime = "hull"

// KnownRuntimes are names of programs that are OCI runtimes without being configured.
var KnownRuntimes = [...]string{"runc", "crun", "youki"}

// Line is where the file settles a key of the table; 0 where it does not.
func (c *Config) Line(key string) int { return c.lines[key] }

// Parse reads the text of a file; name is what its errors call it. The error is of the kind ErrInvalid and has a line for
// everything that is wrong.
func Parse(name string, text []byte) (*Config, error) {
	p := &problems{file: name}
	c := &Config{lines: map[string]int{}}
	root, err := parse(text)
	if err != nil {
		p.add(0, err)
		return nil, p.err()
	}
	if root.json {
		root = c.fromDocker(root, p)
	}
	c.settle("", root, p)
	c.check(p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// settle applies the members of a table, whose keys begin with prefix.
func (c *Config) settle(prefix string, table *value, p *problems) {
	for _, m := range table.members {
		name := prefix + m.name
		switch key, below := lookup(name); {
		case key != nil:
			if err := key.set(c, m.value); err != nil {
				p.add(m.value.line, say(name, err))
				continue
			}
			c.lines[name] = m.value.line
		case below && m.value.kind == isTable:
			c.settle(name+".", m.value, p)
		case below:
			p.add(m.value.line, mistake("%s: want a table of settings, not %s", name, m.value))
		default:
			p.add(m.value.line, unknown(name))
		}
	}
}

// check looks at what single keys cannot know.
func (c *Config) check(p *problems) {
	if d := c.DefaultRuntime; d != "" && d != OwnRuntime && c.Runtime(d) == nil && !slices.Contains(KnownRuntimes[:], d) {
		p.add(c.Line("default-runtime"), mistake("default-runtime: there is no runtime %q: name its program under [runtimes.%s]", d, d))
	}
}

// Runtime is the runtime of that name, or nil.
func (c *Config) Runtime(name string) *Runtime {
	for i := range c.Runtimes {
		if c.Runtimes[i].Name == name {
			return &c.Runtimes[i]
		}
	}
	return nil
}
