package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"hull/monitor"
	"hull/volume"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What containers share in memory is a mount of the host (monitor.Memory says how long), which each of them binds. Only
// root can make such a mount: for an ordinary user a volume of type tmpfs and /dev/shm are each container's own.

// memoryVolume shows a volume that stands for a tmpfs.
func (b *builder) memoryVolume(m *MountPoint, fs *volume.Mount) specs.Mount {
	out := *m
	out.NoRecurse = true
	s := b.bind(&out, b.inMemory(monitor.Memory{Dir: b.e.memoryDir("volumes", m.Name), Options: fs.Options}))
	s.Options = append(s.Options, fs.Options...) // those of the mount; of the others the runtime knows that they are none
	return s
}

// shm is own, the mount of a container's /dev/shm, or in its place that of the group whose IPC namespace it has.
func (b *builder) shm(own specs.Mount) specs.Mount {
	if os.Geteuid() != 0 {
		return own
	}
	mode := b.c.Host.IPCMode
	owner, joins := other(mode)
	switch {
	case joins && b.e.hasHostIPC(owner):
		return specs.Mount{Destination: own.Destination, Type: "bind", Source: own.Destination, Options: []string{"bind", "nosuid", "noexec", "nodev"}}
	case mode == modeShareable:
		owner = b.c.ID
	case !joins:
		return own
	}
	opts := slices.Clone(own.Options)
	if b.ids != nil {
		// Not id-mapped: everybody in the group has the same ids, and the files those of the namespace.
		opts = append(opts, "uid="+strconv.FormatUint(uint64(b.ids.uids[0].HostID), 10), "gid="+strconv.FormatUint(uint64(b.ids.gids[0].HostID), 10))
	}
	source := b.inMemory(monitor.Memory{Dir: b.e.memoryDir("shm", owner), Options: opts, Owner: owner})
	return specs.Mount{Destination: own.Destination, Type: "bind", Source: source, Options: []string{"bind", "rprivate", "nosuid", "noexec", "nodev"}}
}

// inMemory makes the container a user of m, once, and returns what it binds.
func (b *builder) inMemory(m monitor.Memory) string {
	if !slices.ContainsFunc(b.memory, func(o monitor.Memory) bool { return o.Dir == m.Dir }) {
		b.memory = append(b.memory, m)
	}
	return m.Mounted()
}

// memoryDir is the place of what containers share under a name.
func (e *Engine) memoryDir(kind, name string) string {
	return filepath.Join(e.run, monitor.MemoryDir, kind, name)
}

// hasHostIPC reports whether the container id has the IPC namespace of the host, and so lends that.
func (e *Engine) hasHostIPC(id string) bool {
	r, err := e.readRecord(e.dir(id))
	return err == nil && r.Host.IPCMode == modeHost
}
