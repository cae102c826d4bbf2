package cli

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hull/errdef"
)

func noVariables(string) (string, bool) { return "", false }

func TestVariables(t *testing.T) {
	passed := func(name string) (string, bool) { return "from outside", name == "PASSED" }
	for in, want := range map[string][]string{
		"":                          nil,
		"\ufeffA=1\n":               {"A=1"},
		"# A=1\n   # B=2\n\n  C=3":  {"C=3"},
		"A=b c \nQ=\"x\"\nE=\nF==f": {"A=b c ", `Q="x"`, "E=", "F==f"},
		"PASSED\nMISSING\n":         {"PASSED=from outside"},
		"A=1\r\n":                   {"A=1"},
		"A=#no comment":             {"A=#no comment"},
	} {
		if got, err := variables(strings.NewReader(in), passed); err != nil || !slices.Equal(want, got) {
			t.Errorf("variables(%q): want %q, got %q, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"=x", "a b=c", "A\tB", "\xff=1", "A=\x00", "A=1\nB=" + strings.Repeat("x", maxLine)} {
		if got, err := variables(strings.NewReader(in), passed); err == nil {
			t.Errorf("variables(%.20q): want an error, got %.40q", in, got)
		}
	}
}

// FuzzVariables: what is accepted can be given to execve.
func FuzzVariables(f *testing.F) {
	for _, s := range []string{"A=1\n#x\nB", "\ufeffA=b c", "=x", "a b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := variables(strings.NewReader(s), noVariables)
		if err != nil {
			return
		}
		for _, v := range list {
			name, _, ok := strings.Cut(v, "=")
			if !ok || name == "" || strings.ContainsAny(name, " \t\n") || strings.ContainsAny(v, "\x00\n") {
				t.Errorf("variables(%q) gave %q", s, v)
			}
		}
	})
}

func TestBind(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"/a:/b":                "/a:/b",
		"/a:/b:ro,Z,rslave":    "/a:/b:ro,Z,rslave",
		".:/b":                 here + ":/b",
		"./x:/b:rw":            filepath.Join(here, "x") + ":/b:rw",
		"../x:/b":              filepath.Join(filepath.Dir(here), "x") + ":/b",
		"/with space/ä:/b/c d": "/with space/ä:/b/c d",
		"name:/data:nocopy":    "name:/data:nocopy",
		"a/b:/data":            "a/b:/data", // refused by the engine, which says that it is no volume's name
		"/data":                "/data",
	} {
		got, anonymous, err := bind(in)
		if err != nil || got != want || anonymous != (in == "/data") {
			t.Errorf("bind(%q): want %q, got %q, anonymous %v, %v", in, want, got, anonymous, err)
		}
	}
	for _, in := range []string{"", "data", "/", "/a:", ":/b", "/a:b", "/a:/", "/a:/./", "/a:/b:ro:x", "/a:/b\x00:ro", "v::ro"} {
		if got, _, err := bind(in); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("bind(%q): want ErrInvalid, got %q, %v", in, got, err)
		}
	}
}

// FuzzBind: an accepted bind has an absolute target below the root, and means itself.
func FuzzBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "./x:/b", "name:/x", "/a:/", "::", "/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, anonymous, err := bind(s)
		if err != nil {
			return
		}
		parts := strings.Split(got, ":")
		target := parts[min(len(parts)-1, 1)]
		if len(parts) > 3 || anonymous != (len(parts) == 1) || !path.IsAbs(target) || path.Clean(target) == "/" {
			t.Errorf("bind(%q) = %q", s, got)
		}
		if again, _, err := bind(got); err != nil || again != got {
			t.Errorf("bind(%q) = %q, but bind of that is %q, %v", s, got, again, err)
		}
	})
}

