package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"hull/errdef"
)

func TestCheckUser(t *testing.T) {
	for _, ok := range []string{"", "0", "1000", "root", "1000:1000", "nobody:nogroup", "4294967294", "user.name", "a-b_c"} {
		if err := checkUser(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"4294967295", "4294967296", "2147483648:4294967295", "-1", "+1", "1 ", " 1", "1000000000000:0", ":", "a:", "1:", "a/b", "a\nb", "a\x00b", "a,b",
		"0:" + strings.Repeat("9", 400), strings.Repeat("a", 400),
	} {
		if err := checkUser(bad); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want ErrInvalid, got %v", clip(bad), err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"ab", "a1", "web-1_x.y", "0a"} {
		if err := checkName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "a", ".", "..", "-a", "_a", "a b", "a/b", "ä1", "a\n", strings.Repeat("a", 256)} {
		if err := checkName(bad); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want ErrInvalid, got %v", clip(bad), err)
		}
	}
}

func TestGeneratedNames(t *testing.T) {
	for _, a := range adjectives {
		for _, s := range surnames {
			if err := checkName(a + "_" + s); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]int{"9": 9, "KILL": 9, "sigterm": 15, "SIGUSR1": 10, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "64": 64} {
		if got, err := ParseSignal(in); got != want || err != nil {
			t.Errorf("%s: want %d, got %d, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"", "0", "65", "-9", "NOPE", "RTMIN+40", "RTMIN-1", "RTMAX+1", "SIGRTMIN+x", "999"} {
		if n, err := ParseSignal(in); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want ErrInvalid, got %d, %v", in, n, err)
		}
	}
}

func TestEnv(t *testing.T) {
	for _, bad := range []string{"", "=x", "a\x00=b", "a\nb=c"} {
		if err := checkEnv([]string{bad}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q: want ErrInvalid, got %v", bad, err)
		}
	}
	if err := checkEnv([]string{"A=line\nbreak", "B=", "C"}); err != nil {
		t.Error(err)
	}
	if got, want := mergeEnv([]string{"A=1", "B"}, []string{"A=0", "B=0", "C=0"}), []string{"A=1", "C=0"}; !slices.Equal(want, got) {
		t.Errorf("mergeEnv: want %q, got %q", want, got)
	}
	got := processEnv(&Config{Hostname: "h", Env: []string{"PATH=/x", "Z=1"}})
	if want := []string{"PATH=/x", "HOSTNAME=h", "Z=1"}; !slices.Equal(want, got) {
		t.Errorf("processEnv: want %q, got %q", want, got)
	}
}

func TestCapabilities(t *testing.T) {
	for _, tt := range []struct {
		name  string
		host  Host
		has   []string
		lacks []string
		count int
	}{
		{"default", Host{}, []string{"CAP_CHOWN", "CAP_NET_RAW"}, []string{"CAP_SYS_ADMIN"}, 14},
		{"add", Host{CapAdd: []string{"sys_admin", "CAP_SYS_PTRACE"}}, []string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}, nil, 16},
		{"drop", Host{CapDrop: []string{"CHOWN"}}, nil, []string{"CAP_CHOWN"}, 13},
		{"drop all, add one", Host{CapDrop: []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"}}, []string{"CAP_NET_BIND_SERVICE"}, nil, 1},
		{"add all, drop one", Host{CapAdd: []string{"all"}, CapDrop: []string{"SYS_BOOT"}}, []string{"CAP_BPF"}, []string{"CAP_SYS_BOOT"}, 40},
		{"privileged", Host{Privileged: true, CapDrop: []string{"CHOWN"}}, []string{"CAP_CHOWN"}, nil, 41},
	} {
		caps, _, err := capabilities(&tt.host)
		if err != nil || len(caps) != tt.count {
			t.Errorf("%s: want %d, got %d, %v", tt.name, tt.count, len(caps), err)
		}
		for _, c := range tt.has {
			if !slices.Contains(caps, c) {
				t.Errorf("%s: %s is missing", tt.name, c)
			}
		}
		for _, c := range tt.lacks {
			if slices.Contains(caps, c) {
				t.Errorf("%s: has %s", tt.name, c)
			}
		}
	}
	if _, _, err := capabilities(&Host{CapAdd: []string{"NOPE"}}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("unknown capability: want ErrInvalid, got %v", err)
	}
}

// TestCheckRefuses: each line is wrong in one thing, and the answer names it.
func TestCheckRefuses(t *testing.T) {
	minus := int64(-5)
	for _, tt := range []struct {
		change func(c *Config, h *Host)
		says   string
	}{
		{func(c *Config, _ *Host) { c.Cmd = nil }, "no command specified"},
		{func(c *Config, _ *Host) { c.Cmd = []string{"a\x00"} }, "NUL"},
		{func(c *Config, _ *Host) { c.WorkingDir = "rel" }, "absolute path"},
		{func(c *Config, _ *Host) { c.WorkingDir = "/a\nb" }, "control characters"},
		{func(c *Config, _ *Host) { c.Hostname = "a\nb" }, "invalid hostname"},
		{func(c *Config, _ *Host) { c.Hostname = strings.Repeat("h", 65) }, "invalid hostname"},
		{func(c *Config, _ *Host) { c.Labels = map[string]string{"": "x"} }, "label"},
		{func(c *Config, _ *Host) { c.Labels = map[string]string{"x": strings.Repeat("y", 2<<20)} }, "labels have"},
		{func(c *Config, _ *Host) { c.StopSignal = "999" }, "invalid signal"},
		{func(c *Config, _ *Host) { c.User = "4294967296" }, "user"},
		{func(_ *Config, h *Host) { h.Userns = "auto" }, "--userns"},
		{func(_ *Config, h *Host) { h.PidMode = "shared" }, "invalid mode for --pid: shared"},
		{func(_ *Config, h *Host) { h.Resources.Memory = 1 }, "6MB"},
		{func(_ *Config, h *Host) { h.Resources.Memory = -1 }, "memory"},
		{func(_ *Config, h *Host) { h.Resources.NanoCPUs = 1e15 }, "range of CPUs"},
		{func(_ *Config, h *Host) { h.Resources.CpusetCpus = "0-2147483647" }, "cpuset"},
		{func(_ *Config, h *Host) { h.Resources.CpusetMems = "a" }, "cpuset"},
		{func(_ *Config, h *Host) { h.Resources.MemorySwappiness = &minus }, "swappiness"},
		{func(_ *Config, h *Host) { h.Sysctls = map[string]string{"kernel.panic": "1"} }, "separate kernel namespace"},
		{func(_ *Config, h *Host) { h.Sysctls = map[string]string{"net/../kernel/panic": "1"} }, "separate kernel namespace"},
		{func(_ *Config, h *Host) { h.Sysctls = map[string]string{"net.x": "1"}; h.Network = "host" }, "host network"},
		{func(_ *Config, h *Host) { h.Ulimits = []Ulimit{{"nope", 1, 1}} }, "ulimit"},
		{func(_ *Config, h *Host) { h.Ulimits = []Ulimit{{"nofile", 2, 1}} }, "soft limit"},
		{func(_ *Config, h *Host) { h.ExtraHosts = []string{"a:1.2.3.4\n6.6.6.6 bank"} }, "extra host"},
		{func(_ *Config, h *Host) { h.ExtraHosts = []string{"a"} }, "extra host"},
		{func(_ *Config, h *Host) { h.DNS = []string{"1.1.1.1\nnameserver 6.6.6.6"} }, "DNS"},
		{func(_ *Config, h *Host) { h.SecurityOpt = []string{"nope=1"} }, "--security-opt"},
		{func(_ *Config, h *Host) { h.SecurityOpt = []string{"no-new-privileges=maybe"} }, "--security-opt"},
		{func(_ *Config, h *Host) { h.Binds = []string{"rel/x:/y"} }, "absolute"},
		{func(_ *Config, h *Host) { h.Binds = []string{"a/b:/y"} }, "includes invalid characters for a local volume name"},
		{func(_ *Config, h *Host) { h.Binds = []string{"v:/y"} }, "volume name is too short"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/a:ro"} }, "invalid volume specification: '/a:ro'"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/a:/b:ro,rw"} }, "invalid mode: ro,rw"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/a:/b:nosuch"} }, "invalid mode: nosuch"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/a:/b:nocopy"} }, "field VolumeOptions must not be specified"},
		{func(_ *Config, h *Host) { h.Binds = []string{"vol:/b:rslave"} }, "field BindOptions must not be specified"},
		{func(_ *Config, h *Host) { h.Mounts = []Mount{{Type: "volume", Target: "/y", Subpath: "x"}} }, "must not set Subpath"},
		{func(_ *Config, h *Host) {
			h.Mounts = []Mount{{Type: "volume", Source: "vol", Target: "/y", Subpath: "../x"}}
		}, "subpath must be a relative path"},
		{func(_ *Config, h *Host) {
			h.Mounts = []Mount{{Type: "volume", Source: "vol", Target: "/y", Subpath: "/x"}}
		}, "subpath must be a relative path"},
		{func(_ *Config, h *Host) { h.Mounts = []Mount{{Type: "image", Target: "/y"}} }, "field Source must not be empty"},
		{func(_ *Config, h *Host) { h.Mounts = []Mount{{Type: "bind", Source: "/a", Target: "/y", Size: 1}} }, "field TmpfsOptions must not be specified"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/x:y"} }, "absolute"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/x:/"} }, "can't be '/'"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/x:/y:nope"} }, "invalid mode: nope"},
		{func(_ *Config, h *Host) { h.Binds = []string{"/x:/y", "/z:/y/"} }, "Duplicate mount point: /y"},
		{func(_ *Config, h *Host) { h.Tmpfs = map[string]string{"/t": "lowerdir=/x"} }, "tmpfs option"},
		{func(_ *Config, h *Host) { h.Tmpfs = map[string]string{"t": ""} }, "absolute"},
		{func(_ *Config, h *Host) { h.Devices = []Device{{"rel", "/x", ""}} }, "device"},
		{func(_ *Config, h *Host) { h.Devices = []Device{{"/a", "/x", "rq"}} }, "permissions"},
		{func(_ *Config, h *Host) { h.DeviceRules = []string{"c 1 rwm"} }, "rule"},
		{func(_ *Config, h *Host) { h.GroupAdd = []string{"4294967295"} }, "id"},
		{func(_ *Config, h *Host) { h.Log.Driver = "nosuch" }, "log"},
		{func(_ *Config, h *Host) { h.Log.Options = map[string]string{"max-size": "x"} }, "max-size"},
		{func(_ *Config, h *Host) { h.OOMScoreAdj = 5000 }, "oom score"},
	} {
		r := definition("web")
		tt.change(&r.Config, &r.Host)
		if _, err := r.check(); err == nil || !strings.Contains(err.Error(), tt.says) || errdef.Kind(err) == nil {
			t.Errorf("want an error of a kind that says %q, got %v", tt.says, err)
		}
	}
	r := definition("web")
	if w, err := r.check(); err != nil || len(w) != 0 {
		t.Errorf("a plain definition: %q, %v", w, err)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "10k": 10 << 10, "1.5M": 3 << 19, "2gb": 2 << 30, "-1": -1} {
		if got, err := parseSize(in); got != want || err != nil {
			t.Errorf("%s: want %d, got %d, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"", "x", "-5", "1q", "NaN", "1e40t", "0"} {
		if n, err := parseSize(in); err == nil {
			t.Errorf("%q: want an error, got %d", in, n)
		}
	}
}

func TestTmpfsOptions(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "noexec nosuid nodev",
		"size=64m,exec":    "nosuid nodev size=64m exec",
		"rw,nosuid,suid":   "noexec nodev rw suid",
		"mode=1777,noexec": "nosuid nodev mode=1777 noexec",
	} {
		got, err := tmpfsOptions(in)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: want %q, got %q, %v", in, want, strings.Join(got, " "), err)
		}
	}
}
