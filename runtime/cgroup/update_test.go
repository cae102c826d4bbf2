package cgroup

import (
	"errors"
	"testing"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// contents are the files of g that the tests below change, with what is in them.
func contents(g *Group) map[string]string {
	out := map[string]string{}
	for _, d := range g.dirs {
		for _, name := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes",
			"cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "pids.max",
			"memory.max", "memory.swap.max", "memory.low", "cpu.weight", "cpu.max"} {
			if text, err := get(d.path + "/" + name); err == nil {
				out[name] = text
			}
		}
	}
	return out
}

func TestUpdateIsTakenBack(t *testing.T) {
	for name, l := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			limits := func(memory int64, cpus string) *specs.LinuxResources {
				return &specs.LinuxResources{
					Memory: &specs.LinuxMemory{Limit: &memory, Swap: ptr(2 * memory), Reservation: ptr(memory / 2)},
					CPU:    &specs.LinuxCPU{Shares: ptr(uint64(memory >> 20)), Quota: ptr(memory >> 10), Period: ptr(uint64(100000)), Cpus: cpus},
					Pids:   &specs.LinuxPids{Limit: ptr(memory >> 20)},
				}
			}
			g := mustMake(t, l, parent(t, l)+"/taken-back", nil)
			none := contents(g)
			change := func(size int64) Former {
				t.Helper()
				old, err := g.Before(limits(size, "0"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := g.Set(limits(size, "0")); err != nil {
					t.Fatal(err)
				}
				return old
			}
			first := change(64 << 20)
			small := contents(g)
			for _, size := range []int64{32 << 20, 128 << 20} { // the bounds of memory and swap have to be crossed both ways
				old := change(size)
				if now := contents(g); equal(now, small) && len(now) > 0 {
					t.Errorf("update to %d changed nothing", size)
				}
				if err := old.Restore(); err != nil {
					t.Error(err)
				}
				compare(t, small, contents(g))
				if _, ok := small["cpuset.cpus"]; !ok {
					continue
				}
				// What the kernel refuses comes after much that it has taken.
				if _, err := g.Set(limits(size, "4095")); !errors.Is(err, errdef.ErrInvalid) {
					t.Errorf("a processor that is not there: %v, want invalid", err)
				}
				compare(t, small, contents(g))
			}
			if err := first.Restore(); err != nil {
				t.Error(err)
			}
			compare(t, none, contents(g))
		})
	}
}

func equal(a, b map[string]string) bool {
	for k := range a {
		if a[k] != b[k] {
			return false
		}
	}
	return true
}

func compare(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name := range want {
		if want[name] != got[name] {
			t.Errorf("%s: want %q, got %q", name, want[name], got[name])
		}
	}
}

func TestFormerValue(t *testing.T) {
	for _, tt := range []struct{ file, text, now, want string }{
		{"memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0", "0", "1"},
		{"blkio.throttle.read_bps_device", "8:0 100\n8:16 200", "8:16 7", "8:16 200"},
		{"blkio.throttle.read_bps_device", "8:0 100", "8:16 7", "8:16 0"},
		{"io.max", "8:16 rbps=max wbps=5 riops=max wiops=max", "8:16 rbps=7", "8:16 rbps=max wbps=5 riops=max wiops=max"},
		{"io.max", "", "8:16 rbps=7", "8:16 rbps=max wbps=max riops=max wiops=max"},
		{"io.weight", "default 100\n8:16 200", "300", "default 100"},
		{"io.weight", "default 100", "8:16 200", "8:16 default"},
		{"cpuset.cpus", "", "0-3", "\n"},
		{"pids.max", "max", "7", "max"},
	} {
		if got := formerValue(tt.file, tt.text, tt.now); got != tt.want {
			t.Errorf("%s holds %q, %q is written: want %q back, got %q", tt.file, tt.text, tt.now, tt.want, got)
		}
	}
}
