package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"hull/config"
	"hull/errdef"
	"hull/runtime"
)

// ownRuntime reports whether the name is that of the runtime Hull carries. The last is how Docker calls its own.
func ownRuntime(name string) bool {
	return name == "" || name == config.OwnRuntime || name == "io.containerd.runc.v2"
}

// foreign finds the OCI runtime that a container asks for; nil is our own. A name is looked for in the configuration,
// then among the programs that are known to be such runtimes; an absolute path is a program.
func (e *Engine) foreign(name string) (*runtime.Foreign, error) {
	if ownRuntime(name) {
		return nil, nil
	}
	conf, err := e.Config()
	if err != nil {
		return nil, err
	}
	f := &runtime.Foreign{Path: name}
	if r := conf.Runtime(name); r != nil {
		f.Path, f.Args = r.Path, r.Args
	} else if !filepath.IsAbs(name) && !slices.Contains(config.KnownRuntimes[:], name) {
		return nil, unknownRuntime(name)
	}
	if f.Path, err = exec.LookPath(f.Path); err != nil {
		return nil, errdef.Invalid("unknown or invalid runtime name: %s: %w", clip(name), err)
	}
	return f, nil
}

func unknownRuntime(name string) error {
	return errdef.Invalid("unknown or invalid runtime name: %s (hull info lists those there are)", clip(name))
}

// Runtimes are the OCI runtimes that containers may ask for without any being configured, by name: where each is, ""
// for our own.
func (e *Engine) Runtimes() map[string]string {
	paths := map[string]string{config.OwnRuntime: ""}
	for _, n := range config.KnownRuntimes {
		if path, err := exec.LookPath(n); err == nil {
			paths[n] = path
		}
	}
	return paths
}

// checkRuntime refuses a runtime that is not there, and with one what only our own does.
func (e *Engine) checkRuntime(h *Host, mounts []MountPoint) error {
	f, err := e.foreign(h.Runtime)
	if err != nil || f == nil {
		return err
	}
	switch {
	case os.Geteuid() != 0:
		return errdef.Forbidden("only root can run containers with another runtime than Hull's own (--runtime %s)", clip(h.Runtime))
	case Obstacle(f.Path) != "":
		return errdef.Unavailable("%s", Obstacle(f.Path))
	case h.Init:
		return errdef.Invalid("--init needs Hull's own runtime, not --runtime %s", clip(h.Runtime))
	}
	for _, mode := range []string{h.Network, h.PidMode, h.IPCMode} {
		if strings.HasPrefix(mode, "container:") {
			return errdef.Invalid("namespaces of other containers need Hull's own runtime, not --runtime %s", clip(h.Runtime))
		}
	}
	for _, m := range mounts {
		if m.Subpath != "" || m.Type == mountImage {
			return errdef.Invalid("mount %s: images and parts of volumes need Hull's own runtime, not --runtime %s", clip(m.Target), clip(h.Runtime))
		}
	}
	return nil
}
