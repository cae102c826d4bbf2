package api

import (
	"cmp"
	"net/netip"
	"os"
	"slices"
	"strings"

	"hull/engine"
	"hull/errdef"
	"hull/state/plainjson"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// This file translates what Docker calls Config and HostConfig, both ways.

// configFrom keeps of the wire's Config what Hull has.
func configFrom(c *container.Config) *engine.Config {
	out := &engine.Config{
		Image: c.Image, Hostname: c.Hostname, Domainname: c.Domainname, User: c.User,
		Tty: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce,
		AttachStdin: c.AttachStdin, AttachStdout: c.AttachStdout, AttachStderr: c.AttachStderr,
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, Labels: c.Labels,
		StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, Shell: c.Shell, Health: healthFrom(c.Healthcheck),
	}
	for p := range c.ExposedPorts {
		out.ExposedPorts = append(out.ExposedPorts, p.String())
	}
	slices.Sort(out.ExposedPorts)
	for v := range c.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	slices.Sort(out.Volumes)
	return out
}

// wireConfig is the inverse of configFrom.
func wireConfig(c *engine.Config) *container.Config {
	out := &container.Config{
		Image: c.Image, Hostname: c.Hostname, Domainname: c.Domainname, User: c.User,
		Tty: c.Tty, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce,
		AttachStdin: c.AttachStdin, AttachStdout: c.AttachStdout, AttachStderr: c.AttachStderr,
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, Labels: c.Labels,
		StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, Shell: c.Shell, Healthcheck: wireHealthcheck(c.Health),
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	for _, p := range c.ExposedPorts {
		if port, err := network.ParsePort(p); err == nil {
			if out.ExposedPorts == nil {
				out.ExposedPorts = network.PortSet{}
			}
			out.ExposedPorts[port] = struct{}{}
		}
	}
	for _, v := range c.Volumes {
		if out.Volumes == nil {
			out.Volumes = map[string]struct{}{}
		}
		out.Volumes[v] = struct{}{}
	}
	return out
}

// refuse says which part of a request Docker has and Hull does not, rather than leave it out silently.
func refuse(c *container.Config, h *container.HostConfig) error {
	missing := func(what string) error { return errdef.NotImplemented("%s is not there yet", what) }
	switch {
	case len(h.Links) > 0:
		return errdef.NotImplemented("links between containers (--link) are not supported: containers reach each other by address, and --add-host gives one a name")
	case len(h.DeviceRequests) > 0:
		return missing("a device request (--gpus)")
	case len(h.StorageOpt) > 0:
		return missing("--storage-opt")
	case h.Cgroup != "":
		return missing("--cgroup")
	case !contains(string(h.Isolation), "", "default"):
		return errdef.Invalid("invalid isolation %q: Linux has \"default\" only", h.Isolation)
	}
	return nil
}

func contains(s string, words ...string) bool { return slices.Contains(words, s) }

// hostFrom keeps of the wire's HostConfig what Hull has; the rest was refused before.
func hostFrom(h *container.HostConfig) (*engine.Host, error) {
	out := &engine.Host{
		Network: string(h.NetworkMode), AutoRemove: h.AutoRemove, Binds: h.Binds, Tmpfs: h.Tmpfs,
		VolumesFrom: h.VolumesFrom, VolumeDriver: h.VolumeDriver,
		CapAdd: h.CapAdd, CapDrop: h.CapDrop, Privileged: h.Privileged, ReadOnly: h.ReadonlyRootfs,
		SecurityOpt: h.SecurityOpt, Userns: string(h.UsernsMode), PidMode: string(h.PidMode), IPCMode: string(h.IpcMode),
		UTSMode: string(h.UTSMode), CgroupnsMode: string(h.CgroupnsMode), GroupAdd: h.GroupAdd, ExtraHosts: h.ExtraHosts,
		DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, DeviceRules: h.DeviceCgroupRules, Sysctls: h.Sysctls,
		ShmSize: h.ShmSize, OOMScoreAdj: h.OomScoreAdj, Annotations: h.Annotations,
		MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths, CidFile: h.ContainerIDFile, Umask: h.Umask,
		Log:          engine.Log{Driver: h.LogConfig.Type, Options: h.LogConfig.Config},
		CgroupParent: h.CgroupParent, Runtime: h.Runtime, Resources: resourcesFrom(&h.Resources),
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return nil, errdef.As(errdef.ErrInvalid, err)
	}
	out.Restart = restartFrom(h.RestartPolicy)
	out.Init, out.NoInit = h.Init != nil && *h.Init, h.Init != nil && !*h.Init
	if h.ShmSize < 0 {
		return nil, errdef.Invalid("SHM size can not be less than 0")
	}
	for _, a := range h.DNS {
		out.DNS = append(out.DNS, a.String())
	}
	out.Ports, out.PublishAll = bindingsFrom(h.PortBindings), h.PublishAllPorts
	out.ConsoleSize = console(&h.ConsoleSize)
	for _, d := range h.Devices {
		out.Devices = append(out.Devices, engine.Device{Host: d.PathOnHost, Container: d.PathInContainer, Permissions: d.CgroupPermissions})
	}
	for _, u := range h.Ulimits {
		if u == nil {
			return nil, errdef.Invalid("invalid ulimit: null")
		}
		out.Ulimits = append(out.Ulimits, engine.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, m := range h.Mounts {
		out.Mounts = append(out.Mounts, mountFrom(&m))
	}
	return out, nil
}

func mountFrom(m *mount.Mount) engine.Mount {
	out := engine.Mount{Type: string(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	if b := m.BindOptions; b != nil {
		out.Propagation, out.NoRecurse, out.CreateHost = string(b.Propagation), b.NonRecursive, b.CreateMountpoint
		out.TopReadOnly, out.AllReadOnly = b.ReadOnlyNonRecursive, b.ReadOnlyForceRecursive
	}
	if v := m.VolumeOptions; v != nil {
		out.NoCopy, out.Labels, out.Subpath = v.NoCopy, v.Labels, v.Subpath
		if d := v.DriverConfig; d != nil {
			out.Driver, out.DriverOptions = d.Name, d.Options
		}
	}
	if i := m.ImageOptions; i != nil {
		out.Subpath = i.Subpath
	}
	if t := m.TmpfsOptions; t != nil {
		out.Size, out.Mode = t.SizeBytes, uint32(t.Mode)&0o7777
		for _, o := range t.Options {
			out.Options = append(out.Options, strings.Join(o, "="))
		}
	}
	return out
}

// wireMount is the inverse of mountFrom.
func wireMount(m *engine.Mount) mount.Mount {
	out := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	if m.Propagation != "" || m.NoRecurse || m.CreateHost || m.TopReadOnly || m.AllReadOnly {
		out.BindOptions = &mount.BindOptions{
			Propagation: mount.Propagation(m.Propagation), NonRecursive: m.NoRecurse, CreateMountpoint: m.CreateHost,
			ReadOnlyNonRecursive: m.TopReadOnly, ReadOnlyForceRecursive: m.AllReadOnly,
		}
	}
	if m.Type == "volume" && (m.NoCopy || m.Subpath != "" || m.Driver != "" || len(m.Labels)+len(m.DriverOptions) > 0) {
		out.VolumeOptions = &mount.VolumeOptions{NoCopy: m.NoCopy, Labels: m.Labels, Subpath: m.Subpath}
		if m.Driver != "" || len(m.DriverOptions) > 0 {
			out.VolumeOptions.DriverConfig = &mount.Driver{Name: m.Driver, Options: m.DriverOptions}
		}
	}
	if m.Type == "image" && m.Subpath != "" {
		out.ImageOptions = &mount.ImageOptions{Subpath: m.Subpath}
	}
	if m.Size != 0 || m.Mode != 0 || len(m.Options) > 0 {
		out.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.Size, Mode: os.FileMode(m.Mode)}
		for _, o := range m.Options {
			out.TmpfsOptions.Options = append(out.TmpfsOptions.Options, strings.SplitN(o, "=", 2))
		}
	}
	return out
}

func resourcesFrom(r *container.Resources) engine.Resources {
	out := engine.Resources{
		Memory: r.Memory, MemorySwap: r.MemorySwap, MemoryReservation: r.MemoryReservation, MemorySwappiness: r.MemorySwappiness,
		OOMKillDisable: r.OomKillDisable, NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURTPeriod: r.CPURealtimePeriod, CPURTRuntime: r.CPURealtimeRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
		PidsLimit: r.PidsLimit, BlkioWeight: r.BlkioWeight,
	}
	if r.PidsLimit != nil && *r.PidsLimit == 0 { // docker run without --pids-limit sends 0
		out.PidsLimit = nil
	}
	for _, d := range r.BlkioWeightDevice {
		if d != nil {
			out.BlkioWeightDevices = append(out.BlkioWeightDevices, engine.WeightDevice{Path: d.Path, Weight: d.Weight})
		}
	}
	out.BlkioReadBps = throttlesFrom(r.BlkioDeviceReadBps)
	out.BlkioWriteBps = throttlesFrom(r.BlkioDeviceWriteBps)
	out.BlkioReadIOPS = throttlesFrom(r.BlkioDeviceReadIOps)
	out.BlkioWriteIOPS = throttlesFrom(r.BlkioDeviceWriteIOps)
	return out
}

func throttlesFrom(list []*blkiodev.ThrottleDevice) (out []engine.ThrottleDevice) {
	for _, d := range list {
		if d != nil {
			out = append(out, engine.ThrottleDevice{Path: d.Path, Rate: d.Rate})
		}
	}
	return out
}

func wireThrottles(list []engine.ThrottleDevice) (out []*blkiodev.ThrottleDevice) {
	for _, d := range list {
		out = append(out, &blkiodev.ThrottleDevice{Path: d.Path, Rate: d.Rate})
	}
	return out
}

// wireHost is the inverse of hostFrom.
func wireHost(h *engine.Host) *container.HostConfig {
	r := &h.Resources
	out := &container.HostConfig{
		NetworkMode: container.NetworkMode(h.Network), AutoRemove: h.AutoRemove, Binds: h.Binds, Tmpfs: h.Tmpfs,
		VolumesFrom: h.VolumesFrom, VolumeDriver: h.VolumeDriver,
		CapAdd: h.CapAdd, CapDrop: h.CapDrop, Privileged: h.Privileged, ReadonlyRootfs: h.ReadOnly,
		SecurityOpt: h.SecurityOpt, UsernsMode: container.UsernsMode(h.Userns), PidMode: container.PidMode(h.PidMode),
		IpcMode: container.IpcMode(h.IPCMode), UTSMode: container.UTSMode(h.UTSMode), CgroupnsMode: container.CgroupnsMode(h.CgroupnsMode),
		GroupAdd: h.GroupAdd, ExtraHosts: h.ExtraHosts, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions,
		Sysctls: h.Sysctls, ShmSize: h.ShmSize, OomScoreAdj: h.OOMScoreAdj, Annotations: h.Annotations,
		MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths, ContainerIDFile: h.CidFile, Umask: h.Umask,
		LogConfig:     container.LogConfig{Type: h.Log.Driver, Config: h.Log.Options},
		RestartPolicy: wireRestart(h.Restart),
		PortBindings:  wireBindings(h.Ports), PublishAllPorts: h.PublishAll,
		ConsoleSize: [2]uint{uint(h.ConsoleSize.Height), uint(h.ConsoleSize.Width)},
		Runtime:     cmp.Or(h.Runtime, "hull"),
		Resources: container.Resources{
			Memory: r.Memory, MemorySwap: r.MemorySwap, MemoryReservation: r.MemoryReservation, MemorySwappiness: r.MemorySwappiness,
			OomKillDisable: r.OOMKillDisable, NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
			CPURealtimePeriod: r.CPURTPeriod, CPURealtimeRuntime: r.CPURTRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
			PidsLimit: r.PidsLimit, BlkioWeight: r.BlkioWeight, DeviceCgroupRules: h.DeviceRules, CgroupParent: h.CgroupParent,
			BlkioDeviceReadBps: wireThrottles(r.BlkioReadBps), BlkioDeviceWriteBps: wireThrottles(r.BlkioWriteBps),
			BlkioDeviceReadIOps: wireThrottles(r.BlkioReadIOPS), BlkioDeviceWriteIOps: wireThrottles(r.BlkioWriteIOPS),
		},
	}
	for _, d := range r.BlkioWeightDevices {
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
	}
	if h.Init {
		out.Init = &h.Init
	}
	if out.LogConfig.Type == "" {
		out.LogConfig.Type = "json-file"
	}
	if out.LogConfig.Config == nil {
		out.LogConfig.Config = map[string]string{}
	}
	if out.IpcMode == "" {
		out.IpcMode = "private"
	}
	if out.ShmSize == 0 {
		out.ShmSize = 64 << 20
	}
	for _, a := range h.DNS {
		if ip, err := netip.ParseAddr(a); err == nil {
			out.DNS = append(out.DNS, ip)
		}
	}
	for _, d := range h.Devices {
		out.Devices = append(out.Devices, container.DeviceMapping{PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Permissions})
	}
	for _, u := range h.Ulimits {
		out.Ulimits = append(out.Ulimits, &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, m := range h.Mounts {
		out.Mounts = append(out.Mounts, wireMount(&m))
	}
	return out
}

// createBody reads the request. encoding/json builds tables for all that a request could have before it reads the little
// that it has, which takes longer than making the container; our own client's body is read without. Whatever
// plainjson does not know, encoding/json judges.
func (q *request) createBody() (body container.CreateRequest, err error) {
	if q.Header.Get("User-Agent") != hullAgent {
		return body, q.decode(&body)
	}
	raw, err := q.raw()
	if err != nil {
		return body, err
	}
	var plain struct { // CreateRequest, but for the pointer that plainjson cannot embed
		container.Config
		HostConfig       *container.HostConfig
		NetworkingConfig *network.NetworkingConfig
	}
	if plainjson.Unmarshal(raw, &plain) == nil {
		return container.CreateRequest{Config: &plain.Config, HostConfig: plain.HostConfig, NetworkingConfig: plain.NetworkingConfig}, nil
	}
	return body, parse(raw, &body)
}

// startsSoon reports whether the client is going to start what it creates. Our own says so; Docker's command nearly
// always does, and where it does not, what was prepared goes away after some seconds.
func (q *request) startsSoon() bool {
	return q.Header.Get("Hull-Start") == "soon" || strings.HasPrefix(q.UserAgent(), "Docker-Client/")
}

// createContainer is POST /containers/create. The header "Hull-Start: soon" is our own: the client is going to start the
// container next.
func (s *server) createContainer(q *request) error {
	body, err := q.createBody()
	if err != nil {
		return err
	}
	if body.Config == nil {
		return errdef.Invalid("config cannot be empty in order to create a container")
	}
	if body.HostConfig == nil {
		body.HostConfig = new(container.HostConfig)
	}
	if err := refuse(body.Config, body.HostConfig); err != nil {
		return err
	}
	host, err := hostFrom(body.HostConfig)
	if err != nil {
		return err
	}
	if err := endpointsFrom(body.NetworkingConfig, host); err != nil {
		return err
	}
	cfg := configFrom(body.Config)
	cfg.Platform = q.query("platform")
	id, warnings, err := s.engine.Create(q.Context(), strings.TrimPrefix(q.query("name"), "/"), cfg, host, q.startsSoon())
	if err != nil {
		return err
	}
	if warnings == nil {
		warnings = []string{}
	}
	return q.answer(201, container.CreateResponse{ID: id, Warnings: warnings})
}