func TestMountFlag(t *testing.T) {
	for in, want := range map[string]string{
		"target=/x":                               `{"Type":"volume","Target":"/x"}`,
		"type=bind,src=/a,dst=/b,ro":              `{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}`,
		"type=BIND,src=/a,dst=/b,readonly=false":  `{"Type":"bind","Source":"/a","Target":"/b"}`,
		"type=bind,src=/a,dst=/b,bind-create-src": `{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"CreateMountpoint":true}}`,
		"type=bind,src=/a,dst=/b,bind-recursive=disabled,bind-propagation=rslave":             `{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"Propagation":"rslave","NonRecursive":true}}`,
		"type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=rprivate":        `{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rprivate","ReadOnlyForceRecursive":true}}`,
		"src=v,dst=/b,volume-subpath=a/b,volume-nocopy,volume-label=k=v":                      `{"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"NoCopy":true,"Labels":{"k":"v"},"Subpath":"a/b"}}`,
		`src=v,dst=/b,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=1.2.3.4,rw"`: `{"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"o":"addr=1.2.3.4,rw","type":"nfs"}}}}`,
		"type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770":                                     `{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}}`,
		"type=image,src=box,dst=/i,image-subpath=etc":                                         `{"Type":"image","Source":"box","Target":"/i","ImageOptions":{"Subpath":"etc"}}`,
	} {
		var m mountFlag
		err := m.Set(in)
		if err != nil || len(m) != 1 {
			t.Errorf("--mount %s: %v", in, err)
			continue
		}
		if got, err := json.Marshal(m[0]); err != nil || string(got) != want {
			t.Errorf("--mount %s:\nwant %s\ngot  %s, %v", in, want, got, err)
		}
	}
	for in, says := range map[string]string{
		"":                                      "value is empty",
		"type=bind,src=/a":                      "target is required",
		"type=,dst=/a":                          "type is required",
		"dst=/a,nope":                           "invalid field 'nope' must be a key=value pair",
		"dst=/a,nope=1":                         "unexpected key 'nope' in 'nope=1'",
		"dst=/a,bind-nope=1":                    "unexpected key 'bind-nope' in 'bind-nope=1'",
		"dst=/a,ro=x":                           "invalid value for ro: x",
		"type=bind,src=/a,dst=/b,volume-nocopy": "cannot mix 'volume-*' options with mount type 'bind'",
		"dst=/b,bind-propagation=shared":        "cannot mix 'bind-*' options with mount type 'volume'",
		"type=bind,dst=/b,tmpfs-size=1":         "cannot mix 'tmpfs-*' options with mount type 'bind'",
		"dst=/b,image-subpath=x":                "cannot mix 'image-*' options with mount type 'volume'",
		"type=bind,src=/a,dst=/b,bind-recursive=maybe":       "invalid value for bind-recursive: maybe",
		"type=bind,src=/a,dst=/b,bind-recursive=writable":    "requires 'readonly'",
		"type=bind,src=/a,dst=/b,bind-recursive=readonly,ro": "requires 'bind-propagation=rprivate'",
		"type=tmpfs,dst=/b,tmpfs-mode=9":                     "invalid value for tmpfs-mode: 9",
	} {
		var m mountFlag
		if err := m.Set(in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("--mount %s: want an error with %q, got %v", in, says, err)
		}
	}
}

