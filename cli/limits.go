package cli

import (
	"slices"
	"strconv"
	"strings"

	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// limits are the flags of run, create and update that bound what a container uses.
type limits struct {
	memory, reservation         bytesFlag
	memorySwap                  swapFlag
	kernelMemory                bytesFlag
	cpus                        cpusFlag
	shares, period, quota, pids int64
	rtPeriod, rtRuntime         int64
	cpuset, memset              string
	weight                      uint16
	weightDevices               weightFlag
	readBps, writeBps           throttleFlag
	readIOPS, writeIOPS         throttleFlag
}

func (l *limits) add(f *pflag.FlagSet) {
	f.VarP(&l.memory, "memory", "m", "Limit of memory")
	f.Var(&l.memorySwap, "memory-swap", "Limit of memory and swap together, -1 for no limit")
	f.Var(&l.reservation, "memory-reservation", "Memory it keeps when there is little")
	f.Var(&l.kernelMemory, "kernel-memory", "Without effect: taken out of the kernel")
	f.Lookup("kernel-memory").Hidden = true
	f.Var(&l.cpus, "cpus", "Number of CPUs it may use")
	f.Int64VarP(&l.shares, "cpu-shares", "c", 0, "Weight of its share of the CPUs")
	f.Int64Var(&l.period, "cpu-period", 0, "Period of the CPU quota in microseconds")
	f.Int64Var(&l.quota, "cpu-quota", 0, "CPU time in each period in microseconds")
	f.Int64Var(&l.rtPeriod, "cpu-rt-period", 0, "Period of the real-time limit in microseconds")
	f.Int64Var(&l.rtRuntime, "cpu-rt-runtime", 0, "Real-time CPU time in each period in microseconds")
	f.StringVar(&l.cpuset, "cpuset-cpus", "", "CPUs it may run on (0-3, 0,1)")
	f.StringVar(&l.memset, "cpuset-mems", "", "Memory nodes it may use (0-3, 0,1)")
	f.Int64Var(&l.pids, "pids-limit", 0, "Number of processes and threads, -1 for no limit")
	f.Uint16Var(&l.weight, "blkio-weight", 0, "Weight of its share of block devices (10 to 1000)")
	f.Var(&l.weightDevices, "blkio-weight-device", "Weight of its share of one device: /dev/sda:500")
	l.readBps.bytes, l.writeBps.bytes = true, true
	f.Var(&l.readBps, "device-read-bps", "Limit of bytes read from a device each second: /dev/sda:10mb")
	f.Var(&l.writeBps, "device-write-bps", "Limit of bytes written to a device each second: /dev/sda:10mb")
	f.Var(&l.readIOPS, "device-read-iops", "Limit of reads from a device each second: /dev/sda:1000")
	f.Var(&l.writeIOPS, "device-write-iops", "Limit of writes to a device each second: /dev/sda:1000")
}

// set fills in what the flags ask for.
func (l *limits) set(r *container.Resources, f *pflag.FlagSet) {
	r.Memory, r.MemorySwap, r.MemoryReservation = int64(l.memory), int64(l.memorySwap), int64(l.reservation)
	r.NanoCPUs, r.CPUShares, r.CPUPeriod, r.CPUQuota = int64(l.cpus), l.shares, l.period, l.quota
	r.CPURealtimePeriod, r.CPURealtimeRuntime = l.rtPeriod, l.rtRuntime
	r.CpusetCpus, r.CpusetMems = l.cpuset, l.memset
	r.BlkioWeight, r.BlkioWeightDevice = l.weight, l.weightDevices.list
	r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = l.readBps.list, l.writeBps.list
	r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = l.readIOPS.list, l.writeIOPS.list
	if f.Changed("pids-limit") {
		r.PidsLimit = &l.pids
	}
}

const noKernelMemory = "--kernel-memory is ignored: such limits were taken out of the kernel; --memory counts the kernel's memory too."

// cutDevice splits PATH:VALUE.
func cutDevice(s string) (path, value string, err error) {
	path, value, ok := strings.Cut(s, ":")
	switch {
	case !ok || value == "":
		return "", "", errdef.Invalid("bad format: %s", s)
	case !strings.HasPrefix(path, "/dev/"):
		return "", "", errdef.Invalid("bad format for device path: %s", s)
	}
	return path, value, nil
}

// weightFlag collects weights of block devices, the last of each.
type weightFlag struct{ list []*blkiodev.WeightDevice }

func (*weightFlag) String() string { return "" }
func (*weightFlag) Type() string   { return "list" }
func (w *weightFlag) Set(s string) error {
	path, value, err := cutDevice(s)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return errdef.Invalid("invalid weight for device: %s", s)
	}
	w.list = slices.DeleteFunc(w.list, func(d *blkiodev.WeightDevice) bool { return d.Path == path })
	w.list = append(w.list, &blkiodev.WeightDevice{Path: path, Weight: uint16(n)})
	return nil
}

// throttleFlag collects rates of block devices, the last of each.
type throttleFlag struct {
	bytes bool // units such as mb are allowed
	list  []*blkiodev.ThrottleDevice
}

func (*throttleFlag) String() string { return "" }
func (*throttleFlag) Type() string   { return "list" }
func (t *throttleFlag) Set(s string) error {
	path, value, err := cutDevice(s)
	if err != nil {
		return err
	}
	var rate uint64
	if t.bytes {
		var n int64
		if n, err = units.RAMInBytes(value); err != nil || n < 0 {
			return errdef.Invalid("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
		}
		rate = uint64(n)
	} else if rate, err = strconv.ParseUint(value, 10, 64); err != nil {
		return errdef.Invalid("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	t.list = slices.DeleteFunc(t.list, func(d *blkiodev.ThrottleDevice) bool { return d.Path == path })
	t.list = append(t.list, &blkiodev.ThrottleDevice{Path: path, Rate: rate})
	return nil
}
