package cgroup

import (
	"strconv"
	"strings"
	"time"
)

// Usage is everything the kernel counts for a group. What it does not count here is zero.
type Usage struct {
	CPU, User, System         time.Duration
	PerCPU                    []time.Duration // v1 only
	Periods, ThrottledPeriods uint64
	Throttled                 time.Duration

	Memory      uint64 // bytes, page cache included
	MemoryPeak  uint64
	MemoryFails uint64            // v1: times the limit was met; v2: times nothing could be reclaimed
	MemoryLimit uint64            // 0: no limit
	MemoryStat  map[string]uint64 // memory.stat, whose keys differ between v1 and v2

	Pids, PidsLimit uint64 // limit 0: none

	IOBytes, IOs []IO
}

// IO is what went to or came from one block device.
type IO struct {
	Major, Minor uint64
	Op           string // "Read", "Write", ... with v1; "read", "write" with v2: as Docker shows them
	Value        uint64
}

// Usage reads the counters of the group.
func (g *Group) Usage() Usage {
	var u Usage
	g.cpuUsage(&u)
	g.memoryUsage(&u)
	s := g.Stats()
	u.Pids, u.PidsLimit = s.Pids, s.PidsLimit
	g.ioUsage(&u)
	return u
}

func (g *Group) cpuUsage(u *Usage) {
	if dir := g.dir("cpuacct"); dir != "" {
		u.CPU = time.Duration(number(dir + "/cpuacct.usage"))
		stat := table(dir + "/cpuacct.stat")
		u.User, u.System = ticks(stat["user"]), ticks(stat["system"])
		per, _ := get(dir + "/cpuacct.usage_percpu")
		for f := range strings.FieldsSeq(per) {
			n, _ := strconv.ParseInt(f, 10, 64)
			u.PerCPU = append(u.PerCPU, time.Duration(n))
		}
	} else if dir := g.unified(); dir != "" {
		stat := table(dir + "/cpu.stat")
		u.CPU, u.User, u.System = micros(stat["usage_usec"]), micros(stat["user_usec"]), micros(stat["system_usec"])
	}
	if dir := g.dir("cpu"); dir != "" {
		stat := table(dir + "/cpu.stat")
		u.Periods, u.ThrottledPeriods, u.Throttled = stat["nr_periods"], stat["nr_throttled"], time.Duration(stat["throttled_time"])
	} else if dir := g.unified(); dir != "" {
		stat := table(dir + "/cpu.stat")
		u.Periods, u.ThrottledPeriods, u.Throttled = stat["nr_periods"], stat["nr_throttled"], micros(stat["throttled_usec"])
	}
}

// ticks are USER_HZ, 100 a second on every architecture of ours.
func ticks(n uint64) time.Duration  { return time.Duration(n) * 10 * time.Millisecond }
func micros(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

func (g *Group) memoryUsage(u *Usage) {
	s := g.Stats()
	u.Memory, u.MemoryLimit = s.Memory, s.MemoryLimit
	if dir := g.dir("memory"); dir != "" {
		u.MemoryPeak, u.MemoryFails = number(dir+"/memory.max_usage_in_bytes"), number(dir+"/memory.failcnt")
		u.MemoryStat = table(dir + "/memory.stat")
	} else if dir := g.unified(); dir != "" {
		u.MemoryPeak, u.MemoryFails = number(dir+"/memory.peak"), field(dir+"/memory.events", "oom")
		u.MemoryStat = table(dir + "/memory.stat")
	}
}

func (g *Group) ioUsage(u *Usage) {
	if dir := g.dir("blkio"); dir != "" {
		for _, f := range []struct {
			to    *[]IO
			names []string
		}{
			{&u.IOBytes, []string{"blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"}},
			{&u.IOs, []string{"blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"}},
		} {
			for _, name := range f.names {
				if text, err := get(dir + "/" + name); err == nil {
					*f.to = blkioTable(text)
					break
				}
			}
		}
		return
	}
	if dir := g.unified(); dir != "" {
		text, _ := get(dir + "/io.stat")
		u.IOBytes, u.IOs = ioStat(text)
	}
}

// blkioTable reads lines of v1: "8:0 Read 4096". The last, "Total 4096", names no device.
func blkioTable(text string) (out []IO) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if io, ok := deviceOf(f[0]); ok {
			io.Op = f[1]
			io.Value, _ = strconv.ParseUint(f[2], 10, 64)
			out = append(out, io)
		}
	}
	return out
}

// ioStat reads lines of v2: "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
func ioStat(text string) (bytes, ios []IO) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		io, ok := deviceOf(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(kv, "=")
			io.Value, _ = strconv.ParseUint(value, 10, 64)
			switch key {
			case "rbytes", "rios":
				io.Op = "read"
			case "wbytes", "wios":
				io.Op = "write"
			default:
				continue
			}
			if strings.HasSuffix(key, "bytes") {
				bytes = append(bytes, io)
			} else {
				ios = append(ios, io)
			}
		}
	}
	return bytes, ios
}

func deviceOf(s string) (io IO, ok bool) {
	major, minor, ok := strings.Cut(s, ":")
	if !ok {
		return io, false
	}
	var err1, err2 error
	io.Major, err1 = strconv.ParseUint(major, 10, 32)
	io.Minor, err2 = strconv.ParseUint(minor, 10, 32)
	return io, err1 == nil && err2 == nil
}

// table reads a file of "key number" lines.
func table(name string) map[string]uint64 {
	text, err := get(name)
	if err != nil {
		return nil
	}
	out := make(map[string]uint64)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[key] = n
		}
	}
	return out
}
