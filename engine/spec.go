package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/monitor"
	"hull/runtime/seccomp/profile"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultPids is how many tasks a container may have when nobody says: room for what people run, none for a
// fork bomb.
const DefaultPids = 4096

// builder makes the OCI runtime configuration of one start. Everything in it comes from the container's definition
// and the facts below, so that two starts of a container differ only where the host does.
//
// The user is handed on as the person wrote it, in process.user.username: only the runtime, inside the container's
// root, may read its /etc/passwd. It also sets HOME, when the environment has none.
type builder struct {
	e         *Engine
	c         *Container
	endpoint  *endpoint // nil without a link of its own
	shared    *shared   // nil when it shares no namespace with another container
	sec       *security
	ids       *idMap // nil without a user namespace
	noCgroups bool   // an ordinary user without a delegated cgroup
	dry       bool   // change nothing on the host
	files     []file
	memory    []monitor.Memory // file systems that it shares with other containers
	spec      *specs.Spec
	seccomp   string // file of the compiled filter; "" when spec has one, or there is none
	warnings  []string
}

// build fills in b.spec. root is the store, for the cache of compiled filters; dir the container's directory.
func (b *builder) build(root, dir, cgroup string) (err error) {
	c, h := &b.c.Config, &b.c.Host
	if b.sec, err = parseSecurity(h); err != nil {
		return err
	}
	caps, added, err := capabilities(h)
	if err != nil {
		return err
	}
	p, err := b.c.process(caps, b.sec)
	if err != nil {
		return err
	}
	b.spec = &specs.Spec{
		Version:     specs.Version,
		Process:     p,
		Root:        &specs.Root{Path: "rootfs", Readonly: h.ReadOnly},
		Annotations: h.Annotations,
		Linux: &specs.Linux{
			Sysctl:        h.Sysctls,
			Resources:     &specs.LinuxResources{},
			MaskedPaths:   b.masked(),
			ReadonlyPaths: b.readonly(),
		},
	}
	if h.UTSMode != modeHost {
		b.spec.Hostname, b.spec.Domainname = c.Hostname, c.Domainname
	}
	if b.ids != nil {
		b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = b.ids.uids, b.ids.gids
	}
	b.namespaces()
	if err := b.generate(dir); err != nil {
		return err
	}
	if err := b.mounts(); err != nil {
		return err
	}
	if err := b.devices(); err != nil {
		return err
	}
	b.limits(cgroup)
	return b.filter(root, caps, added)
}

// process is what runs in the container first; exec changes the arguments of a copy.
func (c *Container) process(caps []string, sec *security) (*specs.Process, error) {
	gids, _ := c.Host.groups()
	p := &specs.Process{
		Terminal:        c.Config.Tty,
		Args:            slices.Concat(c.Config.Entrypoint, c.Config.Cmd),
		Env:             processEnv(&c.Config),
		Cwd:             c.Config.WorkingDir,
		User:            specs.User{Username: c.Config.User, AdditionalGids: gids, Umask: c.Host.Umask},
		NoNewPrivileges: sec.noNewPrivileges,
		OOMScoreAdj:     new(c.Host.OOMScoreAdj),
		Rlimits:         rlimits(c.Host.Ulimits),
		// Inheritable and ambient stay empty: what is in them survives an exec by a user who never had it
		// (CVE-2022-24769).
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if size := c.Host.ConsoleSize; p.Terminal && size != (Size{}) {
		p.ConsoleSize = &specs.Box{Height: uint(size.Height), Width: uint(size.Width)}
	}
	if sec.apparmor != unconfined {
		p.ApparmorProfile = sec.apparmor
	}
	p.SelinuxLabel = selinuxLabel(sec.label)
	return p, nil
}

// selinuxLabel is what --security-opt label= says, over the type containers have by policy. Without SELinux in the
// kernel, or with label=disable, it is empty.
func selinuxLabel(opts []string) string {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil || len(opts) == 0 {
		return ""
	}
	user, role, typ, level := "system_u", "system_r", "container_t", "s0"
	for _, o := range opts {
		key, value, _ := strings.Cut(o, ":")
		switch key {
		case "disable":
			return ""
		case "user":
			user = value
		case "role":
			role = value
		case "type":
			typ = value
		case "level":
			level = value
		}
	}
	return user + ":" + role + ":" + typ + ":" + level
}

// groups takes --group-add apart: numbers, and names that the runtime looks up in the image's /etc/group.
func (h *Host) groups() (ids []uint32, names []string) {
	for _, g := range h.GroupAdd {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			ids = append(ids, uint32(n))
		} else {
			names = append(names, g)
		}
	}
	return ids, names
}

