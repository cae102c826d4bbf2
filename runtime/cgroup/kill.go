package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// Kill kills every process of the group and of groups below it, also frozen, stopped, traced and forking ones, and
// returns when none is left. At the end of ctx the error is errdef.ErrDeadline and names those that remain and
// their state: a process in uninterruptible sleep (D) cannot be killed by anything.
func (g *Group) Kill(ctx context.Context) error {
	pause := 500 * time.Microsecond
	for {
		empty, err := g.empty()
		if empty || err != nil {
			return err
		}
		if err := g.killAll(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		case <-ctx.Done():
			if empty, err := g.empty(); empty || err != nil {
				return err
			}
			return g.remaining()
		}
	}
}

// killAll sends SIGKILL to what is in the group now, in a way that a fork bomb does not escape from.
func (g *Group) killAll(ctx context.Context) error {
	if dir := g.unified(); dir != "" {
		// Linux 5.14: kills the whole subtree, forks in progress included, frozen or not.
		err := put(dir+"/cgroup.kill", "1")
		if err == nil || gone(err) && !g.Exists() {
			err = g.thawV1() // a process frozen by v1 dies only when thawed
		}
		if err == nil || !gone(err) {
			return err
		}
	}
	// Frozen processes do not fork, and their pids are not used again.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	_ = g.Freeze(short) // best effort: what is not frozen is met in the next round
	cancel()
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		g.killPid(pid)
	}
	// A kill of a process frozen by v1 stays pending until it is thawed.
	return g.Thaw()
}

// killPid kills pid if it is still in the group: the pid may have gone to another process since it was listed.
func (g *Group) killPid(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if member, err := get(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil || !strings.Contains(member, g.path) {
		return
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // ESRCH: dead already
}

// empty reports whether no process is in the group or below it.
func (g *Group) empty() (bool, error) {
	if dir := g.unified(); dir != "" && field(dir+"/cgroup.events", "populated") == 1 {
		return false, nil
	}
	pids, err := g.Pids()
	return len(pids) == 0, err
}

// Pids returns the processes of the group and of groups below it, ascending.
func (g *Group) Pids() ([]int, error) {
	var pids []int
	for _, d := range g.dirs {
		err := walk(d.path, func(dir int) error {
			more, err := readPids(dir, "cgroup.procs")
			if errors.Is(err, unix.EOPNOTSUPP) { // a threaded v2 group; its domain lists its processes
				return nil
			}
			pids = append(pids, more...)
			return err
		}, nil)
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// remaining describes the processes that did not die.
func (g *Group) remaining() error {
	pids, err := g.Pids()
	if err != nil || len(pids) == 0 {
		return err
	}
	const most = 5
	var list []string
	for _, pid := range pids[:min(len(pids), most)] {
		list = append(list, describe(pid))
	}
	if more := len(pids) - most; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return errdef.As(errdef.ErrDeadline, fmt.Errorf("cgroup %s still has %s", g.path, strings.Join(list, ", ")))
}

// describe names a process and what it is doing: "process 12 (cat) in state D (uninterruptible) at __lock_page".
func describe(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	// The name may hold anything, parentheses and spaces too: see proc(5).
	open, shut := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || shut < open || shut+2 >= len(stat) {
		return fmt.Sprintf("process %d", pid)
	}
	s := fmt.Sprintf("process %d (%s) in state %c", pid, strings.Trim(strconv.Quote(string(stat[open+1:shut])), `"`), stat[shut+2])
	if stat[shut+2] == 'D' {
		s += " (uninterruptible)"
	}
	if wchan, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid)); err == nil && len(wchan) > 1 {
		s += " at " + string(wchan)
	}
	return s
}

// Freeze stops every process of the group, and returns when all stand still. They can be killed while frozen.
func (g *Group) Freeze(ctx context.Context) error {
	if dir := g.unified(); dir != "" {
		if err := put(dir+"/cgroup.freeze", "1"); err == nil {
			return g.settle(ctx, func() bool { return field(dir+"/cgroup.events", "frozen") == 1 })
		} else if !gone(err) {
			return err
		}
	}
	dir := g.dir("freezer")
	if dir == "" {
		return errdef.Unavailable("cannot freeze: no freezer cgroup")
	}
	// A process caught in a vfork or a fork can keep the state at FREEZING; asking again helps (freezer-subsystem.txt).
	return g.settle(ctx, func() bool {
		if put(dir+"/freezer.state", "FROZEN") != nil {
			return false
		}
		state, _ := get(dir + "/freezer.state")
		return state == "FROZEN"
	})
}

// settle waits until done, or undoes the freezing at the end of ctx. A group that is removed meanwhile is ErrConflict.
func (g *Group) settle(ctx context.Context, done func() bool) error {
	for pause := 100 * time.Microsecond; !done(); pause = min(2*pause, 20*time.Millisecond) {
		if !g.Exists() {
			return errdef.Conflict("cannot freeze: cgroup %s is gone, its processes have ended", g.path)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if err := g.Thaw(); err != nil {
				return err
			}
			return errdef.As(errdef.ErrDeadline, fmt.Errorf("freeze cgroup %s: %w", g.path, context.Cause(ctx)))
		}
	}
	return nil
}

// Thaw lets the processes of the group run again, whichever way they were frozen.
func (g *Group) Thaw() error {
	if dir := g.unified(); dir != "" {
		if err := put(dir+"/cgroup.freeze", "0"); err != nil && !gone(err) {
			return err
		}
	}
	return g.thawV1()
}

func (g *Group) thawV1() error {
	dir := g.dir("freezer")
	if dir == "" {
		return nil
	}
	if err := put(dir+"/freezer.state", "THAWED"); err != nil && !gone(err) {
		return err
	}
	return nil
}

// Frozen reports whether the group was frozen, by Freeze or by somebody else.
func (g *Group) Frozen() bool {
	if dir := g.unified(); dir != "" {
		if state, err := get(dir + "/cgroup.freeze"); err == nil && state == "1" {
			return true
		}
	}
	if dir := g.dir("freezer"); dir != "" {
		state, err := get(dir + "/freezer.state")
		return err == nil && state != "THAWED"
	}
	return false
}
