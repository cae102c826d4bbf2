package engine

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// parseMounts turns -v, --mount and --tmpfs into mounts by target, and refuses two for the same one.
func parseMounts(h *Host) ([]Mount, error) {
	var all []Mount
	for _, b := range h.Binds {
		m, err := parseBind(b)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	for _, m := range h.Mounts {
		if err := checkMount(&m); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	for target := range h.Tmpfs {
		m := Mount{Type: mountTmpfs, Target: target}
		if err := checkMount(&m); err != nil {
			return nil, err
		}
		if _, err := tmpfsOptions(h.Tmpfs[target]); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	seen := make(map[string]bool, len(all))
	for i := range all {
		all[i].Target = path.Clean(all[i].Target)
		if seen[all[i].Target] {
			return nil, errdef.Invalid("Duplicate mount point: %s", clip(all[i].Target))
		}
		seen[all[i].Target] = true
	}
	return all, nil
}

const (
	mountBind  = "bind"
	mountTmpfs = "tmpfs"
)

// parseBind reads SOURCE:TARGET[:OPTIONS].
func parseBind(s string) (Mount, error) {
	bad := func(why string) (Mount, error) {
		return Mount{}, errdef.Invalid("invalid volume specification: '%s': %s", clip(s), why)
	}
	parts := strings.Split(s, ":")
	switch {
	case len(parts) == 1:
		return Mount{}, errdef.NotImplemented("anonymous volumes are not there yet: give -v a directory of the host, as in -v /data:%s", clip(s))
	case len(parts) > 3 || parts[0] == "" || parts[1] == "":
		return bad("want SOURCE:TARGET[:OPTIONS]")
	case !path.IsAbs(parts[0]) && !strings.ContainsAny(parts[0], "/"):
		return Mount{}, errdef.NotImplemented("named volumes are not there yet: give -v an absolute path of the host instead of %q", clip(parts[0]))
	case !path.IsAbs(parts[0]):
		return bad("the source is not an absolute path")
	}
	m := Mount{Type: mountBind, Source: path.Clean(parts[0]), Target: parts[1], CreateHost: true}
	if len(parts) == 3 {
		for o := range strings.SplitSeq(parts[2], ",") {
			switch o {
			case "ro":
				m.ReadOnly = true
			case "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", "rbind", "":
				// z and Z relabel for SELinux, the rest is the default or nothing on Linux
			case "bind":
				m.NoRecurse = true
			case "private", "rprivate", "shared", "rshared", "slave", "rslave":
				m.Propagation = o
			default:
				return bad("unknown option " + strconv.Quote(o))
			}
		}
	}
	return m, checkMount(&m)
}

func checkMount(m *Mount) error {
	bad := func(format string, a ...any) error {
		return errdef.Invalid("invalid mount config for type %q: %w", clip(m.Type), errdef.Invalid(format, a...))
	}
	if err := noControl("mount target", m.Target); err != nil {
		return err
	}
	switch {
	case m.Type == "volume" || m.Type == "image":
		return errdef.NotImplemented("mounts of type %s are not there yet: this Hull has type=bind and type=tmpfs", m.Type)
	case m.Type != mountBind && m.Type != mountTmpfs:
		return errdef.Invalid("mount type unknown: %q", clip(m.Type))
	case m.Target == "":
		return bad("field Target must not be empty")
	case !path.IsAbs(m.Target):
		return bad("invalid mount path: '%s' mount path must be absolute", clip(m.Target))
	case path.Clean(m.Target) == "/":
		return bad("invalid specification: destination can't be '/'")
	case m.Type == mountBind && !path.IsAbs(m.Source):
		return bad("invalid mount path: '%s' mount path must be absolute", clip(m.Source))
	case m.Type == mountTmpfs && m.Source != "":
		return bad("field Source must not be specified")
	case m.Propagation != "" && !contains("private rprivate shared rshared slave rslave", m.Propagation):
		return bad("invalid propagation mode: %s", clip(m.Propagation))
	case m.Size < 0:
		return bad("the size is negative")
	case strings.ContainsRune(m.Source, 0):
		return bad("the source has a NUL byte")
	}
	return nil
}

// tmpfsOptions merges a person's options with Docker's default ones for --tmpfs.
func tmpfsOptions(s string) ([]string, error) {
	out := []string{"noexec", "nosuid", "nodev"}
	drop := func(o string) { out = slices.DeleteFunc(out, func(have string) bool { return have == o }) }
	for o := range strings.SplitSeq(s, ",") {
		key, value, hasValue := strings.Cut(o, "=")
		switch {
		case o == "":
		case hasValue && contains("size mode uid gid nr_inodes nr_blocks mpol", key) && value != "":
			if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return nil, errdef.Invalid("invalid tmpfs option %q", clip(o))
			}
			out = append(out, o)
		case contains("exec suid dev", o):
			drop("no" + o)
			out = append(out, o)
		case contains("noexec nosuid nodev", o):
			drop(o)
			drop(strings.TrimPrefix(o, "no"))
			out = append(out, o)
		case contains("rw ro async sync atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime dirsync", o):
			out = append(out, o)
		case contains("private rprivate shared rshared slave rslave unbindable runbindable", o):
			out = append(out, o)
		default:
			return nil, errdef.Invalid("invalid tmpfs option [%q]", clip(o))
		}
	}
	return out, nil
}

// mounts are the file systems of the container, parents before children. Those of the person replace ours of the
// same target.
func (b *builder) mounts() error {
	h := &b.c.Host
	own := b.ownMounts()
	theirs, err := parseMounts(h)
	if err != nil {
		return err
	}
	own = slices.DeleteFunc(own, func(m specs.Mount) bool {
		return slices.ContainsFunc(theirs, func(t Mount) bool { return t.Target == m.Destination })
	})
	for _, m := range theirs {
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
			ms = append(ms, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
				Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}})
		}
	}
	for _, f := range b.files {
		// Not id-mapped: they belong to the container's root already.
		ms = append(ms, specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: []string{"bind", "rprivate"}})
	}
	return ms
}

