package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"hull/engine"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// FuzzCreate: whatever a client sends, it is answered with a status and a sentence, and nothing is left in the store.
func FuzzCreate(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"Image":"x"}`, `{"Image":"x","Cmd":["true"],"HostConfig":null}`, `{"HostConfig":{}}`, `{"Image":"x"} {}`,
		`{"Image":"x","HostConfig":{"Binds":["/a:/b"],"Ulimits":[null],"ConsoleSize":[99999999,1],"DeviceRequests":[{}]}}`,
		`{"Image":"x","HostConfig":{"PidsLimit":-1,"NanoCpus":9223372036854775807,"Memory":-9223372036854775808,"Tmpfs":{"/t":"size=1m"}}}`,
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Mode":4294967295}}],"Dns":["::1"],"PortBindings":{"80/tcp":[{}]}}}`,
		`{"Image":"x","ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"Healthcheck":{"Test":["NONE"]},"StopTimeout":-1,"Labels":{"":""}}`,
	} {
		f.Add([]byte(s), "name")
	}
	root := f.TempDir()
	h := New(engine.Open(root, f.TempDir(), engine.Options{}), Options{})
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		r := httptest.NewRequest("POST", "/v1.50/containers/create?"+url.Values{"name": {name}}.Encode(), bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		// Our own client's requests are read by another reader, which must not be any kinder.
		r2 := httptest.NewRequest("POST", r.URL.String(), bytes.NewReader(body))
		r2.Header.Set("User-Agent", hullAgent)
		w2 := httptest.NewRecorder()
		h.ServeHTTP(w2, r2)
		if w2.Code < 400 || w2.Code == http.StatusInternalServerError {
			t.Errorf("%q as hull: %d %s", body, w2.Code, w2.Body)
		}
		var e struct{ Message string }
		if w.Code < 400 || w.Code >= 500 && w.Code != http.StatusNotImplemented && w.Code != http.StatusServiceUnavailable {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Message == "" {
			t.Errorf("%q: %d with no sentence: %s", body, w.Code, w.Body)
		}
	})
}

