package engine

import (
	"context"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"hull/errdef"
	"hull/volume"
)

// The types of a mount.
const (
	mountBind   = "bind"
	mountVolume = "volume"
	mountTmpfs  = "tmpfs"
	mountImage  = "image"
)

// maxMounts bounds the mounts of one container. An image can ask for volumes without end, and the program of a start
// has a register for each.
const maxMounts = 250

// MountPoint is a mount as it was settled when the container was created.
type MountPoint struct {
	Mount
	Name      string   `json:"name,omitempty"`      // of a volume
	Anonymous bool     `json:"anonymous,omitempty"` // a volume nobody chose a name for
	Borrowed  bool     `json:"borrowed,omitempty"`  // from another container, by --volumes-from
	Written   string   `json:"written,omitempty"`   // the options of -v, in the person's words
	ImageID   string   `json:"imageId,omitempty"`
	Layers    []string `json:"layers,omitempty"` // of an image: chain ids, lowest first
	Over      []string `json:"over,omitempty"`   // directories above those, lowest first, absolute
	Flag      bool     `json:"flag,omitempty"`   // of --tmpfs, which Docker does not list among the mounts
}

// parseMounts turns -v, --mount and --tmpfs into mounts by target, and refuses two for the same one.
func parseMounts(h *Host) ([]MountPoint, error) {
	var all []MountPoint
	for _, b := range h.Binds {
		m, err := parseBind(b)
		if err != nil {
			return nil, err
		}
		if m.Type == mountVolume {
			m.Driver = h.VolumeDriver
		}
		all = append(all, m)
	}
	for _, m := range h.Mounts {
		if err := checkMount(&m); err != nil {
			return nil, err
		}
		p := MountPoint{Mount: m}
		if m.Type == mountVolume {
			p.Name, p.Written = m.Source, "z" // which is what Docker shows
		}
		all = append(all, p)
	}
	for target := range h.Tmpfs {
		m := Mount{Type: mountTmpfs, Target: target}
		if err := checkMount(&m); err != nil {
			return nil, err
		}
		if _, err := tmpfsOptions(h.Tmpfs[target]); err != nil {
			return nil, err
		}
		all = append(all, MountPoint{Mount: m, Flag: true})
	}
	seen := make(map[string]bool, len(all))
	for i := range all {
		all[i].Target = path.Clean(all[i].Target)
		if seen[all[i].Target] {
			return nil, errdef.Invalid("Duplicate mount point: %s", clip(all[i].Target))
		}
		seen[all[i].Target] = true
	}
	return all, checkCount(len(all))
}

func checkCount(mounts int) error {
	if mounts > maxMounts {
		return errdef.Invalid("the container has %d mounts, more than the %d that are possible", mounts, maxMounts)
	}
	return nil
}

// parseBind reads [SOURCE:]TARGET[:OPTIONS]. A source that is no absolute path is the name of a volume.
func parseBind(s string) (MountPoint, error) {
	bad := func(why error) (MountPoint, error) {
		if why != nil {
			return MountPoint{}, errdef.Invalid("invalid volume specification: '%s': %w", clip(s), why)
		}
		return MountPoint{}, errdef.Invalid("invalid volume specification: '%s'", clip(s))
	}
	parts := strings.Split(s, ":")
	if len(parts) > 3 || slices.Contains(parts, "") || len(parts) == 2 && checkMode(parts[1]) == nil {
		return bad(nil)
	}
	m := MountPoint{Mount: Mount{Type: mountVolume, Target: parts[0]}}
	if len(parts) > 1 {
		m.Source, m.Target = parts[0], parts[1]
	}
	if path.IsAbs(m.Source) {
		m.Type, m.Source, m.CreateHost = mountBind, path.Clean(m.Source), true
	} else if m.Source != "" {
		m.Name, m.Written = m.Source, "z"
	}
	if len(parts) == 3 {
		m.Written = parts[2]
		if err := checkMode(m.Written); err != nil {
			return MountPoint{}, err
		}
		for o := range strings.SplitSeq(m.Written, ",") {
			switch modeKind(o) {
			case "access":
				m.ReadOnly = o == "ro"
			case "propagation":
				m.Propagation = o
			case "copy":
				m.NoCopy = true
			}
		}
	}
	if err := checkMount(&m.Mount); err != nil {
		if m.Type == mountVolume && m.Source != "" && volume.CheckName(m.Source) != nil {
			return MountPoint{}, err // the name is what is wrong, and Docker says no more
		}
		return bad(err)
	}
	return m, nil
}

// checkMode allows one word of each kind in the options of -v.
func checkMode(mode string) error {
	seen := make(map[string]bool, 4)
	for o := range strings.SplitSeq(mode, ",") {
		kind := modeKind(o)
		if kind == "" || seen[kind] {
			return errdef.Invalid("invalid mode: %s", clip(mode))
		}
		seen[kind] = true
	}
	return nil
}

// modeKind is what an option of -v is about; "" if there is no such option. Labels are SELinux's, and consistency was
// for Docker on the Mac: both are without effect here.
func modeKind(o string) string {
	switch o {
	case "ro", "rw":
		return "access"
	case "z", "Z":
		return "label"
	case "private", "rprivate", "shared", "rshared", "slave", "rslave":
		return "propagation"
	case "consistent", "cached", "delegated":
		return "consistency"
	case "nocopy":
		return "copy"
	}
	return ""
}

