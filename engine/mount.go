package engine

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/runtime"
	"hull/volume"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mounts are the file systems of the container, parents before children. Those of the person replace ours of the
// same target.
func (b *builder) mounts() error {
	own := slices.DeleteFunc(b.ownMounts(), func(m specs.Mount) bool {
		return slices.ContainsFunc(b.c.Mounts, func(t MountPoint) bool { return t.Target == m.Destination })
	})
	for _, m := range b.c.Mounts {
		spec, err := b.mount(&m)
		if err != nil {
			return err
		}
		own = append(own, spec)
	}
	slices.SortStableFunc(own, func(x, y specs.Mount) int {
		return strings.Count(x.Destination, "/") - strings.Count(y.Destination, "/")
	})
	b.spec.Mounts = own
	return nil
}

// ownMounts are those every container has: Docker's, see threats 2.1 for what is read-only.
func (b *builder) ownMounts() []specs.Mount {
	h := &b.c.Host
	sysMode := "ro"
	if h.Privileged {
		sysMode = "rw"
	}
	shm := h.ShmSize
	if shm == 0 {
		shm = 64 << 20
	}
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if b.ids.maps(ttyGroup) {
		pts = append(pts, "gid="+strconv.Itoa(ttyGroup))
	}
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sysMode}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
	}
	if b.noCgroups {
		// without a cgroup of its own there is nothing to show
	} else {
		ms = append(ms, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{sysMode, "nosuid", "noexec", "nodev"}})
	}
	if h.Network == modeHost && b.ids != nil {
		// sysfs shows a network namespace, and only its owner may mount it: a bind of the host's has to do.
		ms[2] = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"}}
	}
	if h.PidMode == modeHost && os.Geteuid() != 0 {
		// The same with proc and a process namespace.
		ms[0] = specs.Mount{Destination: "/proc", Type: "none", Source: "/proc", Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}}
	}
	switch h.IPCMode {
	case modeHost:
		for _, dir := range []string{"/dev/mqueue", "/dev/shm"} {
			if _, err := os.Stat(dir); err == nil { // not every host mounts them
				ms = append(ms, specs.Mount{Destination: dir, Type: "bind", Source: dir, Options: []string{"bind", "nosuid", "noexec", "nodev"}})
			}
		}
	default:
		ms = append(ms, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
		if h.IPCMode != modeNone {
			ms = append(ms, b.shm(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
				Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}}))
		}
	}
	files := []string{"bind", "rprivate"}
	if h.ReadOnly {
		files = append(files, "ro")
	}
	for _, f := range b.files {
		// Not id-mapped: they belong to the container's root already.
		ms = append(ms, specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: files})
	}
	return ms
}

// ttyGroup is the group of terminals, in every distribution.
const ttyGroup = 5

// mount is one that the person or the image asked for.
func (b *builder) mount(m *MountPoint) (specs.Mount, error) {
	switch m.Type {
	case mountTmpfs:
		return b.tmpfs(m)
	case mountVolume:
		return b.volume(m)
	case mountImage:
		return b.image(m)
	}
	if err := b.source(&m.Mount); err != nil {
		return specs.Mount{}, err
	}
	return b.bind(m, m.Source), nil
}

func (b *builder) tmpfs(m *MountPoint) (specs.Mount, error) {
	words := strings.Join(m.Options, ",")
	if m.Flag {
		words = b.c.Host.Tmpfs[m.Target]
	}
	opts, err := tmpfsOptions(words)
	if err != nil {
		return specs.Mount{}, err
	}
	if m.Size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(m.Size, 10))
	}
	if m.Mode != 0 {
		opts = append(opts, "mode="+strconv.FormatUint(uint64(m.Mode), 8))
	}
	if m.ReadOnly {
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: opts}, nil
}

// bind shows a directory or file of the host.
func (b *builder) bind(m *MountPoint, source string) specs.Mount {
	opts := []string{"rbind", "rprivate"}
	if m.NoRecurse {
		opts[0] = "bind"
	}
	if m.Propagation != "" {
		opts[1] = m.Propagation
	}
	if m.ReadOnly {
		opts = append(opts, "ro")
		if !m.NoRecurse && !m.TopReadOnly {
			opts = append(opts, "rro") // or a mount below it would stay writable
		}
	}
	if m.Subpath != "" {
		opts = append(opts, runtime.SubpathOption+m.Subpath)
	}
	out := specs.Mount{Destination: m.Target, Type: "bind", Source: source, Options: opts}
	b.mapped(&out, !m.NoRecurse)
	return out
}

