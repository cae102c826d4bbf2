package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"hull/builds"
	"hull/errdef"
	"hull/image"
	"hull/monitor"
	"hull/runtime/files"
)

// Step is one command of a build. It runs in a container like any other, with the same isolation, but one that only the build
// knows of: no list shows it, nobody hears of it, and it ends with whoever runs it.
type Step struct {
	Build    *builds.Build
	Layers   []string // chain ids of the image's layers, lowest first
	Over     []string // directories above them, lowest first, absolute
	Config   Config   // Entrypoint and Cmd are what runs; nothing is taken from an image
	Host     Host
	Mounts   []MountPoint                    // beside those that Host asks for
	Compat32 bool                            // the image has 32-bit programs
	Output   func(fd int, p []byte) error    // is told what the command says; nil: nobody
	Started  func(ctx context.Context) error // is called when the command runs; nil: nothing
}

// Ran is a step that has ended. Close it.
type Ran struct {
	Exit
	OOMKilled bool
	Warnings  []string

	e *Engine
	c *Container
}

// Upper is the directory that has what the command wrote, in overlayfs' form. It may be moved away.
func (r *Ran) Upper() string { return filepath.Join(r.e.dir(r.c.ID), "rw", "upper") }

// Close removes what is left of the step.
func (r *Ran) Close() error {
	err := r.e.remove(context.Background(), r.c.ID)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil
	}
	return err
}

// RunStep runs the command of s and waits for its end. When ctx ends, or this process does, the command is killed.
func (e *Engine) RunStep(ctx context.Context, s *Step) (_ *Ran, err error) {
	c, err := e.createStep(ctx, s)
	if err != nil {
		return nil, err
	}
	ran := &Ran{e: e, c: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, ran.Close())
		}
	}()
	if err := e.runStep(ctx, s, ran); err != nil {
		return nil, err
	}
	return ran, nil
}

func (e *Engine) createStep(ctx context.Context, s *Step) (_ *Container, err error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	conf, err := e.Config()
	if err != nil {
		return nil, err
	}
	r := &record{
		ID: newID(), Created: time.Now().UTC(), Layers: s.Layers, Over: s.Over, Config: s.Config, Host: s.Host,
		Compat32: s.Compat32, Step: s.Build.Dir(),
	}
	e.prestart(r.ID)
	defer func() {
		if err != nil {
			e.abandon(r.ID)
		}
	}()
	r.Host.Log = Log{Driver: monitor.LogNone}
	r.settle(conf)
	r.Host.Restart = RestartPolicy{}
	warning, err := r.Host.networkMode()
	if err != nil {
		return nil, err
	}
	if r.Config.Hostname == "" && r.Host.UTSMode != modeHost {
		r.Config.Hostname = "buildkitsandbox" // what scripts in Dockerfiles have seen since there is BuildKit
	}
	if err := checkNetwork(&r.Config, &r.Host); err != nil {
		return nil, err
	}
	if r.Warnings, err = r.check(); err != nil {
		return nil, err
	}
	if warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	if err := e.settleMounts(ctx, r); err != nil {
		return nil, err
	}
	r.Mounts = append(r.Mounts, s.Mounts...)
	if err := checkCount(len(r.Mounts)); err != nil {
		return nil, err
	}
	if err := e.checkRuntime(&r.Host, r.Mounts); err != nil {
		return nil, err
	}
	if err := e.place(ctx, r); err != nil {
		return nil, e.storeError(err)
	}
	go e.writeAhead(context.WithoutCancel(ctx), r.ID)
	return r.container(), nil
}

// runStep attaches, holds the tether, and only then starts.
func (e *Engine) runStep(ctx context.Context, s *Step, ran *Ran) error {
	c := ran.c
	out, err := e.attachStep(ctx, c)
	if err != nil {
		return err
	}
	defer out.Close()
	tether, err := e.monitor(ctx, c)
	if err != nil {
		return err
	}
	defer tether.Close()
	type end struct {
		resp *monitor.Response
		err  error
	}
	ended := make(chan end, 1)
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		resp, err := tether.Do(waiting, &monitor.Request{Op: monitor.OpWait, Tether: true})
		ended <- end{resp, err}
	}()
	if ran.Warnings, err = e.start(ctx, c); err != nil {
		return err
	}
	if s.Started != nil {
		if err := s.Started(ctx); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { out.Close() })
	defer stop()
	said := out.Frames(func(fd int, p []byte) error {
		if s.Output == nil {
			return nil
		}
		return s.Output(fd, p)
	})
	if ctx.Err() != nil {
		return e.endStep(ctx, c)
	}
	if said != nil {
		return said
	}
	last := <-ended
	if errors.Is(last.err, monitor.ErrNoMonitor) {
		exit, err := e.exitOnDisk(ctx, c, false)
		ran.Exit = exit
		return err
	}
	if last.err != nil {
		if ctx.Err() != nil {
			return e.endStep(ctx, c)
		}
		return last.err
	}
	ran.Exit, ran.OOMKilled = Exit{last.resp.State.ExitCode, last.resp.State.Error}, last.resp.State.OOMKilled
	return nil
}

// endStep kills the command of a step that nobody wants any more.
func (e *Engine) endStep(ctx context.Context, c *Container) error {
	now, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait+time.Second)
	defer cancel()
	if err := e.killNow(now, c); err != nil && !errors.Is(err, errdef.ErrConflict) {
		return errors.Join(context.Cause(ctx), err)
	}
	return context.Cause(ctx)
}

func (e *Engine) attachStep(ctx context.Context, c *Container) (*monitor.Stream, error) {
	conn, err := e.monitor(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Do(ctx, &monitor.Request{Op: monitor.OpAttach, Stdout: true, Stderr: true}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn.Stream(), nil
}

// stepForsaken says of the container of a step that its build is gone.
func (e *Engine) stepForsaken(c *Container) bool { return builds.Dead(c.step) }

// Ready makes the store, or says why it cannot be used. Whoever writes to it beside the methods of Engine asks first.
func (e *Engine) Ready() error { return e.ready() }

// Builds are what builds of this store left behind.
func (e *Engine) Builds() *builds.Store { return builds.Open(e.root) }

// Images are the images of this store, for whoever combines nouns: package build.
func (e *Engine) Images() *image.Store { return e.images() }

// HasLayers says whether the layers are here.
func (e *Engine) HasLayers(chains []string) bool {
	for _, c := range chains {
		if _, err := os.Lstat(e.layerDir(c)); err != nil {
			return false
		}
	}
	return true
}

// LayerTar returns what the directory upper, in overlayfs' form, changes of those below it, topmost first, as the plain tar of
// an image's layer. Close it.
func (e *Engine) LayerTar(ctx context.Context, upper string, lower []string) (io.ReadCloser, error) {
	room, err := e.room()
	if err != nil {
		return nil, err
	}
	skeleton, err := e.skeleton()
	if err != nil {
		return nil, err
	}
	job := &files.Job{Op: files.OpLayer, Upper: upper, Lower: append(lower, skeleton), Room: room}
	return e.workApart(ctx, job)
}

// RootDirs are the directories of a file system, topmost first: overlayfs' lower ones.
func (e *Engine) RootDirs(layers, over []string) []string {
	var out []string
	for i := len(over) - 1; i >= 0; i-- {
		out = append(out, over[i])
	}
	for i := len(layers) - 1; i >= 0; i-- {
		out = append(out, e.layerDir(layers[i]))
	}
	return out
}
