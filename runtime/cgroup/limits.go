package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limit is one value for one control file.
type limit struct {
	file  string // name in the group's directory
	value string
	// missing is the warning for a kernel without the file; empty makes its absence an error.
	missing string
	// optional says that a kernel without the file loses nothing worth a word.
	optional bool
	// orFile and orValue are tried where file is missing.
	orFile, orValue string
	// invalid replaces the kernel's "invalid argument" in the error for a value it refuses.
	invalid string
}

// translation is what a part of the resources becomes under one version of cgroups.
type translation struct {
	controller string // as v2 names it
	v1         string // the same as v1 names it; empty for a part that v1 never had
	one, two   func(*specs.LinuxResources) ([]limit, []string, error)
}

// translations are in the order in which they are written: what can be refused before what costs.
func translations() []translation {
	return []translation{
		{"memory", "memory", memoryV1, memoryV2},
		{"cpu", "cpu", cpuV1, cpuV2},
		{"cpuset", "cpuset", cpuset, cpuset},
		{"pids", "pids", pids, pids},
		{"io", "blkio", blkioV1, ioV2},
		{"hugetlb", "hugetlb", hugetlbV1, hugetlbV2},
		{"rdma", "rdma", rdma, rdma},
		{"", "net_cls", netClass, nil},
		{"", "net_prio", netPriority, nil},
	}
}

// planned are limits for one directory; "" when the controller is not there.
type planned struct {
	dir    string
	limits []limit
	of     string // begins an error about them; "" needs no beginning
}

// plan translates res for this group.
func (g *Group) plan(res *specs.LinuxResources) (plan []planned, warnings []string, err error) {
	for _, t := range translations() {
		dir, translate := g.dir(t.v1), t.one
		if dir == "" && t.two != nil {
			dir, translate = g.unified(), t.two
		}
		limits, notes, err := translate(res)
		if err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, notes...)
		plan = append(plan, planned{dir: dir, limits: limits})
	}
	unified, err := g.planUnified(res.Unified)
	return append(plan, unified...), warnings, err
}

func (g *Group) setLimits(res *specs.LinuxResources) (warnings []string, err error) {
	if err := g.enableControllers(); err != nil {
		return nil, err
	}
	if err := g.checkUsage(res.Memory); err != nil {
		return nil, err
	}
	plan, warnings, err := g.plan(res)
	if err != nil {
		return nil, err
	}
	for _, p := range plan {
		notes, err := writeLimits(p.dir, p.limits)
		if err != nil && p.of != "" {
			return nil, fmt.Errorf("%s: %w", p.of, err)
		}
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, notes...)
	}
	return unique(warnings), nil
}

// checkUsage refuses a memory limit below what is in use, if that was asked for: the group would be killed.
func (g *Group) checkUsage(m *specs.LinuxMemory) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	if s := g.Stats(); s.Memory > uint64(*m.Limit) {
		return errdef.Invalid("memory limit %d is below the current usage of %d", *m.Limit, s.Memory)
	}
	return nil
}

// unique drops repetitions: several values may be lost for one reason.
func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// writeLimits writes limits in dir; dir "" means that the controller is not there.
func writeLimits(dir string, limits []limit) (warnings []string, err error) {
	for i, l := range limits {
		err := error(unix.ENOENT)
		if dir != "" {
			err = put(dir+"/"+l.file, l.value)
			if errors.Is(err, unix.ENOENT) && l.orFile != "" {
				err = put(dir+"/"+l.orFile, l.orValue)
			}
		}
		if err != nil && i+1 < len(limits) && retryAfterNext(l, limits[i+1]) && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY)) {
			// The two bound one another, and the old value of the second forbids the new one of the first.
			if err = put(dir+"/"+limits[i+1].file, limits[i+1].value); err == nil {
				err = put(dir+"/"+l.file, l.value)
			}
		}
		switch {
		case err == nil, l.optional && errors.Is(err, unix.ENOENT):
		case l.missing != "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || unprivileged(err)):
			warnings = append(warnings, l.missing)
		case errors.Is(err, unix.ENOENT):
			return nil, errdef.Unavailable("set %s: this kernel has no such control file here", l.file)
		case refused(err) && l.invalid != "":
			return nil, errdef.Invalid("%s", l.invalid)
		case refused(err):
			return nil, errdef.Invalid("set %s to %s: %w", l.file, l.value, plain(err))
		default:
			return nil, err
		}
	}
	return warnings, nil
}

