package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hull/state"

	"golang.org/x/sys/unix"
)

// healthy are the facts of a machine where everything works.
func healthy() *facts {
	dir := func(path string) directory {
		return directory{path: path, probed: path, fs: "ext4", writable: true, mode: 0o711, size: 1 << 40, free: 1 << 39, inodes: 1 << 24, freeInodes: 1 << 23}
	}
	return &facts{kernel: "6.18.0", major: 6, minor: 18, arch: "amd64", capResource: true, overlayKnown: true, nofile: 1 << 20,
		sysctls: map[string]string{}, formatted: true, subIDs: 65536, root: dir("/var/lib/hull"), run: dir("/run/hull"),
		cgroups: cgroupFacts{layout: "cgroup v2", controllers: []string{"cpu", "cpuset", "devices", "freezer", "io", "memory", "pids"}, dir: "/sys/fs/cgroup"}}
}

func TestDoctorHealthy(t *testing.T) {
	for _, uid := range []int{0, 1000} {
		f := healthy()
		f.uid = uid
		d := f.diagnose()
		if !d.Healthy() {
			t.Errorf("user %d: not healthy", uid)
		}
		for _, c := range d.Checks {
			if c.Level == LevelWarn || c.Level == LevelFail || c.Do != "" || c.Found == "" {
				t.Errorf("user %d: %+v", uid, c)
			}
		}
	}
}

