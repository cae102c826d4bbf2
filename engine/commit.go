package engine

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"hull/errdef"
	"hull/image"
	"hull/monitor"
	"hull/runtime/files"

	"golang.org/x/sys/unix"
)

// CommitOptions are for Commit.
type CommitOptions struct {
	Ref     string // name of the image; "" leaves it without
	Author  string
	Comment string
	Changes []string // Dockerfile instructions: CMD, ENV, USER, ...
	Pause   bool     // let nobody in the container write meanwhile
	Config  *Config  // comes before the container's own; nil for none
}

// Commit makes an image of what the container has written over its own, without what is mounted in it, and returns its
// id. A container that is paused for it goes on whatever happens to us. The warnings say what was done otherwise.
func (e *Engine) Commit(ctx context.Context, name string, o CommitOptions) (id string, warnings []string, err error) {
	err = e.roomy(ctx, func() (err error) {
		id, warnings, err = e.commit(ctx, name, o)
		return err
	})
	return id, warnings, err
}

func (e *Engine) commit(ctx context.Context, name string, o CommitOptions) (id string, warnings []string, err error) {
	c, err := e.use(ctx, name)
	if err != nil {
		return "", nil, err
	}
	base, err := e.images().Resolve(ctx, c.Image)
	if errors.Is(err, errdef.ErrNotFound) {
		return "", nil, errdef.Conflict("the image %s, of which container %s was made, was removed: use hull export and hull import", c.Image, c.Name)
	}
	if err != nil {
		return "", nil, err
	}
	run, err := o.run(c, &base.Config.Run)
	if err != nil {
		return "", nil, err
	}
	var hold io.Closer = io.NopCloser(nil)
	if o.Pause && c.Running() {
		if hold, err = e.freeze(ctx, c); errors.Is(err, errdef.ErrUnavailable) {
			warnings = append(warnings, err.Error()+": the image may have files that were being written")
			hold, err = io.NopCloser(nil), nil
		}
		if errors.Is(err, errdef.ErrConflict) { // it has ended meanwhile
			hold, err = io.NopCloser(nil), nil
		}
		if err != nil {
			return "", nil, err
		}
	}
	defer hold.Close()
	room, err := e.room()
	if err != nil {
		return "", nil, err
	}
	w, err := e.work(ctx, c, &files.Job{Op: files.OpLayer, Room: room}, nil)
	if err != nil {
		return "", nil, err
	}
	defer w.Close()
	id, err = e.images().Derive(ctx, c.Image, &releasing{w, hold}, image.DeriveOptions{
		Ref: o.Ref, Author: o.Author, Comment: o.Comment, Run: *run, By: "commit " + c.Name,
		Command: strings.Join(slices.Concat(c.Config.Entrypoint, c.Config.Cmd), " "),
	})
	if err != nil {
		return "", nil, e.storeError(err)
	}
	e.containerEvent(c, "commit", "comment", o.Comment, "imageID", id, "imageRef", o.Ref)
	return id, warnings, nil
}

// room is how many bytes are free for the store's owner.
func (e *Engine) room() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(e.root, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: e.root, Err: err}
	}
	return max(int64(st.Bavail)*st.Bsize, 1), nil
}

// freeze keeps the processes of c from running until the result is closed, or this process ends.
func (e *Engine) freeze(ctx context.Context, c *Container) (io.Closer, error) {
	conn, err := monitor.Dial(ctx, e.runDir(c.ID))
	if errors.Is(err, monitor.ErrNoMonitor) {
		return nil, notRunning(c.ID)
	}
	if err != nil {
		return nil, err
	}
	if _, err := conn.Do(ctx, &monitor.Request{Op: monitor.OpFreeze}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// releasing closes held at the end of its reader.
type releasing struct {
	io.Reader
	held io.Closer
}

func (r *releasing) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		r.held.Close()
	}
	return n, err
}

// run is how containers of the image will run: as the changes say, what they leave open as the container, and what that
// does not know as its image.
func (o *CommitOptions) run(c *Container, base *image.Run) (*image.Run, error) {
	own := c.Config.run()
	own.OnBuild, own.ArgsEscaped = base.OnBuild, base.ArgsEscaped
	if own.Healthcheck == nil {
		own.Healthcheck = base.Healthcheck
	}
	if len(own.Shell) == 0 {
		own.Shell = base.Shell
	}
	asked := new(image.Run)
	if o.Config != nil {
		asked = o.Config.run()
	}
	if err := asked.Change(o.Changes); err != nil {
		return nil, err
	}
	merge(asked, own)
	return asked, asked.Validate()
}

// run translates to the words of an image.
func (c *Config) run() *image.Run {
	r := &image.Run{
		User: c.User, Env: slices.Clone(c.Env), Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir,
		Labels: maps.Clone(c.Labels), StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, Shell: c.Shell,
	}
	if h := c.Health; h != nil {
		r.Healthcheck = &image.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for _, p := range c.ExposedPorts {
		if r.ExposedPorts == nil {
			r.ExposedPorts = map[string]struct{}{}
		}
		r.ExposedPorts[p] = struct{}{}
	}
	for _, v := range c.Volumes {
		if r.Volumes == nil {
			r.Volumes = map[string]struct{}{}
		}
		r.Volumes[v] = struct{}{}
	}
	return r
}

// merge fills what r leaves open from other, by Docker's rules: lists of names are joined, and a new entrypoint comes
// without the old command.
func merge(r, other *image.Run) {
	if r.User == "" {
		r.User = other.User
	}
	if len(r.Entrypoint) == 0 {
		if len(r.Cmd) == 0 {
			r.Cmd = other.Cmd
		}
		r.Entrypoint = other.Entrypoint
	}
	if r.WorkingDir == "" {
		r.WorkingDir = other.WorkingDir
	}
	if r.StopSignal == "" {
		r.StopSignal = other.StopSignal
	}
	if r.StopTimeout == nil {
		r.StopTimeout = other.StopTimeout
	}
	if r.Healthcheck == nil {
		r.Healthcheck = other.Healthcheck
	}
	if len(r.Shell) == 0 {
		r.Shell = other.Shell
	}
	r.OnBuild = append(slices.Clone(other.OnBuild), r.OnBuild...)
	r.ArgsEscaped = r.ArgsEscaped || other.ArgsEscaped
	for _, have := range other.Env {
		name, _, _ := strings.Cut(have, "=")
		if !slices.ContainsFunc(r.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			r.Env = append(r.Env, have)
		}
	}
	r.Labels = join(r.Labels, other.Labels)
	r.ExposedPorts = join(r.ExposedPorts, other.ExposedPorts)
	r.Volumes = join(r.Volumes, other.Volumes)
}

// join adds to m what only other has.
func join[V any](m, other map[string]V) map[string]V {
	for k, v := range other {
		if _, ok := m[k]; ok {
			continue
		}
		if m == nil {
			m = map[string]V{}
		}
		m[k] = v
	}
	return m
}
