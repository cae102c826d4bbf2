package cgroup

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The texts of the warnings are Docker's as far as scripts match on them, with the flag added.

func num[T int64 | uint64 | uint32 | uint16](v T) string { return fmt.Sprint(v) }

func memoryV1(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	m := res.Memory
	if m == nil {
		return nil, nil, nil
	}
	if err := checkSwappiness(m); err != nil {
		return nil, nil, err
	}
	if set(m.Limit) {
		limits = append(limits, limit{file: "memory.limit_in_bytes", value: num(*m.Limit), missing: noMemory})
	}
	swap := m.Swap
	if !set(swap) && set(m.Limit) && *m.Limit == -1 {
		swap = m.Limit // memory without bound and swap with one cannot be
	}
	if set(swap) {
		limits = append(limits, limit{file: "memory.memsw.limit_in_bytes", value: num(*swap), missing: noSwap,
			invalid: fmt.Sprintf("Minimum memoryswap limit should be larger than memory limit, see usage (memory and swap %d)", *swap)})
	}
	if set(m.Reservation) {
		limits = append(limits, limit{file: "memory.soft_limit_in_bytes", value: num(*m.Reservation), missing: noReservation})
	}
	if set(m.KernelTCP) {
		limits = append(limits, limit{file: "memory.kmem.tcp.limit_in_bytes", value: num(*m.KernelTCP), missing: noKernelTCP})
	}
	if m.Swappiness != nil {
		limits = append(limits, limit{file: "memory.swappiness", value: num(*m.Swappiness), missing: noSwappiness})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		limits = append(limits, limit{file: "memory.oom_control", value: "1", missing: noOOMDisable})
	}
	return limits, nil, nil
}

const (
	noMemory      = "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded (--memory)."
	noSwap        = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap (--memory-swap)."
	noReservation = "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded (--memory-reservation)."
	noKernelTCP   = "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded (--kernel-memory-tcp)."
	noSwappiness  = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded (--memory-swappiness)."
	noOOMDisable  = "Your kernel does not support OomKillDisable. OomKillDisable discarded (--oom-kill-disable)."
	noShares      = "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded (--cpu-shares)."
	noPeriod      = "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded (--cpus, --cpu-period, --cpu-quota)."
	noBurst       = "Your kernel does not support CPU burst. CPU burst discarded."
	noIdle        = "Your kernel does not support idle CPU groups. CPU idle discarded."
	noRealtime    = "Your kernel does not support CPU real-time scheduler or the cgroup is not mounted. CPU real-time period/runtime discarded (--cpu-rt-period, --cpu-rt-runtime)."
	noCpuset      = "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded (--cpuset-cpus, --cpuset-mems)."
	noPids        = "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded (--pids-limit)."
	noWeight      = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded (--blkio-weight)."
	noWeightDev   = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded (--blkio-weight-device)."
	noThrottle    = "Your kernel does not support Block I/O throttling or the cgroup is not mounted. Block I/O limits discarded (--device-read-bps, --device-write-bps, --device-read-iops, --device-write-iops)."
	noHugetlb     = "Your kernel does not support huge page limits or the cgroup is not mounted. Limitation discarded."
)

// set reports whether v holds a value: runtime-spec's zero asks for nothing.
func set(v *int64) bool { return v != nil && *v != 0 }

func checkSwappiness(m *specs.LinuxMemory) error {
	if m.Swappiness != nil && *m.Swappiness > 100 {
		return errdef.Invalid("Invalid value: %d, valid memory swappiness range is 0-100", *m.Swappiness)
	}
	return nil
}

// The kernel's bounds of cpu.shares; it clamps silently.
const (
	minShares = 2
	maxShares = 262144
)

// clampShares returns the shares that will count, and says so when they are others than asked for.
func clampShares(v uint64) (uint64, []string) {
	switch {
	case v < minShares:
		return minShares, []string{fmt.Sprintf("Changing requested CPUShares of %d to minimum allowed of %d", v, minShares)}
	case v > maxShares:
		return maxShares, []string{fmt.Sprintf("Changing requested CPUShares of %d to maximum allowed of %d", v, maxShares)}
	}
	return v, nil
}

func cpuV1(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	c := res.CPU
	if c == nil {
		return nil, nil, nil
	}
	if c.Shares != nil && *c.Shares != 0 {
		var shares uint64
		shares, warnings = clampShares(*c.Shares)
		limits = append(limits, limit{file: "cpu.shares", value: num(shares), missing: noShares})
	}
	if c.Period != nil && *c.Period != 0 {
		limits = append(limits, limit{file: "cpu.cfs_period_us", value: num(*c.Period), missing: noPeriod,
			invalid: "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"})
	}
	if set(c.Quota) {
		limits = append(limits, limit{file: "cpu.cfs_quota_us", value: num(*c.Quota), missing: noPeriod,
			invalid: "CPU cfs quota can not be less than 1ms (i.e. 1000)"})
	}
	if c.Burst != nil {
		limits = append(limits, limit{file: "cpu.cfs_burst_us", value: num(*c.Burst), missing: noBurst})
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		limits = append(limits, limit{file: "cpu.rt_period_us", value: num(*c.RealtimePeriod), missing: noRealtime})
	}
	if set(c.RealtimeRuntime) {
		limits = append(limits, limit{file: "cpu.rt_runtime_us", value: num(*c.RealtimeRuntime), missing: noRealtime})
	}
	if c.Idle != nil {
		limits = append(limits, limit{file: "cpu.idle", value: num(*c.Idle), missing: noIdle})
	}
	return limits, warnings, nil
}