// retryAfterNext reports whether b may have to be written before a: a memory limit is bounded by the limit of
// memory and swap (EINVAL, EBUSY), a period by the quota in it.
func retryAfterNext(a, b limit) bool {
	return a.file == "memory.limit_in_bytes" && b.file == "memory.memsw.limit_in_bytes" ||
		a.file == "cpu.cfs_period_us" && b.file == "cpu.cfs_quota_us" ||
		a.file == "cpu.cfs_quota_us" && b.file == "cpu.cfs_burst_us"
}

func refused(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EBUSY) ||
		errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSPC)
}

func unprivileged(err error) bool {
	return (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) && os.Geteuid() != 0
}

// plain strips the path of a control file, which is no news to the person, from an error.
func plain(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// missingAll returns the warnings for everything res asks for when there is no group at all.
func missingAll(l Layout, res *specs.LinuxResources) []string {
	var flags []string
	for _, t := range translations() {
		limits, _, err := t.one(res)
		if err == nil && len(limits) > 0 {
			flags = append(flags, t.v1)
		}
	}
	if len(flags) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Your limits (%s) are discarded: %s.", strings.Join(flags, ", "), l.Reason)}
}

// enableControllers passes every controller of the v2 hierarchy down to the group. A controller that cannot be
// (a process sits in between, cgroups(7) "no internal processes") is missed when a limit needs it.
func (g *Group) enableControllers() error {
	for _, d := range g.dirs {
		if !d.v2 {
			continue
		}
		has, err := get(d.path + "/cgroup.controllers")
		if err != nil {
			return err
		}
		want, err := get(d.top + "/cgroup.controllers")
		if err != nil {
			return err
		}
		if len(lacking(want, has)) == 0 {
			return nil
		}
		dir := d.top
		names := strings.Split(strings.TrimPrefix(g.path, "/"), "/")
		for _, name := range names {
			delegate(dir)
			dir += "/" + name
		}
	}
	return nil
}

// delegate enables for the children of dir all that dir has: in one write, or one by one where some are refused.
func delegate(dir string) {
	want, err := get(dir + "/cgroup.controllers")
	if err != nil {
		return
	}
	has, err := get(dir + "/cgroup.subtree_control")
	if err != nil {
		return
	}
	more := lacking(want, has)
	if len(more) == 0 || put(dir+"/cgroup.subtree_control", "+"+strings.Join(more, " +")) == nil {
		return
	}
	for _, c := range more {
		// What is refused shows as a missing control file when it is needed.
		_ = put(dir+"/cgroup.subtree_control", "+"+c)
	}
}

// lacking returns the words of want that are not in has.
func lacking(want, has string) []string {
	have := strings.Fields(has)
	return slices.DeleteFunc(strings.Fields(want), func(c string) bool { return slices.Contains(have, c) })
}

// planUnified are the raw v2 values. runtime-spec: an error if the controller of a key is not there.
func (g *Group) planUnified(values map[string]string) (plan []planned, err error) {
	if len(values) == 0 {
		return nil, nil
	}
	dir := g.unified()
	if dir == "" {
		return nil, errdef.Unavailable("unified resources need cgroup v2, which is not used here")
	}
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if k == "" || strings.ContainsAny(k, "/\x00") || k == "." || k == ".." {
			return nil, errdef.Invalid("invalid unified resource %q", k)
		}
		p := planned{dir: dir, of: fmt.Sprintf("unified resource %q", k)}
		// The kernel takes one device per write in files that hold a line for each.
		for line := range strings.Lines(values[k]) {
			p.limits = append(p.limits, limit{file: k, value: strings.TrimSuffix(line, "\n")})
		}
		plan = append(plan, p)
	}
	return plan, nil
}
