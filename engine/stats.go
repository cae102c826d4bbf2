package engine

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"hull/runtime/cgroup"
)

// Stats is what a container uses, all counted since its start.
type Stats struct {
	ID, Name string
	Read     time.Time // zero when the container does not run: nothing else is set then
	cgroup.Usage
	SystemCPU time.Duration // of all processors of the machine since its boot, idle time included
	CPUs      int           // that are online
	// MemoryLimit of Usage is the machine's memory where the container has no smaller limit.
	Networks map[string]NetStats // by interface; nil without a network of its own
}

// IO is what went to or came from one block device.
type IO = cgroup.IO

// NetStats are the counters of one network interface as the container sees it.
type NetStats struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Stats takes one sample. An ordinary user's container without a cgroup is measured by its processes, which leaves out
// what those that have ended used, and block devices.
func (e *Engine) Stats(ctx context.Context, name string) (*Stats, error) {
	c, err := e.get(ctx, name)
	if err != nil {
		return nil, err
	}
	s := &Stats{ID: c.ID, Name: c.Name}
	if !c.Running() {
		return s, nil
	}
	g, err := e.group(c)
	if err != nil {
		return nil, err
	}
	host := readHostFacts()
	if g.Exists() {
		s.Usage = g.Usage()
	} else if s.Usage, err = e.processUsage(c, host); err != nil {
		return nil, err
	}
	if s.MemoryLimit == 0 || s.MemoryLimit > host.memory {
		s.MemoryLimit = host.memory
	}
	s.Read = host.now
	s.SystemCPU, s.CPUs = systemCPU()
	if c.Host.Network != modeHost {
		s.Networks = readNetDev(procOf(c.State.Pid) + "net/dev")
	}
	return s, nil
}

// processUsage adds up what the processes of c use.
func (e *Engine) processUsage(c *Container, host *hostFacts) (u cgroup.Usage, err error) {
	pids, err := e.pids(c)
	if err != nil {
		return u, err
	}
	for _, pid := range pids {
		p, ok := readProcess(pid)
		if !ok {
			continue
		}
		p.host = host
		u.Pids += p.number(statThreads)
		u.Memory += p.rss()
		u.User += time.Duration(p.number(statUser)) * time.Second / userHZ
		u.System += time.Duration(p.number(statSystem)) * time.Second / userHZ
	}
	u.CPU = u.User + u.System
	return u, nil
}

// systemCPU reads how much time all processors have spent, in whatever way, and how many there are.
func systemCPU() (sum time.Duration, cpus int) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "cpu") {
			break // they come first
		}
		if f[0] != "cpu" {
			cpus++
			continue
		}
		for _, v := range f[1:min(len(f), 9)] { // what follows, guests' time, is in the first already
			n, _ := strconv.ParseInt(v, 10, 64)
			sum += time.Duration(n) * time.Second / userHZ
		}
	}
	return sum, cpus
}

// readNetDev reads /proc/PID/net/dev, without the loopback.
func readNetDev(path string) map[string]NetStats {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out map[string]NetStats
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || name == "lo" || len(f) < 12 {
			continue
		}
		at := func(i int) uint64 {
			n, _ := strconv.ParseUint(f[i], 10, 64)
			return n
		}
		if out == nil {
			out = map[string]NetStats{}
		}
		out[name] = NetStats{
			RxBytes: at(0), RxPackets: at(1), RxErrors: at(2), RxDropped: at(3),
			TxBytes: at(8), TxPackets: at(9), TxErrors: at(10), TxDropped: at(11),
		}
	}
	return out
}