// cpuset serves both versions: the files have the same names.
func cpuset(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	c := res.CPU
	if c == nil {
		return nil, nil, nil
	}
	if c.Cpus != "" {
		limits = append(limits, limit{file: "cpuset.cpus", value: c.Cpus, missing: noCpuset,
			invalid: fmt.Sprintf("Requested CPUs are not available - requested %s, available: %s", c.Cpus, online("cpu"))})
	}
	if c.Mems != "" {
		limits = append(limits, limit{file: "cpuset.mems", value: c.Mems, missing: noCpuset,
			invalid: fmt.Sprintf("Requested memory nodes are not available - requested %s, available: %s", c.Mems, online("node"))})
	}
	return limits, nil, nil
}

func online(what string) string {
	b, err := os.ReadFile("/sys/devices/system/" + what + "/online")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// pids serves both versions.
func pids(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	if res.Pids == nil || res.Pids.Limit == nil {
		return nil, nil, nil
	}
	return []limit{{file: "pids.max", value: orMax(*res.Pids.Limit), missing: noPids}}, nil, nil
}

// orMax writes a number as v2 does: negative is "max", no limit.
func orMax(v int64) string {
	if v < 0 {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}

func blkioV1(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	b := res.BlockIO
	if b == nil {
		return nil, nil, nil
	}
	if b.Weight != nil && *b.Weight != 0 {
		limits = append(limits, limit{file: "blkio.bfq.weight", value: num(*b.Weight), missing: noWeight})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			limits = append(limits, limit{file: "blkio.bfq.weight_device", value: device(d.LinuxBlockIODevice) + " " + num(*d.Weight), missing: noWeightDev})
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			limits = append(limits, limit{file: "blkio.throttle." + t.v1, value: device(d.LinuxBlockIODevice) + " " + num(d.Rate), missing: noThrottle,
				invalid: "No such block device: " + device(d.LinuxBlockIODevice)})
		}
	}
	return limits, nil, nil
}

type throttle struct {
	v1, v2  string
	devices []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func device(d specs.LinuxBlockIODevice) string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

func hugetlbV1(res *specs.LinuxResources) ([]limit, []string, error) {
	return hugetlb(res, ".limit_in_bytes")
}
func hugetlbV2(res *specs.LinuxResources) ([]limit, []string, error) { return hugetlb(res, ".max") }

// hugetlb limits faults and, where the kernel counts them (5.7), reservations: a reservation beyond the limit then
// fails at mmap(2) instead of killing with SIGBUS later.
func hugetlb(res *specs.LinuxResources, suffix string) (limits []limit, warnings []string, err error) {
	for _, h := range res.HugepageLimits {
		if h.Pagesize == "" || strings.Trim(h.Pagesize, "0123456789KMGTB") != "" {
			return nil, nil, errdef.Invalid("invalid huge page size %q", h.Pagesize)
		}
		limits = append(limits,
			limit{file: "hugetlb." + h.Pagesize + suffix, value: num(h.Limit), missing: noHugetlb},
			limit{file: "hugetlb." + h.Pagesize + ".rsvd" + suffix, value: num(h.Limit), optional: true})
	}
	return limits, nil, nil
}

// rdma serves both versions.
func rdma(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	names := make([]string, 0, len(res.Rdma))
	for name := range res.Rdma {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := name
		if n := res.Rdma[name].HcaHandles; n != nil {
			value += " hca_handle=" + num(*n)
		}
		if n := res.Rdma[name].HcaObjects; n != nil {
			value += " hca_object=" + num(*n)
		}
		limits = append(limits, limit{file: "rdma.max", value: value})
	}
	return limits, nil, nil
}

func netClass(res *specs.LinuxResources) ([]limit, []string, error) {
	if res.Network == nil || res.Network.ClassID == nil {
		return nil, nil, nil
	}
	return []limit{{file: "net_cls.classid", value: num(*res.Network.ClassID),
		missing: "Your kernel does not support network classes or the cgroup is not mounted. Network class discarded."}}, nil, nil
}

func netPriority(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	if res.Network == nil {
		return nil, nil, nil
	}
	for _, p := range res.Network.Priorities {
		limits = append(limits, limit{file: "net_prio.ifpriomap", value: p.Name + " " + num(p.Priority),
			missing: "Your kernel does not support network priorities or the cgroup is not mounted. Network priorities discarded."})
	}
	return limits, nil, nil
}
