package cgroup

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func render(limits []limit) string {
	var b strings.Builder
	for _, l := range limits {
		b.WriteString(l.file + "=" + l.value + "\n")
	}
	return b.String()
}

func TestTranslations(t *testing.T) {
	memory := func(limit, swap int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}
	}
	disk := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	for _, tt := range []struct {
		name      string
		translate func(*specs.LinuxResources) ([]limit, []string, error)
		res       *specs.LinuxResources
		want      string
	}{
		{"memory v1", memoryV1, memory(64<<20, 128<<20), "memory.limit_in_bytes=67108864\nmemory.memsw.limit_in_bytes=134217728\n"},
		{"memory v2", memoryV2, memory(64<<20, 128<<20), "memory.max=67108864\nmemory.swap.max=67108864\n"},
		{"no swap v2", memoryV2, memory(64<<20, 64<<20), "memory.max=67108864\nmemory.swap.max=0\n"},
		{"swap without bound v2", memoryV2, memory(64<<20, -1), "memory.max=67108864\nmemory.swap.max=max\n"},
		{"lifted v1", memoryV1, memory(-1, 0), "memory.limit_in_bytes=-1\nmemory.memsw.limit_in_bytes=-1\n"},
		{"lifted v2", memoryV2, memory(-1, 0), "memory.max=max\nmemory.swap.max=max\n"},
		{"cpus v1", cpuV1, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(150000)), Period: ptr(uint64(100000))}},
			"cpu.cfs_period_us=100000\ncpu.cfs_quota_us=150000\n"},
		{"cpus v2", cpuV2, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(150000))}}, "cpu.max=150000 100000\n"},
		{"period alone v2", cpuV2, &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(5000))}}, "cpu.max=max 5000\n"},
		{"shares v2", cpuV2, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024))}}, "cpu.weight=100\n"},
		{"pids", pids, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, "pids.max=max\n"},
		{"io v2", ioV2, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10)),
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 7}}}}, "io.bfq.weight=10\nio.max=8:16 wiops=7\n"},
		{"blkio v1", blkioV1, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 1 << 20}}}}, "blkio.throttle.read_bps_device=8:16 1048576\n"},
		{"hugetlb v2", hugetlbV2, &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}},
			"hugetlb.2MB.max=4194304\nhugetlb.2MB.rsvd.max=4194304\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits, _, err := tt.translate(tt.res)
			if err != nil {
				t.Fatal(err)
			}
			if got := render(limits); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name      string
		translate func(*specs.LinuxResources) ([]limit, []string, error)
		res       *specs.LinuxResources
	}{
		{"swap alone", memoryV2, &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(1 << 20))}}},
		{"swap below memory", memoryV2, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(2 << 20)), Swap: ptr(int64(1 << 20))}}},
		{"swappiness", memoryV1, &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(101))}}},
		{"page size that is a path", hugetlbV1, &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "/../../x"}}}},
	} {
		if _, _, err := tt.translate(tt.res); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: %v, want invalid", tt.name, err)
		}
	}
}

// The ends and the defaults of v1 and v2 have to meet.
func TestWeightOfShares(t *testing.T) {
	for shares, want := range map[uint64]uint64{2: 1, 1024: 100, 262144: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("weight of %d shares: %d, want %d", shares, got, want)
		}
	}
	for s := uint64(2); s < 262144; s += 100 {
		if weightOfShares(s) > weightOfShares(s+100) {
			t.Fatalf("weight falls between %d and %d shares", s, s+100)
		}
	}
}

// read returns what a v1 or v2 file of g holds.
func (g *Group) fileOf(t *testing.T, controller, v1, v2 string) string {
	t.Helper()
	name := g.unified() + "/" + v2
	if dir := g.dir(controller); dir != "" {
		name = dir + "/" + v1
	}
	s, err := get(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needs(t *testing.T, l Layout, controllers ...string) {
	t.Helper()
	if missing := lacking(strings.Join(controllers, " "), strings.Join(l.Controllers(), " ")); len(missing) > 0 {
		t.Skipf("this host has no %v here", missing)
	}
}

func TestLimitsReachTheKernel(t *testing.T) {
	l := Detect()
	name := parent(t, l)
	needs(t, l, "memory", "pids", "cpu", "cpuset")
	g := mustMake(t, l, name+"/c", &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(17))},
		CPU:    &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
	})
	if got := g.fileOf(t, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory limit %s", got)
	}
	if got := g.fileOf(t, "pids", "pids.max", "pids.max"); got != "17" {
		t.Errorf("pids limit %s", got)
	}
	if got := g.fileOf(t, "cpuset", "cpuset.cpus", "cpuset.cpus"); got != "0" {
		t.Errorf("cpus %s", got)
	}
	if got := g.fileOf(t, "cpu", "cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "50000") {
		t.Errorf("cpu quota %s", got)
	}
	// Raised and lowered: memory and memory with swap bound one another.
	for _, size := range []int64{128 << 20, 32 << 20} {
		if _, err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &size, Swap: &size}}); err != nil {
			t.Errorf("set memory to %d: %v", size, err)
		}
		if s := g.Stats(); s.MemoryLimit != uint64(size) || s.PidsLimit != 17 {
			t.Errorf("limits after Set to %d: %+v", size, s)
		}
	}
	_, err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4095"}})
	if !errors.Is(err, errdef.ErrInvalid) || !strings.HasPrefix(err.Error(), "Requested CPUs are not available - requested 4095, available: ") {
		t.Errorf("cpus that are not there: %v", err)
	}
}