// ttyGroup is the group of terminals, in every distribution.
const ttyGroup = 5

// mount is one that the person asked for.
func (b *builder) mount(m *Mount) (specs.Mount, error) {
	if m.Type == mountTmpfs {
		opts, err := tmpfsOptions(b.c.Host.Tmpfs[m.Target])
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
	if err := b.source(m); err != nil {
		return specs.Mount{}, err
	}
	opts := []string{"rbind", "rprivate"}
	if m.NoRecurse {
		opts[0] = "bind"
	}
	if m.Propagation != "" {
		opts[1] = m.Propagation
	}
	if m.ReadOnly {
		opts = append(opts, "ro")
		if !m.NoRecurse {
			opts = append(opts, "rro") // or a mount below it would stay writable
		}
	}
	out := specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: opts}
	b.mapped(&out, !m.NoRecurse)
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

// file is one that is generated for the container and bound into it.
type file struct{ target, source string }

// write makes the generated files of a container in its directory.
func (b *builder) generate(dir string) error {
	c := b.c
	contents := []struct{ name, target, content string }{
		{"hostname", "/etc/hostname", c.Config.Hostname + "\n"},
		{"hosts", "/etc/hosts", b.hosts()},
	}
	if c.Host.Network != modeNone || len(c.Host.DNS)+len(c.Host.DNSSearch)+len(c.Host.DNSOptions) > 0 {
		contents = append(contents, struct{ name, target, content string }{"resolv.conf", "/etc/resolv.conf", b.resolvConf()})
	}
	for _, f := range contents {
		p := filepath.Join(dir, f.name)
		if !b.dry {
			if err := writeFor(b.ids.root(), p, f.content); err != nil {
				return err
			}
		}
		b.files = append(b.files, file{f.target, p})
	}
	return nil
}

// writeFor writes a file that belongs to owner and that everybody in the container may read, whatever the umask of who
// started it. In place and not by rename: nobody reads it before it is bound. Raw calls, since os.File asks the
// poller first.
func writeFor(owner int, path, content string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, owner, owner); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := unix.Fchmod(fd, 0o644); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	if n, err := unix.Write(fd, []byte(content)); err != nil || n < len(content) {
		return &fs.PathError{Op: "write", Path: path, Err: cmp.Or(err, error(io.ErrShortWrite))}
	}
	return nil
}

const localHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

func (b *builder) hosts() string {
	content := localHosts
	if b.c.Host.Network == modeHost {
		if host, err := os.ReadFile("/etc/hosts"); err == nil {
			content = string(host)
		}
	}
	for _, x := range b.c.Host.ExtraHosts {
		name, addr, _ := cutHost(x)
		content += addr + "\t" + name + "\n"
	}
	return content
}

func (b *builder) resolvConf() string {
	h := &b.c.Host
	var s strings.Builder
	if h.Network == modeHost && len(h.DNS) == 0 {
		if host, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			s.Write(host)
		}
	}
	for _, a := range h.DNS {
		s.WriteString("nameserver " + a + "\n")
	}
	if len(h.DNSSearch) > 0 {
		s.WriteString("search " + strings.Join(h.DNSSearch, " ") + "\n")
	}
	if len(h.DNSOptions) > 0 {
		s.WriteString("options " + strings.Join(h.DNSOptions, " ") + "\n")
	}
	return s.String()
}
