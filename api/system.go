package api

import (
	"net/http"
	"runtime"
	"time"

	"hull/engine"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

// ping says that somebody is there and which API it speaks, in the headers every answer has.
func (s *server) ping(q *request) error {
	h := q.w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Swarm", "inactive")
	if q.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, _ = q.w.Write([]byte("OK"))
	return nil
}

func (s *server) version(q *request) error {
	v := s.engine.Version()
	return q.answer(http.StatusOK, system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Hull"},
		Version:       v.Version,
		APIVersion:    Version,
		MinAPIVersion: MinVersion,
		Os:            v.OS,
		Arch:          v.Arch,
		GitCommit:     v.Commit,
		GoVersion:     v.Go,
		KernelVersion: v.Kernel,
		Components: []system.ComponentVersion{{
			Name:    "Engine",
			Version: v.Version,
			Details: map[string]string{
				"ApiVersion":    Version,
				"MinAPIVersion": MinVersion,
				"Arch":          v.Arch,
				"GitCommit":     v.Commit,
				"GoVersion":     v.Go,
				"KernelVersion": v.Kernel,
				"Os":            v.OS,
			},
		}},
	})
}

// info is GET /info.
func (s *server) info(q *request) error {
	i, err := s.engine.Info(q.Context())
	if err != nil {
		return err
	}
	limits := !i.Rootless
	out := system.Info{
		ID: i.Instance, Containers: i.Containers, ContainersRunning: i.Running, ContainersPaused: i.Paused, ContainersStopped: i.Stopped, Images: i.Images,
		Driver: driver, DriverStatus: [][2]string{{"Backing layers", "id-mapped at mount time"}},
		Plugins:     system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "none"}, Log: []string{"journald", "json-file", "local", "none", "syslog"}},
		MemoryLimit: limits, SwapLimit: limits, CPUCfsPeriod: limits, CPUCfsQuota: limits, CPUShares: limits, CPUSet: limits, PidsLimit: limits,
		NGoroutines: runtime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: "json-file", CgroupDriver: "cgroupfs", CgroupVersion: i.CgroupVersion,
		KernelVersion: i.Kernel, OperatingSystem: i.OperatingSystem, OSType: i.OS, Architecture: machine(i.Arch),
		NCPU: i.CPUs, MemTotal: i.Memory, DockerRootDir: i.Root, Name: i.Hostname, Labels: []string{}, ServerVersion: i.Version,
		Runtimes: map[string]system.RuntimeWithStatus{}, DefaultRuntime: "hull",
		SecurityOptions: i.Security, Warnings: i.Warnings,
		Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
	}
	if i.Rootless {
		out.Plugins.Network = []string{"host", "none"}
	}
	for name, path := range s.engine.Runtimes() {
		out.Runtimes[name] = runtimeStatus(path, nil)
	}
	s.settledInfo(&out)
	return q.answer(http.StatusOK, out)
}

// unusable is the key of a runtime's status that says why it makes no containers on this machine.
const unusable = "hull.unusable"

// runtimeStatus describes the OCI runtime at path, "" for Hull's own.
func runtimeStatus(path string, args []string) system.RuntimeWithStatus {
	out := system.RuntimeWithStatus{Runtime: system.Runtime{Path: path, Args: args}}
	if why := engine.Obstacle(path); why != "" {
		out.Status = map[string]string{unusable: why}
	}
	return out
}

// machine is uname's word for an architecture, which is what Docker shows here.
func machine(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return arch
}