func TestOOMKilled(t *testing.T) {
	l := Detect()
	name := parent(t, l)
	needs(t, l, "memory")
	size := int64(16 << 20)
	g := mustMake(t, l, name+"/c", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &size, Swap: &size}})
	if g.OOMKilled() {
		t.Error("OOMKilled before anything ran")
	}
	cmd := start(t, g, "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done")
	err := cmd.Wait()
	for range 100 {
		if g.OOMKilled() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("not OOMKilled; the process ended with %v", err)
}

// A failure half way leaves no directory.
func TestMakeUndo(t *testing.T) {
	l := Detect()
	name := parent(t, l)
	for what, res := range map[string]*specs.LinuxResources{
		"cpus that are not there":    {CPU: &specs.LinuxCPU{Cpus: "4095"}},
		"unified of no controller":   {Unified: map[string]string{"nonsense.max": "1"}},
		"unified that is a path":     {Unified: map[string]string{"../x": "1"}},
		"device type":                {Devices: []specs.LinuxDeviceCgroup{{Type: "z"}}},
		"device that does not exist": {BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 251, Minor: 251}, Rate: 1}}}},
	} {
		g, warnings, err := Make(l, name+"/c", res)
		if err == nil {
			if len(warnings) == 0 {
				t.Errorf("%s: neither error nor warning", what)
			}
			if err := g.Destroy(deadline(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if g, err = Open(l, name+"/c"); err != nil {
			t.Fatal(err)
		}
		if g.Exists() {
			t.Errorf("%s: a part of the group is left", what)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, bad := range []string{"", "/", "..", "/../..", "a/../..", "a\nb"} {
		if g, err := Open(Layout{}, bad); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("Open %q: %v, %v, want invalid", bad, g, err)
		}
	}
	g, err := Open(Layout{}, "../../a/./b")
	if err != nil || g.Path() != "/a/b" {
		t.Errorf("got %v, %v, want /a/b", g, err)
	}
}

// Without any hierarchy a group is nothing, limits are warnings and all calls do nothing.
func TestNoCgroups(t *testing.T) {
	l := Layout{Reason: "none here"}
	g, warnings, err := Make(l, "x/y", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1))}})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "pids") || !strings.Contains(warnings[0], "none here") {
		t.Fatalf("Make: %q, %v", warnings, err)
	}
	door, err := g.Door()
	if err != nil || len(door.Tasks) != 0 || door.Dir != -1 {
		t.Errorf("Door: %+v, %v", door, err)
	}
	if err := g.Destroy(deadline(t, time.Second)); err != nil {
		t.Error(err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 0 {
		t.Error(pids, err)
	}
	if g.OOMKilled() || g.Frozen() || g.Stats() != (Stats{}) {
		t.Error("nothing has a state")
	}
}

func TestDetectLayouts(t *testing.T) {
	found := parseMembership("9:name=systemd:/u\n3:cpu,cpuacct:/a b\n0::/v2\n")
	if len(found) != 3 || found[0].controllers[0] != "name=systemd" || found[1].own != "/a b" || !found[2].v2 {
		t.Fatalf("%+v", found)
	}
	fillMounts(found, "31 23 0:28 / /cg rw - tmpfs tmpfs rw\n"+
		"32 31 0:29 / /cg/with\\040space rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n"+
		"33 31 0:30 / /cg/x rw - cgroup cgroup rw,xattr,name=systemd\n"+
		"34 31 0:31 / /cg/v2 rw - cgroup2 none rw\n")
	for i, want := range []string{"/cg/x", "/cg/with space", "/cg/v2"} {
		if found[i].top != want {
			t.Errorf("mount %d: %q, want %q", i, found[i].top, want)
		}
	}
}

// A user's processes can be moved only within the subtree that is the user's.
func TestDelegated(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	top := t.TempDir()
	scope := top + "/user.slice/user@1.service/app.scope"
	if err := os.MkdirAll(scope, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/user.slice/user@1.service", "/user.slice/user@1.service/app.scope"} {
		if err := os.WriteFile(top+dir+"/cgroup.procs", nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := hierarchy{top: top, v2: true, own: "/user.slice/user@1.service/app.scope"}
	if got, want := writableBelow(&h), top+"/user.slice/user@1.service"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
