package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"hull/errdef"
	"hull/runtime/cgroup"
	"hull/state"
	"hull/state/plainjson"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// updatingFile is in the run directory of a container while its limits change. Whoever finds it there with the
// container's lock free writes that back, and then the limits that are on disk.
//
//	lock · write updatingFile · kernel · disk · remove updatingFile · unlock
//
// It holds what the control files held before.
const updatingFile = "updating"

// Update changes limits of a container, of which a zero field stays as it is, and its restart policy unless policy is nil.
// A running one has the new limits at once. Disk and kernel agree at the end: if either refuses anything, all is as before.
func (e *Engine) Update(ctx context.Context, name string, change *Resources, policy *RestartPolicy) (warnings []string, err error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			e.containerEvent(c, "update")
		}
	}()
	refused := func(err error) error {
		if err == nil {
			return nil
		}
		return errdef.As(errdef.Kind(err), fmt.Errorf("Cannot update container %s: %w", c.ID, err))
	}
	l, err := e.lock(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	r, err := e.readRecord(e.dir(c.ID))
	if err != nil {
		return nil, refused(err)
	}
	was := *r
	if err := r.Host.Resources.merge(change); err != nil {
		return nil, refused(err)
	}
	if policy != nil {
		if err := r.setRestart(*policy); err != nil {
			return nil, err // in Docker's words
		}
	}
	// Point of no return: a client that goes away does not leave half of it.
	ctx = context.WithoutCancel(ctx)
	if e.loadState(c); !c.Running() {
		return nil, refused(e.redefine(ctx, c, r, &was))
	}
	res, warnings := e.limitsOf(r.container())
	if res == nil { // an ordinary user's: kept for a start with a cgroup
		return warnings, refused(e.redefine(ctx, c, r, &was))
	}
	g, err := e.group(c)
	if err != nil {
		return nil, refused(err)
	}
	old, err := g.Before(res)
	if err != nil {
		return nil, refused(err)
	}
	mark := filepath.Join(e.runDir(c.ID), updatingFile)
	if err := writeJSON(mark, old); err != nil {
		return nil, refused(err)
	}
	notes, err := g.Set(res)
	if err != nil && g.Exists() {
		return nil, refused(errors.Join(err, os.Remove(mark)))
	} // else it has just ended
	if err := e.redefine(ctx, c, r, &was); err != nil {
		return nil, refused(errors.Join(err, old.Restore(), os.Remove(mark)))
	}
	if err := os.Remove(mark); err != nil && !isMissing(err) {
		return nil, refused(err)
	}
	return append(warnings, notes...), nil
}

// redefine puts r in the place of the definition was of c, which is locked, and makes its restart policy the one that
// counts. On failure the old one is back.
func (e *Engine) redefine(ctx context.Context, c *Container, r, was *record) error {
	c.Host = r.Host
	if r.Host.Restart == was.Host.Restart {
		return r.replace(was, e.dir(c.ID))
	}
	undo, err := e.beforePolicy(ctx, c, was.Host.kept())
	if err != nil {
		return err
	}
	if err := r.replace(was, e.dir(c.ID)); err != nil {
		return errors.Join(err, undo())
	}
	if err := e.afterPolicy(ctx, c); err != nil {
		return errors.Join(err, undo(), was.write(e.dir(c.ID)))
	}
	return nil
}

// replace is write, of a definition that is was again if it fails: what could not be synced is in its place already.
func (r *record) replace(was *record, dir string) error {
	err := r.write(dir)
	if err == nil {
		return nil
	}
	b, undo := plainjson.Marshal(was)
	if undo == nil {
		undo = state.Write(filepath.Join(dir, recordFile), b)
	}
	return errors.Join(err, undo)
}

// limitsOf translates the limits of c; nil when this user has no cgroups.
func (e *Engine) limitsOf(c *Container) (*specs.LinuxResources, []string) {
	b := &builder{c: c, noCgroups: os.Geteuid() != 0, spec: &specs.Spec{Linux: &specs.Linux{Resources: new(specs.LinuxResources)}}}
	b.limits(e.cgroupOf(c))
	return b.spec.Linux.Resources, b.warnings
}