// checkMount refuses a mount that could not be made, in Docker's words.
func checkMount(m *Mount) error {
	bad := func(format string, a ...any) error {
		return errdef.Invalid("invalid mount config for type %q: %w", clip(m.Type), errdef.Invalid(format, a...))
	}
	if err := noControl("mount target", m.Target); err != nil {
		return err
	}
	volumes := m.NoCopy || m.Driver != "" || len(m.DriverOptions)+len(m.Labels) > 0
	switch {
	case !contains("bind volume tmpfs image", m.Type):
		return errdef.Invalid("mount type unknown: %q", clip(m.Type))
	case m.Target == "":
		return bad("field Target must not be empty")
	case !path.IsAbs(m.Target):
		return bad("invalid mount path: '%s' mount path must be absolute", clip(m.Target))
	case path.Clean(m.Target) == "/":
		return bad("invalid specification: destination can't be '/'")
	case strings.ContainsRune(m.Source, 0):
		return bad("the source has a NUL byte")
	case m.Type != mountVolume && volumes:
		return bad("field VolumeOptions must not be specified")
	case m.Type != mountBind && (m.Propagation != "" || m.NoRecurse || m.TopReadOnly || m.AllReadOnly):
		return bad("field BindOptions must not be specified")
	case m.Type != mountTmpfs && (m.Size != 0 || m.Mode != 0 || len(m.Options) > 0):
		return bad("field TmpfsOptions must not be specified")
	}
	switch m.Type {
	case mountBind:
		return checkBind(m, bad)
	case mountVolume:
		return checkVolume(m, bad)
	case mountImage:
		if m.Source == "" {
			return bad("field Source must not be empty")
		}
	case mountTmpfs:
		if m.Source != "" {
			return bad("field Source must not be specified")
		}
		if m.Size < 0 {
			return bad("the size is negative")
		}
		if _, err := tmpfsOptions(strings.Join(m.Options, ",")); err != nil {
			return bad("%w", err)
		}
	}
	return checkSubpath(m, bad)
}

func checkBind(m *Mount, bad func(string, ...any) error) error {
	switch {
	case m.Source == "":
		return bad("field Source must not be empty")
	case !path.IsAbs(m.Source):
		return bad("invalid mount path: '%s' mount path must be absolute", clip(m.Source))
	case m.Propagation != "" && modeKind(m.Propagation) != "propagation":
		return bad("invalid propagation mode: %s", clip(m.Propagation))
	case m.TopReadOnly && m.AllReadOnly:
		return bad("ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other")
	case m.Subpath != "":
		return bad("a bind has no subpath")
	}
	return nil
}

func checkVolume(m *Mount, bad func(string, ...any) error) error {
	switch {
	case m.Source == "" && m.Subpath != "":
		return bad("must not set Subpath when using anonymous volumes")
	case m.Source == "" && m.ReadOnly:
		return bad("must not set ReadOnly mode when using anonymous volumes")
	case m.Source != "":
		if err := volume.CheckName(m.Source); err != nil {
			return err
		}
	}
	return checkSubpath(m, bad)
}

func checkSubpath(m *Mount, bad func(string, ...any) error) error {
	if m.Subpath != "" && !filepath.IsLocal(m.Subpath) || strings.ContainsRune(m.Subpath, 0) {
		return bad("subpath must be a relative path within the %s", m.Type)
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

// settleMounts decides what the container's mounts are, by Docker's rules of precedence: what --volumes-from brings is
// replaced by what is asked for at the same place, and neither the image's nor a person's anonymous volumes go where
// something is mounted already.
func (e *Engine) settleMounts(ctx context.Context, r *record) error {
	asked, err := parseMounts(&r.Host)
	if err != nil {
		return err
	}
	all, err := e.volumesFrom(ctx, r.Host.VolumesFrom)
	if err != nil {
		return err
	}
	for _, m := range asked {
		all = slices.DeleteFunc(all, func(o MountPoint) bool { return o.Target == m.Target })
		all = append(all, m)
	}
	for _, target := range r.Config.Volumes {
		m := MountPoint{Mount: Mount{Type: mountVolume, Target: path.Clean(target), Driver: r.Host.VolumeDriver}}
		if err := checkMount(&m.Mount); err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(o MountPoint) bool { return o.Target == m.Target }) {
			all = append(all, m)
		}
	}
	for i := range all {
		m := &all[i]
		switch {
		case m.Type == mountVolume && m.Name == "":
			m.Name, m.Anonymous = newID(), true
		case m.Type == mountImage:
			err = e.settleImage(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	r.Mounts = all
	return checkCount(len(all))
}

// settleImage resolves the image of a mount. The caller holds a lease, so that its layers stay.
func (e *Engine) settleImage(ctx context.Context, m *MountPoint) error {
	img, err := e.resolve(ctx, m.Source)
	if err != nil {
		return err
	}
	m.ImageID = img.ID
	for _, l := range img.Layers {
		m.Layers = append(m.Layers, l.ChainID)
	}
	return nil
}

// volumesFrom are the binds and volumes of other containers, each CONTAINER[:MODE], the later ones on top.
func (e *Engine) volumesFrom(ctx context.Context, specs []string) ([]MountPoint, error) {
	var all []MountPoint
	for _, s := range specs {
		name, mode, hasMode := strings.Cut(s, ":")
		if name == "" {
			return nil, errdef.Invalid("malformed volumes-from specification: empty container name")
		}
		if hasMode && checkMode(mode) != nil || strings.Contains(mode, "nocopy") {
			return nil, errdef.Invalid("invalid mode for volumes-from: %s", clip(mode))
		}
		c, err := e.use(ctx, name)
		if err != nil {
			return nil, err
		}
		readOnly := slices.Contains(strings.Split(mode, ","), "ro")
		for _, m := range c.Mounts {
			if m.Type != mountBind && m.Type != mountVolume {
				continue
			}
			m.ReadOnly = m.ReadOnly || readOnly
			m.Borrowed = true
			all = slices.DeleteFunc(all, func(o MountPoint) bool { return o.Target == m.Target })
			all = append(all, m)
		}
	}
	return all, nil
}
