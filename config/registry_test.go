package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"hull/errdef"
)

func TestRoutesRefused(t *testing.T) {
	for text, want := range map[string]string{
		`registry.routes.x`:                                              "no name of a registry",
		`registry.routes."https://q.io"`:                                 "no name of a registry",
		`registry.routes."q.io/UPPER"`:                                   "no name of a registry",
		`registry.routes."q.io/a:tag"`:                                   "no name of a registry",
		`registry.routes."*/x"`:                                          "has no path",
		`registry.routes."*x.io"`:                                        "want *, *.DOMAIN",
		`registry.routes.""`:                                             "want *, *.DOMAIN",
		`registry.routes."q.io" = 1 #`:                                   "want {mirrors",
		`registry.routes."q.io" = {mirror = "x"} #`:                      "unknown key mirror",
		`registry.routes."q.io" = {mirrors = ["ftp://x"]} #`:             "no URL of a registry",
		`registry.routes."q.io" = {mirrors = ["https://me:canary@x"]} #`: "has no user",
		`registry.routes."q.io" = {rewrite = "https://x/y"} #`:           "no name of a registry",
		`registry.routes."q.io/x" = {insecure = true} #`:                 `set them for "q.io"`,
		`registry.routes."q.io" = {cert = "/x"} #`:                       "belong together",
		`registry.routes."q.io" = {ca = "x"} #`:                          "absolute path",
		`registry.routes."*" = {rewrite = "x.io"} #`:                     "so that registries stay apart",
	} {
		_, err := Parse("f", []byte(text+" = {block = true}"))
		if !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: want %q, got %v", text, want, err)
		}
	}
}

const hostsToml = `
server = "https://registry-1.docker.io"
ca = "/etc/server.pem"

[host."https://mirror.local:5000"]
  capabilities = ["pull", "resolve"]
  ca = ["a.pem", "b.pem"]
  client = [["c.cert", "c.key"], "both.pem"]
  skip_verify = true
  dial_timeout = "3s"
  [host."https://mirror.local:5000".header]
    authorization = "Basic x"
    x-two = ["1", "2"]
[host."http://harbor.local/v2/proxy"]
  override_path = true
  client = "one.pem"
  new_key_of_tomorrow = 1
`

func TestParseHosts(t *testing.T) {
	got, err := ParseHosts("hosts.toml", []byte(hostsToml))
	want := &HostsFile{
		Server: HostEntry{URL: "https://registry-1.docker.io", CA: []string{"/etc/server.pem"}},
		Hosts: []HostEntry{
			{
				URL: "https://mirror.local:5000", Capabilities: []string{"pull", "resolve"}, CA: []string{"a.pem", "b.pem"},
				Client: [][2]string{{"c.cert", "c.key"}, {"both.pem", ""}}, SkipVerify: true, DialTimeout: 3 * time.Second,
				Header: map[string][]string{"authorization": {"Basic x"}, "x-two": {"1", "2"}},
			},
			{URL: "http://harbor.local/v2/proxy", OverridePath: true, Client: [][2]string{{"one.pem", ""}}},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("want %+v\n got %+v, %v", want, got, err)
	}
	for text, want := range map[string]string{
		`server = 1`:                                     "f:1: server: want a text",
		"\nserver = \"ftp://x\"":                         "f:2: server: \"ftp://x\" is no URL",
		`host = 1`:                                       "want tables",
		"[host.\"https://a\"]\nskip_verify = 1":          "f:2: skip_verify: want true or false",
		`[host."https://me:canary@a"]`:                   "no URL",
		"[host.\"https://a\"]\ncapabilities = [\"fly\"]": "unknown capability",
		"[host.\"https://a\".header]\nx = \"canary\\n\"": "header: x: want texts of one line",
		`[`: "f:1",
	} {
		_, err := ParseHosts("f", []byte(text))
		if !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: want %q, got %v", text, want, err)
		}
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte(hostsToml))
	f.Add([]byte("host = {}\nclient = [[]]\ndial_timeout = -1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ParseHosts("f", text)
		if (got == nil) == (err == nil) {
			t.Fatalf("%v, %v", got, err)
		}
	})
}