// Each row breaks one thing: exactly one check changes, and its cure names the word.
func TestDoctorFinds(t *testing.T) {
	eperm := unix.EPERM
	for name, row := range map[string]struct {
		uid   int
		ill   func(*facts)
		check string
		level Level
		word  string // in Found, Means or Do
	}{
		"crun refused":    {0, func(f *facts) { f.obstacles = []string{obstacle("/usr/bin/crun", "hugetlb\n")} }, "other runtimes", LevelInfo, "--runtime runc"},
		"crun by default": {0, func(f *facts) { f.obstacles, f.obstructed = []string{"crun"}, true }, "other runtimes", LevelWarn, "default-runtime"},
		"old kernel":      {0, func(f *facts) { f.major, f.minor = 5, 10 }, "version", LevelWarn, "newer kernel"},
		"no openat2":      {0, func(f *facts) { f.noCalls = []string{"openat2"} }, "system calls", LevelFail, "seccomp"},
		"no overlayfs":    {0, func(f *facts) { f.overlayKnown = false }, "overlayfs", LevelFail, "CONFIG_OVERLAY_FS"},
		"overlay module":  {0, func(f *facts) { f.overlayKnown, f.overlayLater = false, true }, "overlayfs", LevelInfo, "module"},
		"overlay refused": {0, func(f *facts) { f.overlay = unix.EINVAL }, "overlayfs", LevelFail, "--root"},
		"no time ns":      {0, func(f *facts) { f.noNamespaces = []string{"time"} }, "namespaces", LevelWarn, "share"},
		"no pid ns":       {0, func(f *facts) { f.noNamespaces = []string{"time", "pid"} }, "namespaces", LevelFail, "cannot be started"},
		"no userns":       {0, func(f *facts) { f.userNS = eperm }, "user namespace", LevelFail, "--userns=host"},
		"userns off":      {0, func(f *facts) { f.userNS, f.sysctls["user/max_user_namespaces"] = unix.ENOSPC, "0" }, "user namespace", LevelFail, "sysctl -w user.max_user_namespaces"},
		"debian sysctl":   {1000, func(f *facts) { f.userNS, f.sysctls["kernel/unprivileged_userns_clone"] = eperm, "0" }, "user namespace", LevelFail, "sysctl -w kernel.unprivileged_userns_clone=1"},
		"ubuntu apparmor": {1000, func(f *facts) { f.userNS, f.sysctls["kernel/apparmor_restrict_unprivileged_userns"] = eperm, "1" }, "user namespace", LevelFail, "apparmor_restrict"},
		"no idmap":        {0, func(f *facts) { f.idmap = unix.EINVAL }, "id-mapped mounts", LevelFail, "ext4"},
		"no seccomp":      {0, func(f *facts) { f.seccomp = unix.EINVAL }, "seccomp", LevelFail, "CONFIG_SECCOMP_FILTER"},
		"no cgroups":      {0, func(f *facts) { f.cgroups = cgroupFacts{} }, "cgroups", LevelFail, "mount -t cgroup2"},
		"no memory":       {0, func(f *facts) { f.cgroups.controllers = f.cgroups.controllers[:5] }, "cgroups", LevelWarn, "--memory, --pids-limit"},
		"cgroups ro":      {0, func(f *facts) { f.cgroups.refused = unix.EROFS }, "cgroups", LevelFail, "writable"},
		"no limits":       {1000, func(f *facts) { f.cgroups.refused = unix.EACCES }, "cgroups", LevelInfo, "do not hold"},
		"few files":       {0, func(f *facts) { f.nofile = 256 }, "open files", LevelWarn, "ulimit"},
		"no resource":     {0, func(f *facts) { f.capResource = false }, "open files", LevelInfo, "--ulimit"},
		"nfs":             {0, func(f *facts) { f.root.fs = "nfs" }, "root directory", LevelFail, "--root"},
		"read-only":       {0, func(f *facts) { f.root.readonly = true }, "root directory", LevelFail, "read-only"},
		"noexec":          {0, func(f *facts) { f.root.noexec = true }, "root directory", LevelFail, "noexec"},
		"nosuid":          {0, func(f *facts) { f.root.nosuid = true }, "root directory", LevelWarn, "nosuid"},
		"not mine":        {1000, func(f *facts) { f.root.writable = false }, "root directory", LevelFail, "owner"},
		"root open":       {0, func(f *facts) { f.root.open, f.root.mode = true, 0o777 }, "root directory", LevelWarn, "chmod go-w"},
		"run not mine":    {1000, func(f *facts) { f.run.writable = false }, "run directory", LevelFail, "HULL_RUN"},
		"root a file":     {0, func(f *facts) { f.run.err = errors.New("/run/hull is not a directory") }, "run directory", LevelFail, "--run"},
		"nearly full":     {0, func(f *facts) { f.root.free = 100 << 20 }, "free space", LevelWarn, "hull rmi"},
		"full":            {0, func(f *facts) { f.root.free = 0 }, "free space", LevelFail, "hull rmi"},
		"no inodes":       {0, func(f *facts) { f.root.freeInodes = 3 }, "free space", LevelFail, "hull rmi"},
		"no store":        {0, func(f *facts) { f.formatted = false }, "layout", LevelInfo, "no store yet"},
		"newer store":     {0, func(f *facts) { f.version = errors.New("written by a newer Hull") }, "layout", LevelFail, "newer Hull"},
		"dead monitor":    {0, func(f *facts) { f.dead = []string{strings.Repeat("ab", 32)} }, "leftovers", LevelWarn, "abababababab has lost"},
		"nested":          {0, func(f *facts) { f.nested = true }, "rights", LevelWarn, "user namespace"},
		"caps dropped":    {0, func(f *facts) { f.noCaps = []string{"CAP_SYS_ADMIN"} }, "rights", LevelWarn, "CAP_SYS_ADMIN"},
		"no uidmap":       {1000, func(f *facts) { f.noMapTools = []string{"newuidmap"} }, "user ids", LevelWarn, "apt-get install uidmap"},
		"no subuid":       {1000, func(f *facts) { f.subIDs, f.userName = 0, "ann" }, "user ids", LevelWarn, "65535 ann"},
		"no runtime":      {0, func(f *facts) { f.noRuntime = errors.New("built without its runtime") }, "build", LevelFail, "make build"},
		"no box":          {0, func(f *facts) { f.noBox = errors.New("built without box") }, "build", LevelWarn, "busybox-static"},
	} {
		t.Run(name, func(t *testing.T) {
			well := healthy()
			well.uid = row.uid
			f := healthy()
			f.uid = row.uid
			row.ill(f)
			d, before := f.diagnose(), well.diagnose()
			i := slices.IndexFunc(d.Checks, func(c Check) bool { return c.Name == row.check })
			if i < 0 {
				t.Fatalf("no check %q", row.check)
			}
			c := d.Checks[i]
			if text := c.Found + c.Means + c.Do; c.Level != row.level || !strings.Contains(text, row.word) {
				t.Errorf("want %s naming %q, got %+v", row.level, row.word, c)
			}
			if (c.Level == LevelFail) == d.Healthy() {
				t.Errorf("level %s, healthy %v", c.Level, d.Healthy())
			}
			if (c.Level == LevelWarn || c.Level == LevelFail) && (c.Means == "" || c.Do == "") && row.check != "layout" {
				t.Errorf("no consequence or cure: %+v", c)
			}
			for j, other := range d.Checks {
				if other.Name == "id-mapped mounts" && f.userNS != nil {
					continue // cannot be tried then
				}
				if j != i && other.Level != before.Checks[j].Level {
					t.Errorf("%s changed too: %+v", other.Name, other)
				}
			}
		})
	}
}

