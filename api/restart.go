package api

import (
	"hull/engine"

	"github.com/moby/moby/api/types/container"
)

// restartFrom keeps "no" as the empty name.
func restartFrom(p container.RestartPolicy) engine.RestartPolicy {
	return engine.RestartPolicy{Name: string(p.Name), Retries: p.MaximumRetryCount}
}

// wireRestart is the inverse of restartFrom.
func wireRestart(p engine.RestartPolicy) container.RestartPolicy {
	if p.Name == "" {
		return container.RestartPolicy{Name: container.RestartPolicyDisabled}
	}
	return container.RestartPolicy{Name: container.RestartPolicyMode(p.Name), MaximumRetryCount: p.Retries}
}
