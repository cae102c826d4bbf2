package engine

import (
	"os"
	"path"
	"reflect"
	"runtime"
	"strconv"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const minMemory = 6 << 20

// checkResources refuses limits that contradict each other or this machine, and makes explicit what follows from them.
func checkResources(r *Resources) error {
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 { // how clients say that nobody said
		r.MemorySwappiness = nil
	}
	switch {
	case r.Memory < 0 || r.MemoryReservation < 0 || r.MemorySwap < -1:
		return errdef.Invalid("invalid memory limit: must not be negative")
	case r.Memory > 0 && r.Memory < minMemory:
		return errdef.Invalid("Minimum memory limit allowed is 6MB")
	case r.MemorySwap > 0 && r.Memory == 0:
		return errdef.Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errdef.Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return errdef.Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return errdef.Invalid("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(runtime.NumCPU())*1e9:
		return errdef.Invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", runtime.NumCPU(), runtime.NumCPU())
	case r.NanoCPUs > 0 && (r.CPUPeriod != 0 || r.CPUQuota != 0):
		return errdef.Invalid("Conflicting options: CPU Period or Quota cannot be used together with NanoCPUs")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return errdef.Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errdef.Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPURTPeriod < 0 || r.CPURTPeriod > 0 && r.CPURTRuntime > r.CPURTPeriod:
		return errdef.Invalid("cpu real-time runtime cannot be higher than cpu real-time period")
	case r.CPUShares < 0:
		return errdef.Invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return errdef.Invalid("Range of blkio weight is from 10 to 1000")
	}
	for _, d := range r.BlkioWeightDevices {
		if d.Weight != 0 && (d.Weight < 10 || d.Weight > 1000) {
			return errdef.Invalid("Range of blkio weight is from 10 to 1000")
		}
	}
	if err := checkSet("CPUs", r.CpusetCpus, "cpu"); err != nil {
		return err
	}
	return checkSet("memory nodes", r.CpusetMems, "node")
}

// checkSet holds a list of processors or memory nodes to those the machine has.
func checkSet(what, list, kind string) error {
	if list == "" {
		return nil
	}
	if err := checkCPUList("cpuset "+what, list); err != nil {
		return err
	}
	online, err := os.ReadFile("/sys/devices/system/" + kind + "/online")
	if err != nil {
		return nil // the kernel will judge
	}
	have := strings.TrimSpace(string(online))
	for part := range strings.SplitSeq(list, ",") {
		lo, hi := bounds(part)
		for n := lo; n <= hi; n++ {
			if !inSet(have, n) {
				return errdef.Invalid("Requested %s are not available - requested %s, available: %s", what, clip(list), have)
			}
		}
	}
	return nil
}

// inSet reports whether list, which the kernel wrote or checkCPUList has admitted, has n.
func inSet(list string, n int) bool {
	for part := range strings.SplitSeq(list, ",") {
		if lo, hi := bounds(part); lo <= n && n <= hi {
			return true
		}
	}
	return false
}

// bounds of "2-5", or of "3" alone.
func bounds(part string) (lo, hi int) {
	first, last, isRange := strings.Cut(part, "-")
	if !isRange {
		last = first
	}
	lo, _ = strconv.Atoi(first)
	hi, _ = strconv.Atoi(last)
	return lo, hi
}

// checkCPUList admits "0-3,5" and bounds the numbers: expanding 0-2147483647 once took a daemon down
// (CVE-2018-20699).
func checkCPUList(what, list string) error {
	if list == "" {
		return nil
	}
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		if !isDigits(lo) || !isDigits(hi) || len(lo) > 4 || len(hi) > 4 {
			return errdef.Invalid("Invalid value %s for %s", clip(list), what)
		}
		if l, h := bounds(part); l > h {
			return errdef.Invalid("Invalid value %s for %s: %s ends before it begins", clip(list), what, part)
		}
	}
	return nil
}

// cgroupOf is where the processes of c are: its definition says it, so they are found whatever else is lost.
func (e *Engine) cgroupOf(c *Container) string {
	if c.Host.CgroupParent == "" {
		return e.cgroup(c.ID)
	}
	return path.Join("/", c.Host.CgroupParent, c.ID)
}

// checkCgroupParent refuses what would not be a path below every hierarchy. ".." leads nowhere: see cgroupOf.
func checkCgroupParent(p string) error {
	if len(p) > 2048 {
		return errdef.Invalid("invalid cgroup parent %q: it is too long", clip(p))
	}
	return noControl("cgroup parent", p)
}

// limits of the cgroup.
func (b *builder) limits(cgroup string) {
	r := &b.c.Host.Resources
	if b.noCgroups {
		b.spec.Linux.Resources = nil
		if !r.none() {
			b.warnings = append(b.warnings, noCgroupWarning)
		}
		return
	}
	b.spec.Linux.CgroupsPath = cgroup
	out := b.spec.Linux.Resources
	out.Memory = memory(r)
	out.CPU = cpu(r)
	pids := int64(DefaultPids)
	if r.PidsLimit != nil {
		pids = *r.PidsLimit
	}
	if pids <= 0 {
		pids = -1
	}
	out.Pids = &specs.LinuxPids{Limit: &pids}
	b.blkio(r)
	if out.Memory != nil && out.Memory.DisableOOMKiller != nil && r.Memory == 0 {
		b.warnings = append(b.warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
}

const noCgroupWarning = "this user has no cgroup of their own, so the limits of memory, CPU, processes and block devices do not hold"

// none reports whether nobody asked for a limit.
func (r *Resources) none() bool { return reflect.ValueOf(*r).IsZero() }

func memory(r *Resources) *specs.LinuxMemory {
	m := new(specs.LinuxMemory)
	if r.Memory > 0 {
		m.Limit, m.Swap = &r.Memory, &r.MemorySwap
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwappiness != nil {
		m.Swappiness = new(uint64(*r.MemorySwappiness))
	}
	if r.OOMKillDisable != nil && *r.OOMKillDisable {
		m.DisableOOMKiller = r.OOMKillDisable
	}
	if *m == (specs.LinuxMemory{}) {
		return nil
	}
	return m
}

// cpuPeriod is the period, in microseconds, that --cpus is a share of.
const cpuPeriod = 100000

func cpu(r *Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		c.Shares = new(uint64(r.CPUShares))
	}
	switch {
	case r.NanoCPUs > 0:
		c.Period = new(uint64(cpuPeriod))
		c.Quota = new(max(r.NanoCPUs*cpuPeriod/1e9, 1000)) // the kernel's minimum is a millisecond
	default:
		if r.CPUPeriod > 0 {
			c.Period = new(uint64(r.CPUPeriod))
		}
		if r.CPUQuota != 0 {
			c.Quota = &r.CPUQuota
		}
	}
	if r.CPURTPeriod > 0 {
		c.RealtimePeriod = new(uint64(r.CPURTPeriod))
	}
	if r.CPURTRuntime > 0 {
		c.RealtimeRuntime = &r.CPURTRuntime
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func (b *builder) blkio(r *Resources) {
	io := new(specs.LinuxBlockIO)
	if r.BlkioWeight > 0 {
		io.Weight = &r.BlkioWeight
	}
	for _, d := range r.BlkioWeightDevices {
		if dev, ok := b.blockDevice(d.Path); ok && d.Weight > 0 {
			io.WeightDevice = append(io.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: dev, Weight: &d.Weight})
		}
	}
	for _, t := range []struct {
		from []ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioReadBps, &io.ThrottleReadBpsDevice},
		{r.BlkioWriteBps, &io.ThrottleWriteBpsDevice},
		{r.BlkioReadIOPS, &io.ThrottleReadIOPSDevice},
		{r.BlkioWriteIOPS, &io.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			if dev, ok := b.blockDevice(d.Path); ok {
				*t.to = append(*t.to, specs.LinuxThrottleDevice{LinuxBlockIODevice: dev, Rate: d.Rate})
			}
		}
	}
	if !reflect.ValueOf(*io).IsZero() {
		b.spec.Linux.Resources.BlockIO = io
	}
}

// blockDevice finds a device by its path. One that is not there gets no limit, and a warning: disks come and go.
func (b *builder) blockDevice(path string) (specs.LinuxBlockIODevice, bool) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFBLK {
		err = unix.ENOTBLK
	}
	if err != nil {
		b.warnings = append(b.warnings, "no limit for "+clip(path)+": "+err.Error())
		return specs.LinuxBlockIODevice{}, false
	}
	return specs.LinuxBlockIODevice{Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev)))}, true
}
