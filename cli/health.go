package cli

import (
	"time"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// unhealthyKey is the annotation that carries --on-unhealthy, for which Docker's API has no field. So Docker's own
// client can ask for it too.
const unhealthyKey = "hull.on-unhealthy"

// healthFlags are those of run and create that say how a container is tested.
type healthFlags struct {
	flags *pflag.FlagSet

	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	off                                           bool
	unhealthy                                     string
}

func (h *healthFlags) add(f *pflag.FlagSet) {
	h.flags = f
	f.StringVar(&h.command, "health-cmd", "", "Command in the container that tells whether it works")
	f.DurationVar(&h.interval, "health-interval", 0, "Time between two tests (default 30s)")
	f.DurationVar(&h.timeout, "health-timeout", 0, "Longest time a test may take (default 30s)")
	f.IntVar(&h.retries, "health-retries", 0, "Failures in a row that make it unhealthy (default 3)")
	f.DurationVar(&h.startPeriod, "health-start-period", 0, "Time after the start in which failures do not count")
	f.DurationVar(&h.startInterval, "health-start-interval", 0, "Time between two tests in the start period (default 5s)")
	f.BoolVar(&h.off, "no-healthcheck", false, "Disable the health check of the image")
	f.StringVar(&h.unhealthy, "on-unhealthy", "none", "What happens when it becomes unhealthy: none, restart, stop or kill")
}

// check is the health check the flags ask for; nil leaves that of the image.
func (h *healthFlags) check() (*container.HealthConfig, error) {
	some := false
	for _, name := range []string{"health-cmd", "health-interval", "health-timeout", "health-retries", "health-start-period", "health-start-interval"} {
		some = some || h.flags.Changed(name)
	}
	switch {
	case h.off && some:
		return nil, errdef.Invalid("--no-healthcheck conflicts with --health-* options")
	case h.off:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !some:
		return nil, nil
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"interval", h.interval}, {"timeout", h.timeout}, {"start-period", h.startPeriod}, {"start-interval", h.startInterval}} {
		if d.value < 0 {
			return nil, errdef.Invalid("--health-%s cannot be negative", d.flag)
		}
	}
	if h.retries < 0 {
		return nil, errdef.Invalid("--health-retries cannot be negative")
	}
	c := &container.HealthConfig{
		Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.startInterval, Retries: h.retries,
	}
	if h.command != "" {
		c.Test = []string{"CMD-SHELL", h.command}
	}
	return c, nil
}

// act adds --on-unhealthy to what the engine is asked for.
func (h *healthFlags) act(host *container.HostConfig) error {
	if !h.flags.Changed("on-unhealthy") {
		return nil
	}
	switch h.unhealthy {
	case "none", "restart", "stop", "kill":
	default:
		return errdef.Invalid("invalid --on-unhealthy: '%s': must be one of \"none\", \"restart\", \"stop\" or \"kill\"", h.unhealthy)
	}
	if host.Annotations == nil {
		host.Annotations = map[string]string{}
	}
	host.Annotations[unhealthyKey] = h.unhealthy
	return nil
}
