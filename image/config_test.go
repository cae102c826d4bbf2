package image

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hull/errdef"
)

// A66: configurations that would steer a container where its author wants it. The error names the field.
func TestValidate(t *testing.T) {
	minus := -2
	for field, r := range map[string]Run{
		"Env: entry 1":               {Env: []string{"A=b", "B"}},
		"Env: entry 0":               {Env: []string{"=b"}},
		"Env: entry 0 (\"A\\nB=c\")": {Env: []string{"A\nB=c"}},
		"Env: entry 0 has a NUL":     {Env: []string{"A=b\x00C=d"}},
		"Env: entry 0 has 200002":    {Env: []string{"A=" + strings.Repeat("x", 200_000)}},
		"Env: its entries":           {Env: strings.Split(strings.Repeat("A="+strings.Repeat("x", 1000)+" ", 2500)+"A=b", " ")},
		"Cmd: its entries":           {Cmd: make([]string, 3_000_000)},
		"Cmd: entry 0":               {Cmd: []string{"a\x00"}},
		"Entrypoint":                 {Entrypoint: []string{"\x00"}},
		"Shell":                      {Shell: []string{"\x00"}},
		"User":                       {User: "a\nroot"},
		"WorkingDir: the working directory 'a/b' is invalid, it needs to be an absolute path": {WorkingDir: "a/b"},
		"Volumes: \"/a/../../etc\"":  {Volumes: map[string]struct{}{"/a/../../etc": {}}},
		"Volumes: \"a\"":             {Volumes: map[string]struct{}{"a": {}}},
		"Volumes: \"/\"":             {Volumes: map[string]struct{}{"/": {}}},
		"ExposedPorts: \"65536\"":    {ExposedPorts: map[string]struct{}{"65536": {}}},
		"ExposedPorts: \"0\"":        {ExposedPorts: map[string]struct{}{"0": {}}},
		"ExposedPorts: \"80/ip\"":    {ExposedPorts: map[string]struct{}{"80/ip": {}}},
		"ExposedPorts: \"9-8/tcp\"":  {ExposedPorts: map[string]struct{}{"9-8/tcp": {}}},
		"StopSignal":                 {StopSignal: "999"},
		"StopSignal: Invalid signal": {StopSignal: "SIGNOPE"},
		"StopTimeout":                {StopTimeout: &minus},
		"Healthcheck.Interval":       {Healthcheck: &Healthcheck{Interval: time.Microsecond}},
		"Healthcheck.Timeout":        {Healthcheck: &Healthcheck{Timeout: -1}},
		"Healthcheck.Retries":        {Healthcheck: &Healthcheck{Retries: -1}},
		"Healthcheck.Test":           {Healthcheck: &Healthcheck{Test: []string{"EVAL"}}},
		"Labels":                     {Labels: map[string]string{"a": "\x00"}},
	} {
		c := Config{OS: "linux", Run: r}
		if err := c.Validate(); !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("want %s named, got %.200v", field, err)
		}
	}
	good := Config{OS: "linux", Run: Run{
		User: "1000:users", Env: []string{"A=b\nc", "EMPTY="}, Entrypoint: []string{""}, Cmd: []string{"sh", "-c", "a\nb"}, WorkingDir: "/a/../b",
		Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80": {}, "53/udp": {}, "8000-8010/tcp": {}}, StopSignal: "SIGRTMIN+3",
		Healthcheck: &Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: time.Second},
	}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"TERM", "SIGKILL", "9", "rtmin", "RTMAX-14"} {
		if err := (&Run{StopSignal: s}).Validate(); err != nil {
			t.Error(err)
		}
	}
	if err := (&Config{OS: "windows"}).Validate(); err == nil {
		t.Error("want another system refused")
	}
}

func TestChange(t *testing.T) {
	for in, want := range map[string]string{
		"CMD echo hi":                   `{"Cmd":["/bin/sh","-c","echo hi"]}`,
		`entrypoint ["/a", "b"]`:        `{"Entrypoint":["/a","b"]}`,
		"ENV A b c":                     `{"Env":["A=b c"]}`,
		`ENV A=b\ c D='e "f"' G="h\"i"`: `{"Env":["A=b c","D=e \"f\"","G=h\"i"]}`,
		`LABEL "a b"=c d=`:              `{"Labels":{"a b":"c","d":""}}`,
		"EXPOSE 80 53/udp":              `{"ExposedPorts":{"53/udp":{},"80/tcp":{}}}`,
		"VOLUME /a /b":                  `{"Volumes":{"/a":{},"/b":{}}}`,
		`VOLUME ["/a b"]`:               `{"Volumes":{"/a b":{}}}`,
		"WORKDIR a/b":                   `{"WorkingDir":"/a/b"}`,
		"STOPSIGNAL SIGQUIT":            `{"StopSignal":"SIGQUIT"}`,
		"ONBUILD RUN x":                 `{"OnBuild":["RUN x"]}`,
		`SHELL ["/bin/ash","-c"]`:       `{"Shell":["/bin/ash","-c"]}`,
		"HEALTHCHECK NONE":              `{"Healthcheck":{"Test":["NONE"]}}`,
		"HEALTHCHECK --interval=5s --retries=3 CMD curl x": `{"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":3}}`,
	} {
		var r Run
		if err := r.Change([]string{in}); err != nil || toJSON(t, r) != want {
			t.Errorf("%s: want %s\n got %s, %v", in, want, toJSON(t, r), err)
		}
	}
	var r Run
	if err := r.Change([]string{"ENV A=1", "ENV A=2", "WORKDIR /a", "WORKDIR b"}); err != nil || toJSON(t, r) != `{"Env":["A=2"],"WorkingDir":"/a/b"}` {
		t.Errorf("got %s, %v", toJSON(t, r), err)
	}
	for _, in := range []string{"", "CMD", "RUN ls", "FROM x", "ENV =a", `ENV A="b`, "ENV A=b c", "EXPOSE x", "SHELL sh", "HEALTHCHECK --x=1 CMD a", "HEALTHCHECK CMD", "HEALTHCHECK --interval=1x CMD a", "STOPSIGNAL 99", "VOLUME a"} {
		var r Run
		if err := r.Change([]string{in}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want refused, got %v", in, err)
		}
	}
}
