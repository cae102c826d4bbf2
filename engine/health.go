package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/image"
	"hull/monitor"
)

// Health is a test of whether the container works, run in it from time to time by its monitor. Zero durations and
// retries are Docker's defaults: every 30 s, for at most 30 s, unhealthy after 3 failures.
type Health struct {
	Test          []string      `json:"test"` // {"NONE"}, {"CMD", args...} or {"CMD-SHELL", line}
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`   // in which failures do not count
	StartInterval time.Duration `json:"startInterval,omitempty"` // of tests in it, until one succeeds
	Retries       int           `json:"retries,omitempty"`
}

// HealthStarting is the status before the first verdict.
const HealthStarting = monitor.HealthStarting

// Docker's defaults.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
)

// minProbe is the shortest of the durations: below it lies nothing but load.
const minProbe = time.Millisecond

// or is what a person said, and what the image says where the person left it open.
func (h *Health) or(img *image.Healthcheck) *Health {
	if img == nil {
		if h != nil && len(h.Test) == 0 {
			return nil // settings of a test that is not there
		}
		return h
	}
	if h == nil {
		h = new(Health)
	}
	out := *h
	if len(out.Test) == 0 {
		out.Test = img.Test
	}
	for _, d := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&out.Interval, img.Interval}, {&out.Timeout, img.Timeout}, {&out.StartPeriod, img.StartPeriod}, {&out.StartInterval, img.StartInterval}} {
		if *d.to == 0 {
			*d.to = d.from
		}
	}
	if out.Retries == 0 {
		out.Retries = img.Retries
	}
	if len(out.Test) == 0 || out.Test[0] == "" {
		return nil
	}
	return &out
}

// tests reports whether there is anything to run.
func (h *Health) tests() bool { return h != nil && len(h.Test) > 1 }

func checkHealth(h *Health) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < minProbe {
			return errdef.Invalid("%s in Healthcheck cannot be less than %s", d.name, minProbe)
		}
	}
	if h.Retries < 0 {
		return errdef.Invalid("Retries in Healthcheck cannot be negative")
	}
	if slices.ContainsFunc(h.Test, func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return errdef.Invalid("invalid health check: an argument has a NUL byte")
	}
	switch {
	case len(h.Test) == 0 || h.Test[0] == "NONE":
		return nil
	case h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL":
		return errdef.Invalid("Unknown healthcheck type '%s' (expected 'CMD', 'CMD-SHELL' or 'NONE')", clip(h.Test[0]))
	case len(h.Test) == 1:
		return errdef.Invalid("invalid health check: %s needs a command", h.Test[0])
	}
	return nil
}

// command is what a probe executes.
func (h *Health) command(shell []string) []string {
	if h.Test[0] == "CMD" {
		return h.Test[1:]
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return slices.Concat(shell, h.Test[1:])
}

// unhealthyKey is the annotation that says what happens when the container becomes unhealthy. Docker's API has no field
// for it, so with an annotation every client can ask for it.
const unhealthyKey = "hull.on-unhealthy"

// What is done then, beside nothing.
const (
	unhealthyRestart = "restart" // stop it, and start it again whatever its restart policy
	unhealthyStop    = "stop"    // stop it, as a person would
	unhealthyKill    = "kill"    // SIGKILL; the restart policy decides what follows
)

// onUnhealthy is "" for nothing.
func (h *Host) onUnhealthy() string {
	if a := h.Annotations[unhealthyKey]; a != "none" {
		return a
	}
	return ""
}

func checkUnhealthy(h *Host) error {
	a := h.onUnhealthy()
	switch a {
	case "", unhealthyRestart, unhealthyStop, unhealthyKill:
	default:
		return errdef.Invalid("invalid annotation %s: '%s': must be one of 'none', 'restart', 'stop' or 'kill'", unhealthyKey, clip(a))
	}
	if a == unhealthyRestart && h.AutoRemove {
		return errdef.Invalid("conflicting options: a container that removes itself (--rm) cannot be restarted when it becomes unhealthy")
	}
	return nil
}

// health is what the monitor of c tests; nil for nothing.
func (c *Container) health() (*monitor.HealthConfig, error) {
	h := c.Config.Health
	if !h.tests() {
		return nil, nil
	}
	out := &monitor.HealthConfig{
		Args: h.command(c.Config.Shell), StartPeriod: h.StartPeriod,
		Interval: cmp.Or(h.Interval, probeInterval), Timeout: cmp.Or(h.Timeout, probeTimeout),
		StartInterval: cmp.Or(h.StartInterval, probeStartInterval), Retries: cmp.Or(h.Retries, probeRetries),
	}
	switch c.Host.onUnhealthy() {
	case unhealthyKill:
		out.Then = monitor.HealthKill
	case unhealthyStop, unhealthyRestart:
		out.Then = monitor.HealthStop
	}
	var err error
	out.StopSignal, out.StopTimeout, err = stopWith(&c.Config, StopOptions{})
	return out, err
}

// loadHealth fills in what the probes of c found in its life, which runs or was the last.
func (e *Engine) loadHealth(c *Container) {
	if !c.Config.Health.tests() {
		return
	}
	if c.Running() {
		if c.State.Health = monitor.ReadHealth(e.runDir(c.ID)); c.State.Health == nil {
			c.State.Health = &monitor.Health{Status: monitor.HealthStarting} // just started
		}
		return
	}
	c.State.Health = monitor.ReadHealth(e.dir(c.ID))
}

// healthStatus is the word of the filter: "none" when nothing is tested.
func (s *State) healthStatus() string {
	if s.Health == nil {
		return "none"
	}
	return s.Health.Status
}
