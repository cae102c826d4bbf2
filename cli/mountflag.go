package cli

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// mountFlag is --mount key=value,..., which may be given again.
type mountFlag []mount.Mount

func (m *mountFlag) String() string { return "" }
func (m *mountFlag) Type() string   { return "mount" }

func (m *mountFlag) Set(s string) error {
	s = strings.TrimSpace(s)
	if s == "" {
		return errdef.Invalid("value is empty")
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	one := mount.Mount{Type: mount.TypeVolume}
	for _, f := range fields {
		if err := setMountField(&one, f); err != nil {
			return err
		}
	}
	if err := checkMountFlag(&one); err != nil {
		return err
	}
	*m = append(*m, one)
	return nil
}

// setMountField reads one key=value. Words that switch something on may stand alone.
func setMountField(m *mount.Mount, field string) error {
	key, value, hasValue := strings.Cut(field, "=")
	key = strings.ToLower(key)
	if !hasValue {
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
			value = "true"
		default:
			return errdef.Invalid("invalid field '%s' must be a key=value pair", field)
		}
	}
	kind, option, _ := strings.Cut(key, "-")
	var known bool
	var err error
	switch kind {
	case "bind":
		known, err = setBindField(m, option, value)
	case "volume":
		known, err = setVolumeField(m, option, value)
	case "image":
		if known = option == "subpath"; known {
			m.ImageOptions = &mount.ImageOptions{Subpath: value}
		}
	case "tmpfs":
		known, err = setTmpfsField(m, option, value)
	default:
		known, err = setCommonField(m, key, value)
	}
	switch {
	case !known:
		return errdef.Invalid("unexpected key '%s' in '%s'", key, field)
	case err != nil:
		return errdef.Invalid("invalid value for %s: %s", key, value)
	}
	return nil
}

func setCommonField(m *mount.Mount, key, value string) (known bool, err error) {
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		m.Source = value
		if value == "." || value == ".." || strings.HasPrefix(value, "./") || strings.HasPrefix(value, "../") {
			m.Source, err = filepath.Abs(value)
		}
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly, err = strconv.ParseBool(value)
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(value))
	default:
		return false, nil
	}
	return true, err
}

func setBindField(m *mount.Mount, key, value string) (known bool, err error) {
	if m.BindOptions == nil {
		m.BindOptions = new(mount.BindOptions)
	}
	o := m.BindOptions
	switch key {
	case "propagation":
		o.Propagation = mount.Propagation(strings.ToLower(value))
	case "nonrecursive":
		o.NonRecursive, err = strconv.ParseBool(value)
	case "create-src":
		o.CreateMountpoint, err = strconv.ParseBool(value)
	case "recursive":
		switch value {
		case "enabled": // read-only as far as the kernel can
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			err = strconv.ErrSyntax
		}
	default:
		return false, nil
	}
	return true, err
}

func setVolumeField(m *mount.Mount, key, value string) (known bool, err error) {
	if m.VolumeOptions == nil {
		m.VolumeOptions = new(mount.VolumeOptions)
	}
	o := m.VolumeOptions
	if (key == "driver" || key == "opt") && o.DriverConfig == nil {
		o.DriverConfig = new(mount.Driver)
	}
	switch key {
	case "subpath":
		o.Subpath = value
	case "nocopy":
		o.NoCopy, err = strconv.ParseBool(value)
	case "label":
		err = (*mapFlag)(&o.Labels).Set(value)
	case "driver":
		o.DriverConfig.Name = value
	case "opt":
		err = (*mapFlag)(&o.DriverConfig.Options).Set(value)
	default:
		return false, nil
	}
	return true, err
}

func setTmpfsField(m *mount.Mount, key, value string) (known bool, err error) {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = new(mount.TmpfsOptions)
	}
	switch key {
	case "size":
		m.TmpfsOptions.SizeBytes, err = units.RAMInBytes(value)
	case "mode":
		var mode uint64
		mode, err = strconv.ParseUint(value, 8, 32)
		m.TmpfsOptions.Mode = os.FileMode(mode)
	default:
		return false, nil
	}
	return true, err
}

// checkMountFlag finds what contradicts itself in terms of the flag; the rest is the engine's to refuse.
func checkMountFlag(m *mount.Mount) error {
	mixed := func(options string) error {
		return errdef.Invalid("cannot mix '%s-*' options with mount type '%s'", options, m.Type)
	}
	b := m.BindOptions
	switch {
	case m.Type == "":
		return errdef.Invalid("type is required")
	case m.Target == "":
		return errdef.Invalid("target is required")
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return mixed("volume")
	case b != nil && m.Type != mount.TypeBind:
		return mixed("bind")
	case m.ImageOptions != nil && m.Type != mount.TypeImage:
		return mixed("image")
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return mixed("tmpfs")
	case b != nil && b.ReadOnlyNonRecursive && !m.ReadOnly:
		return errdef.Invalid("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	case b != nil && b.ReadOnlyForceRecursive && !m.ReadOnly:
		return errdef.Invalid("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	case b != nil && b.ReadOnlyForceRecursive && b.Propagation != mount.PropagationRPrivate:
		// Otherwise what the host mounts later would be writable.
		return errdef.Invalid("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	return nil
}