// finishUpdate brings the kernel to what is on disk when an update of c was killed half-way. One that goes on holds the
// lock, and perhaps for long: it asks the monitor.
func (e *Engine) finishUpdate(c *Container) error {
	mark := filepath.Join(e.runDir(c.ID), updatingFile)
	if _, err := os.Lstat(mark); err != nil {
		return nil
	}
	l, free, err := state.TryLock(e.dir(c.ID))
	if err != nil || !free {
		return err
	}
	defer l.Unlock()
	b, err := state.Read(mark, maxRecord)
	if isMissing(err) {
		return nil // finished
	}
	if err != nil {
		return err
	}
	var old cgroup.Former
	if err := plainjson.Unmarshal(b, &old); err != nil {
		return errdef.As(errdef.ErrCorrupt, fmt.Errorf("%s: %w", mark, err))
	}
	r, err := e.readRecord(e.dir(c.ID))
	if err != nil {
		return err
	}
	c.Host = r.Host
	res, _ := e.limitsOf(c)
	g, err := e.group(c)
	if err == nil && g.Exists() {
		if err = old.Restore(); err == nil { // what is on disk need not mention all that was changed
			_, err = g.Set(res)
		}
	}
	if err != nil {
		return fmt.Errorf("finish the update of container %s: %w", c.ID, err)
	}
	return os.Remove(mark)
}

// merge changes what change has. The refusals are Docker's.
func (r *Resources) merge(change *Resources) error {
	switch {
	case change.NanoCPUs > 0 && r.CPUPeriod > 0:
		return errdef.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
	case change.NanoCPUs > 0 && r.CPUQuota > 0:
		return errdef.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
	case change.CPUPeriod > 0 && r.NanoCPUs > 0:
		return errdef.Conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
	case change.CPUQuota > 0 && r.NanoCPUs > 0:
		return errdef.Conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
	case r.MemorySwap > 0 && change.Memory > r.MemorySwap && change.MemorySwap == 0:
		return errdef.Conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	replace(&r.Memory, change.Memory)
	replace(&r.MemorySwap, change.MemorySwap)
	replace(&r.MemoryReservation, change.MemoryReservation)
	replace(&r.MemorySwappiness, change.MemorySwappiness)
	replace(&r.NanoCPUs, change.NanoCPUs)
	replace(&r.CPUShares, change.CPUShares)
	replace(&r.CPUPeriod, change.CPUPeriod)
	replace(&r.CPUQuota, change.CPUQuota)
	replace(&r.CPURTPeriod, change.CPURTPeriod)
	replace(&r.CPURTRuntime, change.CPURTRuntime)
	replace(&r.CpusetCpus, change.CpusetCpus)
	replace(&r.CpusetMems, change.CpusetMems)
	replace(&r.PidsLimit, change.PidsLimit)
	replace(&r.BlkioWeight, change.BlkioWeight)
	for _, d := range change.BlkioWeightDevices {
		r.BlkioWeightDevices = put(r.BlkioWeightDevices, d, func(x WeightDevice) bool { return x.Path == d.Path })
	}
	mergeThrottles(&r.BlkioReadBps, change.BlkioReadBps)
	mergeThrottles(&r.BlkioWriteBps, change.BlkioWriteBps)
	mergeThrottles(&r.BlkioReadIOPS, change.BlkioReadIOPS)
	mergeThrottles(&r.BlkioWriteIOPS, change.BlkioWriteIOPS)
	return checkResources(r)
}

func replace[T comparable](to *T, v T) {
	var zero T
	if v != zero {
		*to = v
	}
}

// mergeThrottles replaces the rates of devices that have one and adds the others; the rate 0 lifts the limit.
func mergeThrottles(to *[]ThrottleDevice, change []ThrottleDevice) {
	for _, d := range change {
		*to = put(*to, d, func(x ThrottleDevice) bool { return x.Path == d.Path })
	}
}

// put replaces the element that same holds for, or appends v.
func put[T any](list []T, v T, same func(T) bool) []T {
	list = slices.Clone(list)
	if i := slices.IndexFunc(list, same); i >= 0 {
		list[i] = v
		return list
	}
	return append(list, v)
}
