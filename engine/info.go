package engine

import (
	"context"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Info is what `hull info` tells of this engine and its machine.
type Info struct {
	VersionInfo
	Instance                     string
	Root, Run                    string
	Containers, Running, Stopped int // running ones are not paused
	Paused                       int
	Images                       int
	Hostname, OperatingSystem    string
	CPUs                         int
	Memory                       int64 // bytes
	CgroupVersion                string
	Security                     []string // as in Docker's SecurityOptions
	Warnings                     []string
	Rootless                     bool
}

// Info counts what is in the store and asks the kernel.
func (e *Engine) Info(ctx context.Context) (*Info, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.repairAll(ctx); err != nil {
		return nil, err
	}
	i := &Info{VersionInfo: e.Version(), Instance: e.Instance(), Root: e.root, Run: e.run, CPUs: runtime.NumCPU(), Rootless: os.Geteuid() != 0}
	if err := e.each(func(c *Container) {
		i.Containers++
		switch {
		case c.State.Status == StatusPaused:
			i.Paused++
		case c.Running():
			i.Running++
		default:
			i.Stopped++
		}
	}); err != nil {
		return nil, err
	}
	imgs, err := e.images().List(ctx)
	if err != nil {
		return nil, err
	}
	i.Images = len(imgs)
	i.Hostname, _ = os.Hostname()
	i.OperatingSystem = prettyName()
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		i.Memory = int64(si.Totalram) * int64(si.Unit)
	}
	i.CgroupVersion = "1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		i.CgroupVersion = "2"
	}
	i.Security = confinement()
	if i.Rootless {
		i.Security = append(i.Security, "name=rootless")
	}
	return i, nil
}

// confinement lists what confines containers on this machine, in Docker's words.
func confinement() []string {
	out := []string{"name=seccomp,profile=builtin", "name=userns", "name=cgroupns"}
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && strings.HasPrefix(string(b), "Y") {
		out = append(out, "name=apparmor")
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		out = append(out, "name=selinux")
	}
	return out
}

// prettyName is the distribution's name for itself, from os-release(5).
func prettyName() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "Linux"
}
