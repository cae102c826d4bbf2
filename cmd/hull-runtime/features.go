package main

import (
	"hull/runtime/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimespec "github.com/opencontainers/runtime-spec/specs-go/features"
)

// features prints what this runtime can do, whatever this host can.
func features(c *command) error {
	if _, err := c.parse(c.flags(), 0, 0); err != nil {
		return err
	}
	yes, no := true, false
	return printJSON(&runtimespec.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         hookNames(),
		Linux: &runtimespec.Linux{
			Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Cgroup:          &runtimespec.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &yes},
			Seccomp:         &runtimespec.Seccomp{Enabled: &yes},
			Apparmor:        &runtimespec.Apparmor{Enabled: &yes},
			Selinux:         &runtimespec.Selinux{Enabled: &yes},
			IntelRdt:        &runtimespec.IntelRdt{Enabled: &no},
			MountExtensions: &runtimespec.MountExtensions{IDMap: &runtimespec.IDMap{Enabled: &yes}},
			NetDevices:      &runtimespec.NetDevices{Enabled: &no},
		},
		Annotations: map[string]string{
			"io.hull.runtime.version": version,
			"io.hull.cgroup.layout":   cgroup.Detect().String(),
		},
	})
}
