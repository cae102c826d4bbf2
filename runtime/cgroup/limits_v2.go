package cgroup

import (
	"fmt"
	"math"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func memoryV2(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	m := res.Memory
	if m == nil {
		return nil, nil, nil
	}
	if set(m.Limit) {
		limits = append(limits, limit{file: "memory.max", value: orMax(*m.Limit), missing: noMemory})
	}
	swap, err := swapV2(m)
	if err != nil {
		return nil, nil, err
	}
	if swap != "" {
		limits = append(limits, limit{file: "memory.swap.max", value: swap, missing: noSwap})
	}
	if set(m.Reservation) {
		limits = append(limits, limit{file: "memory.low", value: orMax(*m.Reservation), missing: noReservation})
	}
	if err := checkSwappiness(m); err != nil {
		return nil, nil, err
	}
	if m.Swappiness != nil {
		warnings = append(warnings, noSwappiness)
	}
	if set(m.KernelTCP) {
		warnings = append(warnings, noKernelTCP)
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		warnings = append(warnings, noOOMDisable)
	}
	return limits, warnings, nil
}

// swapV2 converts the limit of memory and swap together to that of swap alone, as v2 wants it.
func swapV2(m *specs.LinuxMemory) (string, error) {
	switch {
	case !set(m.Swap) && set(m.Limit) && *m.Limit == -1:
		return "max", nil
	case !set(m.Swap):
		return "", nil
	case *m.Swap < 0:
		return "max", nil
	case !set(m.Limit) || *m.Limit < 0:
		return "", errdef.Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case *m.Swap < *m.Limit:
		return "", errdef.Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	}
	return num(*m.Swap - *m.Limit), nil
}

func cpuV2(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	c := res.CPU
	if c == nil {
		return nil, nil, nil
	}
	if c.Shares != nil && *c.Shares != 0 {
		var shares uint64
		shares, warnings = clampShares(*c.Shares)
		limits = append(limits, limit{file: "cpu.weight", value: num(weightOfShares(shares)), missing: noShares})
	}
	if set(c.Quota) || c.Period != nil && *c.Period != 0 {
		quota, period := int64(-1), uint64(100000)
		if set(c.Quota) {
			quota = *c.Quota
		}
		if c.Period != nil && *c.Period != 0 {
			period = *c.Period
		}
		limits = append(limits, limit{file: "cpu.max", value: orMax(quota) + " " + num(period), missing: noPeriod,
			invalid: fmt.Sprintf("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000), and quota not less than 1ms (quota %d, period %d)", quota, period)})
	}
	if c.Burst != nil {
		limits = append(limits, limit{file: "cpu.max.burst", value: num(*c.Burst), missing: noBurst})
	}
	if c.Idle != nil {
		limits = append(limits, limit{file: "cpu.idle", value: num(*c.Idle), missing: noIdle})
	}
	if set(c.RealtimeRuntime) || c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		warnings = append(warnings, noRealtime)
	}
	return limits, warnings, nil
}

// weightOfShares converts v1's shares (2..262144, default 1024) to v2's weight (1..10000, default 100) so that both
// ends and the defaults meet: a parabola through (1,0), (10,2), (18,4) over the logarithms. A straight line gave
// a container with the default shares 39, less than half of what its neighbours have.
func weightOfShares(shares uint64) uint64 {
	switch {
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ioWeight converts a weight of v1 and of BFQ (10..1000) to that of io.weight (1..10000).
func ioWeight(w uint16) uint64 { return 1 + (max(uint64(w), 10)-10)*9999/990 }

func ioV2(res *specs.LinuxResources) (limits []limit, warnings []string, err error) {
	b := res.BlockIO
	if b == nil {
		return nil, nil, nil
	}
	if b.Weight != nil && *b.Weight != 0 {
		limits = append(limits, limit{file: "io.bfq.weight", value: num(*b.Weight), orFile: "io.weight", orValue: num(ioWeight(*b.Weight)), missing: noWeight})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			limits = append(limits, limit{file: "io.bfq.weight", value: device(d.LinuxBlockIODevice) + " " + num(*d.Weight),
				orFile: "io.weight", orValue: device(d.LinuxBlockIODevice) + " " + num(ioWeight(*d.Weight)), missing: noWeightDev})
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			rate := num(d.Rate)
			if d.Rate == 0 {
				rate = "max"
			}
			limits = append(limits, limit{file: "io.max", value: device(d.LinuxBlockIODevice) + " " + t.v2 + "=" + rate, missing: noThrottle,
				invalid: "No such block device: " + device(d.LinuxBlockIODevice)})
		}
	}
	return limits, warnings, nil
}
