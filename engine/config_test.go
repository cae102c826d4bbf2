package engine

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"hull/config"
)

func settings(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("hull.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.Path = "hull.toml"
	return c
}

const allSettled = `
restart = "on-failure:12"
pids-limit = 50
shm-size = "1m"
userns = "host"
init = true
cgroup-parent = "/web"
network.publish = "127.0.0.1"
stop-timeout = "90s"
log.driver = "local"
log.options = {max-size = "5m", max-file = 2}
ulimits = {nofile = "10:20", core = 5}
dns = {servers = ["10.0.0.1"], search = ["a.example"], options = ["ndots:1"]}
proxy = {http = "http://p:1", no = "localhost"}
`

// What nobody said is as the file says.
func TestSettle(t *testing.T) {
	r := &record{}
	c := settings(t, allSettled)
	r.settle(c)
	r.settleStop(c)
	want := Host{
		Restart: RestartPolicy{Name: "on-failure", Retries: 12}, ShmSize: 1 << 20, Userns: "host", Init: true,
		CgroupParent: "/web", PublishIP: "127.0.0.1",
		Log:     Log{Driver: "local", Options: map[string]string{"max-size": "5m", "max-file": "2"}},
		Ulimits: []Ulimit{{"core", 5, 5}, {"nofile", 10, 20}},
		DNS:     []string{"10.0.0.1"}, DNSSearch: []string{"a.example"}, DNSOptions: []string{"ndots:1"},
		Resources: Resources{PidsLimit: new(int64(50))},
	}
	if !reflect.DeepEqual(want, r.Host) {
		t.Errorf("want %+v\n got %+v", want, r.Host)
	}
	env := []string{"HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "NO_PROXY=localhost", "no_proxy=localhost"}
	if !slices.Equal(env, r.Config.Env) || r.Config.StopTimeout == nil || *r.Config.StopTimeout != 90 {
		t.Errorf("%+v", r.Config)
	}
}

// What somebody said stays.
func TestSettleLeaves(t *testing.T) {
	said := Host{
		Restart: RestartPolicy{Name: "no"}, ShmSize: 5, Userns: "private", NoInit: true,
		CgroupParent: "/mine", PublishIP: "127.0.0.1",
		Log:     Log{Driver: "json-file", Options: map[string]string{"max-file": "9"}},
		Ulimits: []Ulimit{{"core", 1, 1}, {"nofile", 3, 4}},
		DNS:     []string{"10.9.9.9"}, DNSSearch: []string{"b"}, DNSOptions: []string{"rotate"},
		Resources: Resources{PidsLimit: new(int64(-1))},
	}
	r := &record{Host: said, Config: Config{Env: []string{"HTTP_PROXY=mine", "http_proxy=", "NO_PROXY", "no_proxy=x"}, StopTimeout: new(3)}}
	r.Config.Env = slices.Clip(r.Config.Env)
	before := slices.Clone(r.Config.Env)
	c := settings(t, allSettled)
	r.settle(c)
	r.settleStop(c)
	if !reflect.DeepEqual(said, r.Host) {
		t.Errorf("want %+v\n got %+v", said, r.Host)
	}
	if !slices.Equal(before, r.Config.Env) || *r.Config.StopTimeout != 3 {
		t.Errorf("%+v", r.Config)
	}
	// Options are merged where the driver is the same; --rm and a restart policy exclude each other; the host's network has
	// the host's resolv.conf; containers need not get the proxies.
	r = &record{Host: Host{Log: Log{Options: map[string]string{"max-size": "1k"}}, AutoRemove: true, Network: modeHost}}
	r.settle(settings(t, strings.Replace(allSettled, "no = ", "containers = false, no = ", 1)))
	if h := r.Host; h.Log.Options["max-size"] != "1k" || h.Log.Options["max-file"] != "2" || h.Restart.Name != "" || h.DNS != nil || r.Config.Env != nil {
		t.Errorf("%+v %v", h, r.Config.Env)
	}
	// Without a file nothing changes.
	r = &record{}
	r.settle(new(config.Config))
	r.settleStop(new(config.Config))
	if !reflect.DeepEqual(r, &record{}) {
		t.Errorf("%+v", r)
	}
}