func TestLookAtCgroups(t *testing.T) {
	const (
		v2     = "30 20 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		memory = "31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		cpu    = "32 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
		blkio  = "33 20 0:29 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"
		named  = "34 20 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
	)
	for name, row := range map[string]struct{ text, layout, controllers string }{
		"none":   {"1 0 8:1 / / rw - ext4 /dev/sda rw\n", "", ""},
		"v1":     {memory + cpu + named, "cgroup v1", "cpu memory"},
		"hybrid": {memory + blkio + v2, "cgroup v1, with v2 beside it (hybrid),", "io memory"},
		"v2":     {v2 + named, "cgroup v2", ""},
	} {
		g := lookAtCgroups(row.text, "0::/\n", 1000)
		controllers := slices.DeleteFunc(g.controllers, func(c string) bool { return row.layout == "cgroup v2" })
		if g.layout != row.layout || strings.Join(controllers, " ") != row.controllers {
			t.Errorf("%s: want %q with %q, got %q with %q", name, row.layout, row.controllers, g.layout, g.controllers)
		}
	}
}

func TestSubIDs(t *testing.T) {
	file := []byte("ann:100000:65536\n1000:300000:10\nbob:1:1\nann:bad:x\nann:5\n")
	if got := subIDs(file, "ann", 1000); got != 65546 {
		t.Errorf("want 65546, got %d", got)
	}
	if got := subIDs(file, "eve", 7); got != 0 {
		t.Errorf("want 0, got %d", got)
	}
}

func TestMissingCaps(t *testing.T) {
	if missing, resource := missingCaps("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"); len(missing) > 0 || !resource {
		t.Errorf("all: missing %v, resource %v", missing, resource)
	}
	if missing, resource := missingCaps("Name:\tx\nCapEff:\t0000000000000000\n"); !slices.Contains(missing, "CAP_SYS_ADMIN") || resource {
		t.Errorf("none: missing %v, resource %v", missing, resource)
	}
}

func TestLookAt(t *testing.T) {
	dir := t.TempDir()
	if d := lookAt(filepath.Join(dir, "a/b")); d.err != nil || d.probed != dir || d.open || !d.writable || d.fs == "" || d.size == 0 {
		t.Errorf("absent: %+v", d)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if d := lookAt(file); d.err == nil {
		t.Errorf("file: %+v", d)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if d := lookAt(dir); !d.open {
		t.Errorf("open: %+v", d)
	}
}

// On this very machine: it answers, twice the same, and neither the store nor the mounts show that it looked.
func TestDoctorHere(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := state.Open(root); err != nil {
		t.Fatal(err)
	}
	e := Open(root, filepath.Join(dir, "run"), Options{Runtime: "/bin/true"})
	lost := filepath.Join(dir, "run", "containers", strings.Repeat("c", 64))
	if err := os.MkdirAll(lost, 0o700); err != nil {
		t.Fatal(err)
	}
	mounts, files := procFile("self/mountinfo"), list(t, dir)
	d := e.Doctor(t.Context())
	for _, c := range d.Checks {
		t.Logf("%-5s %s: %s %s %s", c.Level, c.Name, c.Found, c.Means, c.Do)
	}
	if got := list(t, dir); !slices.Equal(got, files) {
		t.Errorf("files before %q, after %q", files, got)
	}
	if got := procFile("self/mountinfo"); got != mounts {
		t.Errorf("mounts before:\n%s\nafter:\n%s", mounts, got)
	}
	i := slices.IndexFunc(d.Checks, func(c Check) bool { return c.Name == "leftovers" })
	if i < 0 || !strings.Contains(d.Checks[i].Found, "cccccccccccc") {
		t.Errorf("the container without monitor is not named: %+v", d.Checks)
	}
	again := e.Doctor(t.Context())
	if !slices.EqualFunc(d.Checks, again.Checks, func(a, b Check) bool { return a.Name == b.Name && a.Level == b.Level }) {
		t.Errorf("first %+v\nthen %+v", d.Checks, again.Checks)
	}
}

// A store that does not exist is not made by asking.
func TestDoctorMakesNoStore(t *testing.T) {
	dir := t.TempDir()
	d := Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"), Options{}).Doctor(t.Context())
	if got := list(t, dir); len(got) != 1 {
		t.Errorf("made %q", got)
	}
	if len(d.Checks) == 0 {
		t.Error("no checks")
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestObstacle(t *testing.T) {
	for _, row := range []struct {
		path, controllers string
		want              bool
	}{
		{"/usr/bin/crun", "hugetlb\n", true},
		{"/usr/bin/crun", "\n", false}, // v2 is there for systemd only
		{"/usr/bin/crun", "", false},
		{"/usr/bin/runc", "hugetlb\n", false},
		{"", "hugetlb\n", false}, // our own
	} {
		if got := obstacle(row.path, row.controllers); (got != "") != row.want {
			t.Errorf("%q with %q: got %q", row.path, row.controllers, got)
		}
	}
}
