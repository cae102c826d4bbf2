package api

import (
	"hull/engine"

	"github.com/moby/moby/api/types/container"
)

func healthFrom(h *container.HealthConfig) *engine.Health {
	if h == nil {
		return nil
	}
	return &engine.Health{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
	}
}

// wireHealthcheck is the inverse of healthFrom.
func wireHealthcheck(h *engine.Health) *container.HealthConfig {
	if h == nil {
		return nil
	}
	return &container.HealthConfig{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
	}
}

// healthWord is what the STATUS column says of it.
func healthWord(s *engine.State) string {
	switch {
	case s.Health == nil:
		return ""
	case s.Health.Status == engine.HealthStarting:
		return " (health: starting)"
	}
	return " (" + s.Health.Status + ")"
}

func wireHealth(s *engine.State) *container.Health {
	h := s.Health
	if h == nil {
		return nil
	}
	out := &container.Health{Status: container.HealthStatus(h.Status), FailingStreak: h.FailingStreak, Log: []*container.HealthcheckResult{}}
	for _, p := range h.Log {
		out.Log = append(out.Log, &container.HealthcheckResult{Start: p.Start, End: p.End, ExitCode: p.ExitCode, Output: p.Output})
	}
	return out
}

func healthSummary(s *engine.State) *container.HealthSummary {
	if s.Health == nil {
		return &container.HealthSummary{Status: container.NoHealthcheck}
	}
	return &container.HealthSummary{Status: container.HealthStatus(s.Health.Status), FailingStreak: s.Health.FailingStreak}
}