// checkGroups holds --group-add to what can be an id or a name.
func checkGroups(groups []string) error {
	for _, g := range groups {
		if g == "" {
			return errdef.Invalid("invalid group: an empty name")
		}
		if err := checkUserPart(g); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) namespaces() {
	h := &b.c.Host
	add := func(t specs.LinuxNamespaceType, private bool) {
		if private {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: t})
		}
	}
	add(specs.UserNamespace, b.ids != nil)
	add(specs.MountNamespace, true)
	add(specs.PIDNamespace, h.PidMode != modeHost)
	add(specs.NetworkNamespace, h.Network != modeHost)
	add(specs.UTSNamespace, h.UTSMode != modeHost)
	add(specs.IPCNamespace, h.IPCMode != modeHost)
	if b.shared.has(specs.IPCNamespace) && os.Geteuid() != 0 {
		b.warnings = append(b.warnings, "--ipc container: shares message queues, semaphores and System V memory; /dev/shm is the container's own, unless root starts it")
	}
	add(specs.CgroupNamespace, h.CgroupnsMode != modeHost && b.kernelHas("cgroup"))
	add(specs.TimeNamespace, ownRuntime(h.Runtime) && b.kernelHas("time")) // not all of others know them
}

// kernelHas reports whether there are namespaces of a kind that a container can do without, and warns if not.
func (b *builder) kernelHas(ns string) bool {
	_, err := os.Lstat("/proc/self/ns/" + ns)
	if err != nil {
		b.warnings = append(b.warnings, "this kernel has no "+ns+" namespaces: the container shares the host's")
	}
	return err == nil
}

// userNamespace reports whether the container gets one. Host namespaces need rights over the host, so they and
// --privileged turn it off; --userns=host does by name. Runtimes of others map no ids on layers.
func userNamespace(h *Host) bool {
	return ownRuntime(h.Runtime) && !h.Privileged && h.Userns != modeHost && h.Network != modeHost && h.PidMode != modeHost
}

func (b *builder) masked() []string {
	h := &b.c.Host
	if b.sec.unmasked {
		return nil
	}
	if h.MaskedPaths != nil {
		return h.MaskedPaths
	}
	out := slices.Clone(maskedPaths[:])
	if _, err := os.Stat("/sys/devices/system/cpu/cpu0/thermal_throttle"); err == nil {
		found, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
		out = append(out, found...)
	}
	return out
}

func (b *builder) readonly() []string {
	if b.sec.unmasked {
		return nil
	}
	if b.c.Host.ReadonlyPaths != nil {
		return b.c.Host.ReadonlyPaths
	}
	return slices.Clone(readonlyPaths[:])
}

// filter chooses the seccomp filter: the default one is compiled once and kept in a file.
func (b *builder) filter(root string, caps, added []string) error {
	o := profile.Options{Caps: caps, Added: added, Compat32: b.c.compat32}
	var err error
	switch b.sec.seccomp {
	case unconfined:
	case "":
		if !ownRuntime(b.c.Host.Runtime) {
			b.spec.Linux.Seccomp, err = profile.Default(o)
			break
		}
		b.seccomp, err = profile.File(root, o)
	default:
		if !json.Valid([]byte(b.sec.seccomp)) {
			return errdef.Invalid("opening seccomp profile failed: %s is not a profile in JSON", clip(b.sec.seccomp))
		}
		b.spec.Linux.Seccomp, err = profile.Parse([]byte(b.sec.seccomp), o)
	}
	return err
}
