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