func TestDevice(t *testing.T) {
	for in, want := range map[string][3]string{
		"/dev/x":          {"/dev/x", "/dev/x", "rwm"},
		"/dev/x:r":        {"/dev/x", "/dev/x", "r"},
		"/dev/x:/dev/y":   {"/dev/x", "/dev/y", "rwm"},
		"/dev/x:/dev/y:m": {"/dev/x", "/dev/y", "m"},
	} {
		d, err := device(in)
		if got := [3]string{d.PathOnHost, d.PathInContainer, d.CgroupPermissions}; err != nil || got != want {
			t.Errorf("device(%q): want %q, got %q, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"", "x", "/dev/x:y", "/dev/x:/y:", "/dev/x:/y:rr", "/dev/x:/y:rwx", "/a:/b:r:w", "vendor.com/class=gpu0", "/a\x00:/b"} {
		if d, err := device(in); err == nil {
			t.Errorf("device(%q): want an error, got %+v", in, d)
		}
	}
}

func FuzzDevice(f *testing.F) {
	for _, s := range []string{"/dev/x:/dev/y:rwm", "/dev/x:r", "a:b:c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := device(s)
		if err == nil && (!path.IsAbs(d.PathOnHost) || !path.IsAbs(d.PathInContainer) || !deviceMode(d.CgroupPermissions) || strings.Contains(s, "\x00")) {
			t.Errorf("device(%q) = %+v", s, d)
		}
	})
}

func TestUlimit(t *testing.T) {
	for in, want := range map[string][2]int64{
		"nofile=5":             {5, 5},
		"nofile=5:6":           {5, 6},
		"core=unlimited":       {-1, -1},
		"core=0:-1":            {0, -1},
		"memlock=-1:unlimited": {-1, -1},
	} {
		l, err := ulimit(in)
		if err != nil || [2]int64{l.Soft, l.Hard} != want {
			t.Errorf("ulimit(%q): want %v, got %v, %v", in, want, l, err)
		}
	}
	for _, in := range []string{"", "nofile", "nofile=", "nosuch=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "nofile=-2", "nofile=99999999999999999999"} {
		if l, err := ulimit(in); err == nil {
			t.Errorf("ulimit(%q): want an error, got %v", in, l)
		}
	}
}

func FuzzUlimit(f *testing.F) {
	for _, s := range []string{"nofile=1:2", "core=-1", "x=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ulimit(s)
		if err == nil && (l.Soft < -1 || l.Hard < -1 || (l.Hard != -1 && (l.Soft == -1 || l.Soft > l.Hard))) {
			t.Errorf("ulimit(%q) = %v", s, l)
		}
	})
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]int64{"1": 1e9, "1.5": 15e8, ".5": 5e8, "0.000000001": 1, "2.": 2e9, "0": 0} {
		if got, err := nanoCPUs(in); err != nil || got != want {
			t.Errorf("nanoCPUs(%q): want %d, got %d, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"", ".", "-1", "1e3", "NaN", "1/2", "0.0000000001", "99999999999999999999", "1 "} {
		if got, err := nanoCPUs(in); err == nil {
			t.Errorf("nanoCPUs(%q): want an error, got %d", in, got)
		}
	}
	for in, want := range map[string]int64{"64m": 64 << 20, "1.5g": 3 << 29, "4096": 4096, "1KiB": 1024} {
		var b bytesFlag
		if err := b.Set(in); err != nil || int64(b) != want {
			t.Errorf("bytes %q: want %d, got %d, %v", in, want, b, err)
		}
	}
	for _, in := range []string{"", "abc", "-5", "-1", "1x", "99999999999999999g", "NaN"} {
		var b bytesFlag
		if err := b.Set(in); err == nil {
			t.Errorf("bytes %q: want an error, got %d", in, b)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Unix(1000000, 5)
	for in, want := range map[string]string{
		"":                               "",
		"10s":                            "999990.000000005",
		"1h30m":                          "994600.000000005",
		"1970-01-02T00:00:00Z":           "86400.000000000",
		"1970-01-02T00:00:00.5+01:00":    "82800.500000000",
		"1970-01-02T00:00:00.000000001Z": "86400.000000001",
		"12345":                          "12345",
		"12345.678":                      "12345.678",
	} {
		if got, err := moment(in, now); err != nil || got != want {
			t.Errorf("moment(%q): want %q, got %q, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"yesterday", "1.x", "12345.0123456789", "2026-13-01"} {
		if got, err := moment(in, now); err == nil {
			t.Errorf("moment(%q): want an error, got %q", in, got)
		}
	}
}

func TestDetachKeyNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "\x10\x11", "a": "a", "ctrl-a,b,ctrl-@": "\x01b\x00", "CTRL-Z": "\x1a", "ctrl-[,ctrl-_": "\x1b\x1f",
	} {
		if got, err := detachKeys(in); err != nil || string(got) != want {
			t.Errorf("detachKeys(%q): want %q, got %q, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-1", "ab", "a,,b", ","} {
		if got, err := detachKeys(in); err == nil {
			t.Errorf("detachKeys(%q): want an error, got %q", in, got)
		}
	}
}

// TestDetachReader: whatever way the bytes come in pieces, the keys end the stream and nothing else changes.
func TestDetachReader(t *testing.T) {
	for _, tt := range []struct {
		keys, in, out string
		detached      bool
	}{
		{"\x10\x11", "abc", "abc", false},
		{"\x10\x11", "ab\x10\x11cd", "ab", true},
		{"\x10\x11", "a\x10b\x10\x10\x11", "a\x10b\x10", true},
		{"\x10\x11", "a\x10", "a\x10", false},
		{"aab", "aaaaab", "aaa", true},
		{"abab!", "ababab!x", "ab", true},
		{"x", "x", "", true},
	} {
		for piece := 1; piece <= len(tt.in); piece++ {
			d := &detachReader{r: &pieces{tt.in, piece}, keys: []byte(tt.keys)}
			var got []byte
			var err error
			for buf := make([]byte, 2); err == nil; {
				var n int
				n, err = d.Read(buf)
				got = append(got, buf[:n]...)
			}
			if string(got) != tt.out || errors.Is(err, errDetached) != tt.detached {
				t.Errorf("keys %q in %q by %d: want %q %v, got %q %v", tt.keys, tt.in, piece, tt.out, tt.detached, got, err)
			}
		}
	}
}

// pieces is a reader that gives at most n bytes at a time.
type pieces struct {
	rest string
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
