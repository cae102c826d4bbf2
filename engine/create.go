package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Create makes a container of cfg and host, and returns its id and what the person should know. Without a name one
// is made up. It is atomic: a killed create leaves nothing, or a whole container. The container survives a power
// cut, unless it removes itself at its end anyway.
//
// soon says that the container will be started right after, which is prepared for meanwhile.
func (e *Engine) Create(ctx context.Context, name string, cfg *Config, host *Host, soon bool) (id string, warnings []string, err error) {
	err = e.roomy(ctx, func() (err error) {
		id, warnings, err = e.create(ctx, name, cfg, host, soon)
		return err
	})
	return id, warnings, err
}

func (e *Engine) create(ctx context.Context, name string, cfg *Config, host *Host, soon bool) (id string, warnings []string, err error) {
	if name = strings.TrimPrefix(name, "/"); name != "" {
		if err := checkName(name); err != nil {
			return "", nil, err
		}
	}
	if err := e.ready(); err != nil {
		return "", nil, err
	}
	conf, err := e.Config()
	if err != nil {
		return "", nil, err
	}
	ahead := newID()
	if soon {
		e.prestart(ahead)
		defer func() {
			if err != nil {
				e.abandon(ahead) // a return has emptied id
			}
		}()
	}
	e.sweep()
	e.opt.Trace.Step("open store")
	lease, img, err := e.imageFor(ctx, cfg.Image, cfg.Platform)
	if err != nil {
		return "", nil, err
	}
	defer lease.Unlock()
	e.images().Used(img.ID)
	e.opt.Trace.Step("resolve image")
	r := &record{ID: ahead, Name: name, Created: time.Now().UTC(), ImageID: img.ID, Config: *cfg, Host: *host}
	for _, l := range img.Layers {
		r.Layers = append(r.Layers, l.ChainID)
	}
	r.Compat32 = e.compat32(img)
	r.settle(conf)
	warning, err := r.Host.networkMode()
	if err != nil {
		return "", nil, err
	}
	if err := checkNetwork(&r.Config, &r.Host); err != nil {
		return "", nil, err
	}
	if err := e.resolveShared(&r.Host); err != nil {
		return "", nil, err
	}
	r.fill(&img.Config.Run)
	r.settleStop(conf)
	if r.Warnings, err = r.check(); err != nil {
		return "", nil, err
	}
	if warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	if cfg.Platform == "" {
		if warning := foreign(&img.Config, cpuFlags); warning != "" {
			r.Warnings = append(r.Warnings, warning)
		}
	}
	if err := e.settleMounts(ctx, r); err != nil {
		return "", nil, err
	}
	if err := e.checkRuntime(&r.Host, r.Mounts); err != nil {
		return "", nil, err
	}
	if err := e.place(ctx, r); err != nil {
		return "", nil, e.storeError(err)
	}
	e.containerEvent(r.container(), "create")
	e.opt.Trace.Step("create container")
	if soon {
		go e.writeAhead(context.WithoutCancel(ctx), r.ID)
	}
	return r.ID, r.Warnings, nil
}

// place writes a checked definition into the store, as limbo.go draws it.
func (e *Engine) place(ctx context.Context, r *record) error {
	l, err := e.enterLimbo(ctx, r.ID)
	if err != nil {
		return err
	}
	defer l.Unlock()
	kept := false
	defer func() {
		if !kept {
			_ = e.dissolve(r.ID, nil)
		}
	}()
	if err := os.Mkdir(e.dir(r.ID), 0o700); err != nil {
		return err
	}
	if err := e.claimAndWrite(r); err != nil {
		return err
	}
	release, err := e.holdVolumes(ctx, r)
	if err != nil {
		return err
	}
	defer release()
	// Not os.Rename, which refuses to replace a directory.
	if err := unix.Rename(e.limbo(r.ID), e.dir(r.ID)); err != nil {
		return fmt.Errorf("put container in place: %w", err)
	}
	kept = true
	if r.Host.AutoRemove || r.Step != "" {
		return nil
	}
	return errors.Join(state.SyncDir(e.containers()), state.SyncDir(e.names()))
}

// claimAndWrite writes the definition with a name that is its own. The definition comes first, so that whoever
// sweeps up after us knows which name to release.
func (e *Engine) claimAndWrite(r *record) error {
	if r.Step != "" { // nobody calls it anything
		return r.write(e.limbo(r.ID))
	}
	given := r.Name != ""
	for attempt := 0; ; attempt++ {
		if !given {
			r.Name = generateName(attempt)
		}
		if err := r.write(e.limbo(r.ID)); err != nil {
			return err
		}
		err := e.claimName(r.Name, r.ID)
		if err == nil || given || attempt == 20 || !errors.Is(err, errdef.ErrConflict) {
			return err
		}
	}
}

// fill takes from the image what the person left open, by Docker's rules.
func (r *record) fill(img *image.Run) {
	c := &r.Config
	if c.User == "" {
		c.User = img.User
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = img.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = img.Entrypoint
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" { // --entrypoint "": none, and not the image's
		c.Entrypoint = nil
	}
	if c.WorkingDir == "" {
		c.WorkingDir = img.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = img.StopSignal
	}
	if c.StopTimeout == nil {
		c.StopTimeout = img.StopTimeout
	}
	if c.Shell == nil {
		c.Shell = img.Shell
	}
	c.Health = c.Health.or(img.Healthcheck)
	// What a person set wins over the image's, and "NAME" alone takes the image's away.
	c.Env = mergeEnv(c.Env, img.Env)
	c.Labels = mergeLabels(img.Labels, c.Labels)
	c.ExposedPorts = mergeKeys(c.ExposedPorts, img.ExposedPorts)
	c.Volumes = mergeKeys(c.Volumes, img.Volumes)
	switch {
	case c.Hostname != "" || r.Host.UTSMode == modeHost:
	case strings.HasPrefix(r.Host.Network, containerPrefix): // that container's, at each start
	case r.Host.Network == modeHost:
		if c.Hostname, _ = os.Hostname(); checkHostname(c.Hostname) != nil { // "(none)" where nobody set one
			c.Hostname = r.ID[:12]
		}
	default:
		c.Hostname = r.ID[:12]
	}
}

// mergeEnv appends to a person's variables those of the image that they do not mention.
func mergeEnv(person, img []string) []string {
	out := slices.Clone(person)
	for _, kv := range img {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(person, func(p string) bool {
			n, _, _ := strings.Cut(p, "=")
			return n == name
		}) {
			out = append(out, kv)
		}
	}
	return slices.DeleteFunc(out, func(kv string) bool { return kv != "" && !strings.Contains(kv, "=") })
}

func mergeLabels(img, person map[string]string) map[string]string {
	if len(img) == 0 {
		return person
	}
	out := make(map[string]string, len(img)+len(person))
	for k, v := range img {
		out[k] = v
	}
	for k, v := range person {
		out[k] = v
	}
	return out
}

func mergeKeys(person []string, img map[string]struct{}) []string {
	out := slices.Clone(person)
	for k := range img {
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
