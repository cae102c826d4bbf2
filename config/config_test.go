package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hull/errdef"
)

const everything = `# all keys
default-runtime = "crun"
stop-timeout = "30s"
restart = "on-failure:3"
pids-limit = 1_000
shm-size = "128m"
userns = "host"
cgroup-parent = "web.slice"
init = true
labels = ["site=a", "rack=7"]
serve.idle-timeout = "5m"

[log]
driver = "local"
options = { max-size = "20m", max-file = 3 }

[network]
address = "172.30.0.1/16"
mtu = 1400
publish = "127.0.0.1"
pools = [
	{ base = "10.200.0.0/16", size = 24 },
	{ base = "fd00:1::/48", size = 64 },
]

[dns]
servers = ["10.0.0.1", "fd00::1"]
search = ["example.org"]
options = ["ndots:2"]

[proxy]
http = "http://me:secret@proxy:3128"
https = "proxy:3128"
no = "localhost,.example.org"
containers = false

[registry]
insecure = ["10.0.0.0/8", "registry.local:5000"]
mirrors = ["https://mirror.local"]
downloads = 4
uploads = 6
compress = "zstd"
directories = ["/etc/certs.d"]

[registry.routes."docker.io/library"]
mirrors = ["cache.local/hub", "http://10.0.0.1:5000"]
rewrite = "registry.local:5000/hub"
direct = false
[registry.routes."*.evil.example"]
block = "not of ours"
[registry.routes."registry.local:5000"]
block = false
insecure = true
http = true
ca = "/etc/ca.pem"
cert = "/etc/cert.pem"
key = "/etc/key.pem"

[trash]
keep = "2h"
size = "1g"

[ulimits]
nofile = "1024:4096"
core = -1
nproc = { soft = 10, hard = 20 }

[gc]
keep = "20GB"
unused-for = "14d"
reflog = "12h"
drop-blobs = true

[runtimes.crun]
path = "/usr/bin/crun"
args = ["--debug"]
[runtimes.other]
path = "runc"
`

func minutes(n int) *time.Duration { d := time.Duration(n) * time.Minute; return &d }

func want() *Config {
	c := &Config{
		DefaultRuntime: "crun", StopTimeout: new(30 * time.Second), Restart: "on-failure:3", PidsLimit: 1000, ShmSize: 128 << 20,
		Userns: "host", CgroupParent: "web.slice", Init: new(true), Labels: []string{"site=a", "rack=7"}, IdleTimeout: minutes(5),
		Ulimits:  []Ulimit{{"core", -1, -1}, {"nofile", 1024, 4096}, {"nproc", 10, 20}},
		Runtimes: []Runtime{{"crun", "/usr/bin/crun", []string{"--debug"}}, {"other", "runc", nil}},
	}
	c.GC.Keep, c.GC.Unused, c.GC.Reflog = 20<<30, new(14*24*time.Hour), new(12*time.Hour)
	c.GC.DropBlobs = true
	c.Log.Driver, c.Log.Options = "local", map[string]string{"max-size": "20m", "max-file": "3"}
	c.Network.Address, c.Network.MTU, c.Network.Publish = netip.MustParsePrefix("172.30.0.1/16"), 1400, netip.MustParseAddr("127.0.0.1")
	c.Network.Pools = []Pool{{netip.MustParsePrefix("10.200.0.0/16"), 24}, {netip.MustParsePrefix("fd00:1::/48"), 64}}
	c.DNS.Servers, c.DNS.Search, c.DNS.Options = []string{"10.0.0.1", "fd00::1"}, []string{"example.org"}, []string{"ndots:2"}
	c.Proxy.HTTP, c.Proxy.HTTPS, c.Proxy.No, c.Proxy.Outside = "http://me:secret@proxy:3128", "proxy:3128", "localhost,.example.org", true
	c.Trash.Keep, c.Trash.Size = minutes(120), 1<<30
	c.Registry.Insecure, c.Registry.Mirrors = []string{"10.0.0.0/8", "registry.local:5000"}, []string{"https://mirror.local"}
	c.Registry.Downloads, c.Registry.Uploads, c.Registry.Compress = 4, 6, "zstd"
	c.Registry.Directories = []string{"/etc/certs.d"}
	c.Registry.Routes = []RegistryRoute{
		{Name: "*.evil.example", Block: new(true), Why: "not of ours"},
		{Name: "docker.io/library", Mirrors: []string{"cache.local/hub", "http://10.0.0.1:5000"}, Rewrite: "registry.local:5000/hub", Direct: new(false)},
		{Name: "registry.local:5000", Block: new(false), Insecure: true, HTTP: true, CA: []string{"/etc/ca.pem"}, Cert: "/etc/cert.pem", Key: "/etc/key.pem"},
	}
	return c
}

