package cgroup

import (
	"strconv"
	"strings"
	"time"
)

// Stats is what a group uses. What the host does not count is zero.
type Stats struct {
	Memory      uint64 // bytes, page cache included
	MemoryLimit uint64 // bytes; 0: no limit
	CPU         time.Duration
	Pids        uint64
	PidsLimit   uint64 // 0: no limit
	OOMKills    uint64 // processes killed for want of memory
}

// Stats reads the current usage.
func (g *Group) Stats() Stats {
	s := Stats{OOMKills: g.oomKills()}
	if dir := g.dir("memory"); dir != "" {
		s.Memory = number(dir + "/memory.usage_in_bytes")
		// The kernel says "no limit" as the largest multiple of the page size.
		if s.MemoryLimit = number(dir + "/memory.limit_in_bytes"); s.MemoryLimit > 1<<62 {
			s.MemoryLimit = 0
		}
	} else if dir := g.unified(); dir != "" {
		s.Memory = number(dir + "/memory.current")
		s.MemoryLimit = number(dir + "/memory.max")
	}
	if dir := g.dir("cpuacct"); dir != "" {
		s.CPU = time.Duration(number(dir + "/cpuacct.usage"))
	} else if dir := g.unified(); dir != "" {
		s.CPU = time.Duration(field(dir+"/cpu.stat", "usage_usec")) * time.Microsecond
	}
	dir := g.dir("pids")
	if dir == "" {
		dir = g.unified()
	}
	if dir != "" {
		s.Pids = number(dir + "/pids.current")
		s.PidsLimit = number(dir + "/pids.max")
	}
	return s
}

// OOMKilled reports whether the kernel killed a process of the group for want of memory. Ask before Remove.
func (g *Group) OOMKilled() bool { return g.oomKills() > 0 }

func (g *Group) oomKills() uint64 {
	if dir := g.dir("memory"); dir != "" {
		return field(dir+"/memory.oom_control", "oom_kill")
	}
	if dir := g.unified(); dir != "" {
		return field(dir+"/memory.events", "oom_kill")
	}
	return 0
}

// number reads a file that holds a number; "max" and a missing file are 0.
func number(name string) uint64 {
	s, err := get(name)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// field reads the number after key in a file of "key number" lines; 0 if there is none.
func field(name, key string) uint64 {
	s, err := get(name)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(s) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		if k == key {
			n, _ := strconv.ParseUint(v, 10, 64)
			return n
		}
	}
	return 0
}

// readPids reads a cgroup.procs file; a file that is gone holds none.
func readPids(dir int, name string) ([]int, error) {
	s, err := getat(dir, name)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(s) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		if n > 0 { // 0: of another pid namespace
			pids = append(pids, n)
		}
	}
	return pids, nil
}