// volume shows a volume: its directory in the store, or what its options name.
func (b *builder) volume(m *MountPoint) (specs.Mount, error) {
	v, err := b.e.volumes().Ready(m.Name)
	if err != nil {
		return specs.Mount{}, err
	}
	fs := v.Mount()
	switch {
	case fs == nil:
		return b.bind(m, v.Path()), nil
	case fs.Bind:
		bind := *m
		bind.NoRecurse = !fs.Recursive
		out := b.bind(&bind, fs.Device)
		if _, err := os.Stat(fs.Device); err != nil && !b.dry {
			return out, errdef.Invalid("failed to mount local volume %s: mount %s: %w", m.Name, clip(fs.Device), err)
		}
		out.Options = append(out.Options, fs.Options...)
		return out, nil
	case fs.Type == mountTmpfs && os.Geteuid() == 0:
		return b.memoryVolume(m, fs), nil
	case !ownRuntime(b.c.Host.Runtime):
		return specs.Mount{}, errdef.Invalid("failed to mount local volume %s: a file system of type %s needs Hull's own runtime, not --runtime %s", m.Name, clip(fs.Type), clip(b.c.Host.Runtime))
	case os.Geteuid() != 0 && fs.Type != mountTmpfs:
		return specs.Mount{}, errdef.Forbidden("failed to mount local volume %s: only root mounts a file system of type %s", m.Name, clip(fs.Type))
	}
	out := specs.Mount{Destination: m.Target, Type: fs.Type, Source: fs.Device, Options: addressed(fs)}
	if m.ReadOnly {
		out.Options = append(out.Options, "ro")
	}
	if m.Subpath != "" {
		out.Options = append(out.Options, runtime.SubpathOption+m.Subpath)
	}
	b.mapped(&out, false)
	return out, nil
}

// addressed are the options with the host of addr= looked up: the kernel's clients of NFS and CIFS take numbers only.
// A name that nobody knows is left for the kernel to complain about.
func addressed(m *volume.Mount) []string {
	out := slices.Clone(m.Options)
	if m.Type != "nfs" && m.Type != "nfs4" && m.Type != "cifs" {
		return out
	}
	for i, o := range out {
		if host, ok := strings.CutPrefix(o, "addr="); ok {
			if ip, err := net.ResolveIPAddr("ip", host); err == nil {
				out[i] = "addr=" + ip.String()
			}
		}
	}
	return out
}

// image shows the file system of an image, read-only: its layers, as the container's own are.
func (b *builder) image(m *MountPoint) (specs.Mount, error) {
	out := specs.Mount{Destination: m.Target, Type: "overlay", Source: "overlay", Options: []string{"ro", "nosuid", "nodev"}}
	lower, err := b.e.imageLower(m.Layers, m.Over...)
	if err != nil {
		return out, err
	}
	for _, dir := range lower {
		out.Options = append(out.Options, runtime.LowerOption+dir)
	}
	if m.Subpath != "" {
		out.Options = append(out.Options, runtime.SubpathOption+m.Subpath)
	}
	b.mapped(&out, false)
	return out, nil
}

// source makes sure that what is to be bound is there. Docker makes a missing directory for -v, not for --mount.
func (b *builder) source(m *Mount) error {
	_, err := os.Stat(m.Source)
	if err == nil || b.dry {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) && m.CreateHost {
		err = os.MkdirAll(m.Source, 0o755)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.Invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", clip(m.Source))
	}
	if err != nil {
		return errdef.Invalid("bind %s: %w", clip(m.Source), err)
	}
	return nil
}

// mapped marks a bind to be id-mapped with the container's ranges, so that files keep the owners people expect.
func (b *builder) mapped(m *specs.Mount, recursive bool) {
	if b.ids == nil || !b.ids.idmapMounts {
		return
	}
	o := "idmap"
	if recursive {
		o = "ridmap"
	}
	m.Options = append(m.Options, o)
	m.UIDMappings, m.GIDMappings = b.ids.uids, b.ids.gids
}