func TestEveryKey(t *testing.T) {
	c, err := Parse("hull.toml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	lines := c.lines
	c.lines = nil
	if w := want(); !reflect.DeepEqual(w, c) {
		t.Errorf("want %+v\n got %+v", w, c)
	}
	c.lines = lines
	for _, s := range c.Settings() {
		if s.Line == 0 || s.Value == "" {
			t.Errorf("%s: the test does not settle it, or it is not shown: line %d, value %q", s.Name, s.Line, s.Value)
		}
		if strings.Contains(s.Value, "secret") {
			t.Errorf("%s shows a password: %s", s.Name, s.Value)
		}
		text := strings.Split(everything, "\n")[s.Line-1]
		last := s.Name[strings.LastIndex(s.Name, ".")+1:]
		if !strings.Contains(text, last) && s.Name != "registry.routes" {
			t.Errorf("%s is said to stand in line %d, which is %q", s.Name, s.Line, text)
		}
	}
	for _, s := range new(Config).Settings() {
		if s.Value != s.Default || s.Line != 0 {
			t.Errorf("%s: without a file want the default %q, got %q of line %d", s.Name, s.Default, s.Value, s.Line)
		}
	}
}

func TestDockerFile(t *testing.T) {
	c, err := Parse("daemon.json", []byte(`{
	"log-driver": "local", "log-opts": {"max-size": "20m", "max-file": "3"},
	"bip": "172.30.0.1/16", "mtu": 1400, "ip": "127.0.0.1",
	"default-address-pools": [{"base": "10.200.0.0/16", "size": 24}, {"base": "fd00:1::/48", "size": 64}],
	"dns": ["10.0.0.1", "fd00::1"], "dns-search": ["example.org"], "dns-opts": ["ndots:2"],
	"proxies": {"http-proxy": "http://me:secret@proxy:3128", "https-proxy": "proxy:3128", "no-proxy": "localhost,.example.org"},
	"insecure-registries": ["10.0.0.0/8", "registry.local:5000"], "registry-mirrors": ["https://mirror.local"],
	"max-concurrent-downloads": 4, "max-concurrent-uploads": 6,
	"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 4096, "Soft": 1024}, "core": {"Hard": -1, "Soft": -1}, "nproc": {"Soft": 10, "Hard": 20}},
	"default-runtime": "crun",
	"runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}, "other": {"path": "runc"}},
	"default-shm-size": "128M", "cgroup-parent": "web.slice", "init": true, "labels": ["site=a", "rack=7"],
	"live-restore": true, "storage-driver": "overlay2",
	"stop-timeout": 30, "restart": "on-failure:3", "pids-limit": 1000, "userns": "host", "serve": {"idle-timeout": "5m"},
	"registry": {"compress": "zstd", "directories": ["/etc/certs.d"], "routes": {
		"docker.io/library": {"mirrors": ["cache.local/hub", "http://10.0.0.1:5000"], "rewrite": "registry.local:5000/hub", "direct": false},
		"*.evil.example": {"block": "not of ours"},
		"registry.local:5000": {"block": false, "insecure": true, "http": true, "ca": "/etc/ca.pem", "cert": "/etc/cert.pem", "key": "/etc/key.pem"}
	}},
	"trash": {"keep": "2h", "size": "1g"},
	"gc": {"keep": "20g", "unused-for": "2w", "reflog": "12h", "drop-blobs": true}
}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Notes) != 2 || !strings.HasPrefix(c.Notes[0], "live-restore has no effect: ") {
		t.Errorf("notes: %q", c.Notes)
	}
	c.lines, c.Notes = nil, nil
	if w := want(); !reflect.DeepEqual(w, c) {
		t.Errorf("want %+v\n got %+v", w, c)
	}
}

// What is wrong is said in one line each, with file and line.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"log.drvier = \"local\"", "f:1: unknown key log.drvier: did you mean log.driver?"},
		{"\n\nnonsense = 1", "f:3: unknown key nonsense"},
		{"[log]\n\ndriver = 5", "f:3: log.driver: want a text in quotes, not 5"},
		{"[log]\ndriver = \"splunk\"", `f:2: log.driver: want one of json-file, local, none, journald, syslog, not "splunk"`},
		{"log = 1", "f:1: log: want a table of settings, not 1"},
		{"init = \"yes\"", `f:1: init: want true or false, not the text "yes"`},
		{"pids-limit = 0", "f:1: pids-limit: want a whole number from -1 to 4194304, not 0"},
		{"pids-limit = 1.5", "f:1: pids-limit: want a whole number from -1 to 4194304, not 1.5"},
		{"stop-timeout = \"soon\"", `f:1: stop-timeout: want a duration, as "10s" or "5m", or a number of seconds, not the text "soon"`},
		{"serve.idle-timeout = -1", `f:1: serve.idle-timeout: want a duration, as "10s" or "5m", or a number of seconds, not -1`},
		{"shm-size = \"9999999999g\"", `f:1: shm-size: want a size, as "64m", not the text "9999999999g"`},
		{"network.address = \"172.30.0.0/16\"", `f:1: network.address: want the IPv4 address of a host in its network, as 172.30.0.1/16, not the text "172.30.0.0/16"`},
		{"network.pools = [\n{base = \"10.0.0.0/8\", size = 24},\n{base = \"10.1.0.0/16\", size = 24}]", "network.pools: 10.1.0.0/16 overlaps 10.0.0.0/8"},
		{"network.pools = [{base = \"10.0.0.1/8\", size = 24}]", "f:1: network.pools: base: 10.0.0.1/8 has bits behind its length: did you mean 10.0.0.0/8?"},
		{"network.pools = [{base = \"10.0.0.0/16\", size = 8}]", "f:1: network.pools: size: want a whole number from 16 to 30, not 8"},
		{"dns.servers = [\"10.0.0.1\", \"host\"]", `f:1: dns.servers: "host" is no address`},
		{"dns.search = [\"a\\nnameserver 6.6.6.6\"]", `dns.search: `},
		{"proxy.http = \"ftp://x\"", `f:1: proxy.http: "ftp://x" is no URL of a proxy: want http://HOST:PORT`},
		{"registry.insecure = [\"http://x\"]", `f:1: registry.insecure: "http://x": want HOST[:PORT] without http://`},
		{"registry.mirrors = [\"mirror\"]", `f:1: registry.mirrors: "mirror" is no URL of a registry: want https://HOST[:PORT]`},
		{"ulimits.files = 5", "f:1: ulimits: there is no limit files: want one of core, cpu"},
		{"ulimits.nofile = \"5:2\"", "f:1: ulimits: nofile: the soft limit 5 is above the hard limit 2"},
		{"default-runtime = \"kata\"", `f:1: default-runtime: there is no runtime "kata": name its program under [runtimes.kata]`},
		{"[runtimes.hull]\npath = \"/bin/x\"", "f:1: runtimes: hull is Hull's own runtime: give yours another name"},
		{"[runtimes.crun]\npath = \"./crun\"", `f:2: runtimes: crun.path: "./crun" is no program: want an absolute path, or a name to be found in PATH`},
		{"[runtimes.crun]\nshell = \"x\"", "f:2: runtimes: crun: unknown key shell: want {path, args, runtimeArgs}"},
		{"restart = \"sometimes\"", `f:1: restart: "sometimes" is no restart policy: want no, on-failure[:N], always or unless-stopped`},
		{"cgroup-parent = \"../x\"", `f:1: cgroup-parent: "../x" is no control group`},
		{"labels = [\"x\"]", `f:1: labels: "x": want NAME=VALUE`},
		// the format itself
		{"init = true\ninit = true", "f:2: init is set already, in line 1"},
		{"[log]\ndriver = \"local\"\n[log]\n", "f:3: log is set already, in line 1"},
		{"log = {driver = \"local\"}\n[log]\n", "f:2: log is set already, in line 1"},
		{"init = true\n\nx y", "f:3: "},
		{"{\"init\": true,\n\"init\": true}", "f:2: init is set already, in line 1"},
		{"{\"log-driver\": \"local\",\n\"log\": {\"driver\": \"none\"}}", "f:2: driver is set already, in line 1"},
		{"{\"init\": true,\n\"iptables\": false}", "f:2: unknown key iptables"},
		{"{\"init\":\ntrue\n", "f:2: the document ends in the middle"},
		{"{} {}", "f:1: there is more behind the closing brace"},
		{"{\"log-driver\":\n null}", "f:2: log.driver: want a text in quotes, not null"},
	} {
		_, err := Parse("f", []byte(tt.text))
		if !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q\nwant %s\n got %v", tt.text, tt.want, err)
		}
	}
	_, err := Parse("f", []byte("b = 1\ninit = 3\na = 2"))
	if w := "f:1: unknown key b\nf:2: init: want true or false, not 3\nf:3: unknown key a"; err == nil || err.Error() != w {
		t.Errorf("want all of it:\n%s\ngot %v", w, err)
	}
}

func TestReader(t *testing.T) {
	dir := t.TempDir()
	toml, json := filepath.Join(dir, "hull.toml"), filepath.Join(dir, "hull.json")
	r := At(toml, json)
	if c, err := r.Config(); err != nil || c.Path != "" {
		t.Errorf("without a file: %+v, %v", c, err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(json, `{"log-driver": "none"}`)
	if c, err := r.Config(); err != nil || c.Log.Driver != "none" || c.Path != json {
		t.Errorf("JSON: %+v, %v", c, err)
	}
	write(toml, `log.driver = "local"`)
	first, err := r.Config()
	if err != nil || first.Log.Driver != "local" || first.Path != toml || first.Line("log.driver") != 1 {
		t.Errorf("TOML comes first: %+v, %v", first, err)
	}
	if again, err := r.Config(); again != first || err != nil {
		t.Errorf("unchanged, but read again: %v", err)
	}
	write(toml, `log.driver = "syslog"`)
	if c, err := r.Config(); err != nil || c.Log.Driver != "syslog" {
		t.Errorf("changed: %+v, %v", c, err)
	}
	write(toml, `log.driver = 1`)
	for range 2 {
		if _, err := r.Config(); err == nil || err.Error() != toml+":1: log.driver: want a text in quotes, not 1" {
			t.Errorf("broken: %v", err)
		}
	}
	if err := os.Chmod(toml, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Config(); !errors.Is(err, errdef.ErrForbidden) || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("open to everybody: %v", err)
	}
	if _, err := Only(dir + "/none").Config(); !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), "none: no such file") {
		t.Errorf("named, and not there: %v", err)
	}
	if c, err := Only(os.DevNull).Config(); err != nil || c.Path != os.DevNull {
		t.Errorf("/dev/null: %+v, %v", c, err)
	}
	if c, err := (*Reader)(nil).Config(); err != nil || c == nil {
		t.Errorf("no reader: %v", err)
	}
}

// No text makes the reader panic, and what it takes it takes again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(`{"dns": [], "log-opts": {"a": 1}, "proxies": {}}`))
	f.Add([]byte("[[a]]\n[a.b]\n[[a]]\nc.d = [{e = 1}, '''\n''']"))
	f.Add([]byte("a.b = 1\n[a]\n[a.b]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				var n int
				if _, serr := fmt.Sscanf(line, "f:%d: ", &n); serr != nil || n < 1 {
					t.Errorf("%q of %q", line, err)
				}
			}
			return
		}
		c.Settings()
	})
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "hull.toml")
	if err := os.WriteFile(path, []byte(everything), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Only(path).Config(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNoFile(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		if _, err := At(dir+"/hull.toml", dir+"/hull.json").Config(); err != nil {
			b.Fatal(err)
		}
	}
}