// FuzzTranslate: what is taken from the wire comes back as it was, and neither way panics.
func FuzzTranslate(f *testing.F) {
	f.Add([]byte(`{"Image":"x","Cmd":["a"],"Env":["A=b"],"Labels":{"a":"b"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},
		"HostConfig":{"Binds":["/a:/b"],"Memory":5,"CapAdd":["X"],"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"Dns":["1.1.1.1"]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req container.CreateRequest
		if json.Unmarshal(body, &req) != nil || req.Config == nil || req.HostConfig == nil {
			return
		}
		cfg := configFrom(req.Config)
		host, err := hostFrom(req.HostConfig)
		if err != nil {
			return
		}
		cfg2 := configFrom(wireConfig(cfg))
		host2, err := hostFrom(wireHost(host))
		if err != nil {
			t.Fatal(err)
		}
		if cfg2.User != cfg.User || strings.Join(cfg2.Env, "\x00") != strings.Join(cfg.Env, "\x00") || cfg2.Image != cfg.Image {
			t.Errorf("config: %+v became %+v", cfg, cfg2)
		}
		if host2.Resources.Memory != host.Resources.Memory || len(host2.Mounts) != len(host.Mounts) || host2.Privileged != host.Privileged {
			t.Errorf("host: %+v became %+v", host, host2)
		}
	})
}

// FuzzRequest throws paths and queries at the routes that need no body.
func FuzzRequest(f *testing.F) {
	for _, rt := range table {
		f.Add(rt.method, rt.pattern, "filters={}&limit=x&t=y&h=-1&w=70000&tail=-5&since=1.5&until=x&detachKeys=ctrl-")
	}
	f.Add("GET", "/v1.44//containers/%2e%2e/json", "filters={\"a\":1}")
	h := New(engine.Open(f.TempDir(), f.TempDir(), engine.Options{}), Options{})
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r, err := http.NewRequest(method, "http://hull", http.NoBody)
		if err != nil {
			return
		}
		r.URL.Path, r.URL.RawQuery = path, query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %q?%q: %s", method, path, query, w.Body)
		}
	})
}

// FuzzDetach: the keys are found however the input is cut up, and nothing else is lost or added.
func FuzzDetach(f *testing.F) {
	f.Add([]byte("hello\x10\x11rest"), uint8(3))
	f.Add([]byte("\x10\x10\x11"), uint8(1))
	f.Add([]byte("\x10a\x10"), uint8(2))
	keys := []byte{0x10, 0x11}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		var out bytes.Buffer
		err := copyUntil(&out, iotestReader{bytes.NewReader(in), int(cut%7) + 1}, keys)
		want, detached := in, false
		if i := bytes.Index(in, keys); i >= 0 {
			want, detached = in[:i], true
		}
		if !bytes.Equal(want, out.Bytes()) || detached != (err == errDetached) {
			t.Errorf("%q: want %q, got %q, %v", in, want, out.Bytes(), err)
		}
	})
}

// iotestReader reads at most n bytes at a time.
type iotestReader struct {
	r *bytes.Reader
	n int
}

func (r iotestReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), r.n)]) }

// TestCreateBodyAlike: what both readers take they understand alike.
func TestCreateBodyAlike(t *testing.T) {
	full := `{"Image":"x","Cmd":["a","b"],"Entrypoint":["e"],"Env":["A=b"],"Labels":{"a":"b"},"Tty":true,"OpenStdin":true,"User":"1","StopTimeout":3,"Volumes":null,
		"Healthcheck":{"Test":["NONE"],"Interval":5},"HostConfig":{"Binds":["/a:/b"],"Memory":5,"NanoCpus":7,"CapAdd":["X"],"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],
		"Dns":["1.1.1.1"],"PidsLimit":9,"RestartPolicy":{"Name":"no"},"Tmpfs":{"/t":"size=1m"},"ConsoleSize":[3,4],"AutoRemove":true,"LogConfig":{"Type":"local","Config":{"max-file":"2"}},
		"Mounts":[{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}],"MaskedPaths":[],"ReadonlyPaths":null,
		"Devices":[{"PathOnHost":"/a","PathInContainer":"/b","CgroupPermissions":"r"}],"Init":null,"Sysctls":{"net.a":"1"}},"NetworkingConfig":{"EndpointsConfig":{}}}`
	for _, body := range []string{full, `{"Image":"x","ExposedPorts":{"80/tcp":{}}}`, `{"Image":"x","Volumes":{"/v":{}}}`} {
		var got [2]container.CreateRequest
		for i, agent := range []string{"docker", hullAgent} {
			r := httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.Header.Set("User-Agent", agent)
			var err error
			if got[i], err = (&request{Request: r, w: httptest.NewRecorder()}).createBody(); err != nil {
				t.Fatal(err)
			}
			got[i].NetworkingConfig = nil // nobody reads it
		}
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("%s\nwant %+v %+v\n got %+v %+v", body, got[0].Config, got[0].HostConfig, got[1].Config, got[1].HostConfig)
		}
	}
}

func TestParseKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "ctrl-a": "\x01", "a,b": "ab", "ctrl-@,ctrl-_": "\x00\x1f", "ctrl-[": "\x1b"} {
		if got, err := parseKeys(in); string(got) != want || err != nil {
			t.Errorf("%q: want %q, got %q, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-A", "ab", ",", "ctrl-1"} {
		if got, err := parseKeys(in); errdef.Kind(err) != errdef.ErrInvalid {
			t.Errorf("%q: want ErrInvalid, got %q, %v", in, got, err)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	c := client(t)
	for _, tt := range []struct {
		body string
		code int
		says string
	}{
		{"", 400, "EOF"},
		{"{", 400, "invalid JSON"},
		{`{"Image":5}`, 400, "invalid JSON"},
		{`{"HostConfig":{}}`, 400, "config cannot be empty"},
		{`{"Image":"x"}{}`, 400, "unexpected content"},
		{`{"Image":"` + strings.Repeat("x", maxBody+1) + `"}`, 413, "too large"},
		{`{"Image":"nothing-here","Cmd":["true"]}`, 404, "No such image: nothing-here:latest"},
	} {
		res, body := do(t, c, "POST", "/containers/create", tt.body, "Content-Type", "application/json")
		if res.StatusCode != tt.code || !strings.Contains(body, tt.says) {
			t.Errorf("%.40s: want %d %q, got %s %.200s", tt.body, tt.code, tt.says, res.Status, body)
		}
	}
	if res, body := do(t, c, "POST", "/containers/create", `{"Image":"x"}`, "Content-Type", "text/plain"); res.StatusCode != 400 || !strings.Contains(body, "Content-Type") {
		t.Errorf("text/plain: got %s %s", res.Status, body)
	}
}
