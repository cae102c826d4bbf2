package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"hull/errdef"
	"hull/monitor"
	"hull/payload"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

// Start runs the container and returns once its command has been executed. A running one is ErrNotModified. If the
// start fails, a container that removes itself at its end is removed. The warnings say what was clamped or left out.
func (e *Engine) Start(ctx context.Context, name string) (warnings []string, err error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return nil, err
	}
	if warnings, err = e.start(ctx, c); err != nil {
		if c.Host.AutoRemove && !errors.Is(err, errdef.ErrNotModified) {
			_ = e.remove(context.WithoutCancel(ctx), c.ID)
		}
		return nil, err
	}
	return warnings, nil
}

func (e *Engine) start(ctx context.Context, c *Container) (warnings []string, err error) {
	e.head(c.ID) // whoever prepares this start needs the lock: waited for with it, each would wait for the other
	l, err := e.lock(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	e.loadState(c)
	if c.State.Status == StatusPaused {
		return nil, errdef.Conflict("cannot start a paused container, try unpause instead")
	}
	if c.Running() || c.State.Status == StatusRestarting {
		return nil, errdef.NotModified("container %s is already running", c.ID)
	}
	if err := e.begun(c); err != nil {
		return nil, err
	}
	if warnings, err = e.launch(ctx, c, 0); err != nil {
		e.notBegun(c)
	}
	return warnings, err
}

// launch has a monitor run c, which is locked and does not run. With a delay it only sets the monitor to do so.
func (e *Engine) launch(ctx context.Context, c *Container, delay time.Duration) (warnings []string, err error) {
	conn, err := e.monitor(ctx, c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	e.opt.Trace.Step("reach monitor")
	b := e.takeBundle(c)
	ahead := b != nil
	if b == nil {
		b = &bundle{c: c}
		if b.grant, err = e.prepare(ctx, c); err != nil {
			return nil, err
		}
	}
	if c.Host.kept() {
		if err := e.keep(c.ID); err != nil {
			e.giveBack(c.ID, b.grant)
			return nil, err
		}
	}
	if err := e.unpublish(ctx, c.ID); err != nil { // of a run whose end nobody has looked at
		e.giveBack(c.ID, b.grant)
		return nil, err
	}
	// Point of no return: whoever asked may go away now, the start is finished or undone all the same.
	resp, err := conn.Do(context.WithoutCancel(ctx), &monitor.Request{
		Op: monitor.OpStart, Delay: delay, Prepared: ahead, Trace: e.opt.Trace != nil,
	})
	if resp != nil {
		e.opt.Trace.Add(resp.Trace)
	}
	if err != nil {
		e.giveBack(c.ID, b.grant)
		if resp != nil && resp.Port != nil {
			err = e.bindError(c, resp.Port, err)
		}
		return nil, err
	}
	e.opt.Trace.Step("container runs")
	if resp.State == nil {
		return nil, nil
	}
	warnings = resp.State.Warnings
	if p := b.grant.endpoint; p != nil && len(resp.State.Ports) > 0 {
		if err := e.publish(context.WithoutCancel(ctx), p.net, c.ID, p.addr, resp.State.Ports); err != nil {
			warnings = append(warnings, "the published ports are only carried by the container's monitor, which is slower: "+err.Error())
		}
		e.opt.Trace.Step("publish ports")
	}
	return warnings, nil
}

// prepare writes what the monitor reads at a start: the OCI configuration and its own.
func (e *Engine) prepare(ctx context.Context, c *Container) (g *grant, err error) {
	g, shared, err := e.obtain(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.giveBack(c.ID, g)
			g = nil
		}
	}()
	b := &builder{
		e: e, c: c, noCgroups: os.Geteuid() != 0,
		ids: g.ids, endpoint: g.endpoint, shared: shared,
	}
	if err := b.build(e.root, e.dir(c.ID), e.cgroupOf(c)); err != nil {
		return g, err
	}
	m := &monitor.Config{
		ID: c.ID, Name: c.Name, StateDir: e.dir(c.ID),
		Seccomp:   b.seccomp,
		OpenStdin: c.Config.OpenStdin, StdinOnce: c.Config.StdinOnce,
		Volatile: c.Host.AutoRemove || c.step != "",
		Warnings: b.warnings,
	}
	if c.step == "" {
		m.Events, m.Attributes = e.journal.Dir(), c.eventAttributes()
	}
	if !b.noCgroups {
		m.Cgroup = e.cgroupOf(c)
	}
	_, m.Groups = c.Host.groups()
	if m.Foreign, err = e.foreign(c.Host.Runtime); err != nil {
		return g, err
	}
	m.Memory, m.Uses = b.memory, e.uses(c)
	m.Claims = g.claims()
	if shared != nil {
		m.Joins = shared.joins
	}
	if g.endpoint != nil {
		m.Network = new(monitor.Network)
		if m.Network.Link, err = e.link(c, g.endpoint); err != nil {
			return g, err
		}
		m.Warnings = append(m.Warnings, g.endpoint.warnings...)
		if c.publishes() {
			if m.Publish, err = e.publication(c, g.endpoint.net, g.endpoint.addr); err != nil {
				return g, err
			}
		}
	}
	if m.Log, err = e.logFor(ctx, c); err != nil {
		return g, err
	}
	m.OnExit = e.onExit(c)
	if m.Health, err = c.health(); err != nil {
		return nil, err
	}
	if m.Init, err = e.init(c, b.spec); err != nil {
		return nil, err
	}
	if m.Root, err = e.overlay(c); err != nil {
		return g, err
	}
	if err := writeJSON(filepath.Join(e.runDir(c.ID), monitor.SpecFile), b.spec); err != nil {
		return g, err
	}
	if err := writeJSON(filepath.Join(e.runDir(c.ID), monitor.ConfigFile), m); err != nil {
		return g, err
	}
	e.opt.Trace.Step("write bundle")
	return g, nil
}

func writeJSON(path string, v any) error {
	b, err := plainjson.Marshal(v)
	if err != nil {
		return err
	}
	return state.Write(path, b)
}

// maxLower is how many lower directories overlayfs takes.
const maxLower = 500

// overlay names the layers of the container's root and makes its writable one, which takes owner and mode of "/"
// from the image: overlayfs shows those of the upper directory.
func (e *Engine) overlay(c *Container) (*monitor.Overlay, error) {
	rw := filepath.Join(e.dir(c.ID), "rw")
	o := &monitor.Overlay{Upper: filepath.Join(rw, "upper"), Work: filepath.Join(rw, "work")}
	o.Lower = e.RootDirs(c.Layers, c.over)
	if len(o.Lower) < maxLower {
		skeleton, err := e.skeleton()
		if err != nil {
			return nil, err
		}
		o.Lower = append(o.Lower, skeleton)
	}
	var top unix.Stat_t
	if err := unix.Stat(o.Lower[0], &top); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, errors.New("a layer of image "+c.Image+" is missing: load the image again: "+err.Error()))
	}
	if _, err := os.Lstat(o.Work); err == nil { // made last: everything is there
		return o, nil
	}
	for _, d := range []string{rw, o.Upper} {
		if err := os.Mkdir(d, 0o700); err != nil && !os.IsExist(err) {
			return nil, e.storeError(err)
		}
	}
	if err := unix.Chmod(o.Upper, top.Mode&0o7777); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 && (top.Uid != 0 || top.Gid != 0) {
		if err := unix.Chown(o.Upper, int(top.Uid), int(top.Gid)); err != nil {
			return nil, err
		}
	}
	return o, e.storeError(os.Mkdir(o.Work, 0o700))
}

// runtime returns the path of hull-runtime, extracting it into the store when it is not there yet.
func (e *Engine) runtime() (string, error) {
	if e.opt.Runtime != "" {
		return e.opt.Runtime, nil
	}
	digest, err := payload.RuntimeDigest()
	if err != nil {
		return "", err
	}
	path := filepath.Join(e.root, "bin", digest, "hull-runtime")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	data, err := payload.Runtime()
	if err != nil {
		return "", err
	}
	if err := extract(path, data); err != nil {
		return "", e.storeError(err)
	}
	e.opt.Trace.Step("extract runtime")
	return path, nil
}

// extractWait bounds the wait for another command that extracts the same program.
const extractWait = 30 * time.Second

// extract writes a program so that it is there whole or not at all, also after a power cut. Of any number of commands at
// once one does it: processes that execute replaced files share no memory.
func extract(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), extractWait)
	defer cancel()
	l, err := state.Lock(ctx, dir)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if _, err := os.Stat(path); err == nil { // another command was quicker
		return nil
	}
	tmp := filepath.Join(dir, state.TempPrefix+filepath.Base(path)) // that of one that was killed too
	if err = writeProgram(tmp, data); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

func writeProgram(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o755), f.Sync())
}
