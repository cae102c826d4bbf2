package cli

import (
	"path"
	"path/filepath"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// bind checks -v SOURCE:TARGET[:OPTIONS] and returns it with an absolute source.
func bind(s string) (string, error) {
	parts := strings.Split(s, ":")
	if len(parts) > 3 {
		return "", errdef.Invalid("invalid volume specification: '%s': too many colons", s)
	}
	for _, p := range parts {
		if p == "" {
			return "", errdef.Invalid("invalid volume specification: '%s': an empty section between colons", s)
		}
	}
	if len(parts) == 1 {
		return "", errdef.NotImplemented("-v %s asks for an anonymous volume, and this version has no volumes yet; use -v DIRECTORY:%s or --tmpfs %s", s, s, s)
	}
	source, target := parts[0], parts[1]
	switch {
	case source == ".", source == "..", strings.HasPrefix(source, "./"), strings.HasPrefix(source, "../"):
		abs, err := filepath.Abs(source)
		if err != nil {
			return "", err
		}
		source = abs
	case !path.IsAbs(source) && !strings.Contains(source, "/"):
		return "", errdef.NotImplemented("-v %s names the volume %q, and this version has no volumes yet; a directory begins with / or ./", s, source)
	case !path.IsAbs(source):
		return "", errdef.Invalid("invalid volume specification: '%s': a directory begins with / or ./", s)
	}
	if err := checkTarget(target); err != nil {
		return "", errdef.Invalid("invalid volume specification: '%s': %w", s, err)
	}
	out := source + ":" + target
	if len(parts) == 3 {
		if err := checkBindOptions(parts[2]); err != nil {
			return "", errdef.Invalid("invalid volume specification: '%s': %w", s, err)
		}
		out += ":" + parts[2]
	}
	return out, nil
}

func checkTarget(target string) error {
	switch {
	case !path.IsAbs(target):
		return errdef.Invalid("the path in the container is not absolute")
	case path.Clean(target) == "/":
		return errdef.Invalid("destination can't be '/'")
	case strings.Contains(target, "\x00"):
		return errdef.Invalid("a path cannot contain a zero byte")
	}
	return nil
}

// checkBindOptions allows one word of each kind.
func checkBindOptions(s string) error {
	seen := map[string]string{}
	for _, o := range strings.Split(s, ",") {
		kind := bindOption(o)
		if kind == "" {
			return errdef.Invalid("invalid mode: %s", s)
		}
		if other, dup := seen[kind]; dup {
			return errdef.Invalid("invalid mode: %s: both %s and %s", s, other, o)
		}
		seen[kind] = o
	}
	return nil
}

func bindOption(o string) string {
	switch o {
	case "ro", "rw":
		return "access"
	case "z", "Z":
		return "label"
	case "shared", "rshared", "slave", "rslave", "private", "rprivate":
		return "propagation"
	case "consistent", "cached", "delegated":
		return "consistency"
	case "nocopy":
		return "copy"
	}
	return ""
}

// tmpfs splits --tmpfs TARGET[:OPTIONS]; the options are the kernel's and checked where the mount is made.
func tmpfs(s string) (target, options string, err error) {
	target, options, _ = strings.Cut(s, ":")
	if err := checkTarget(target); err != nil {
		return "", "", errdef.Invalid("invalid tmpfs '%s': %w", s, err)
	}
	return target, options, nil
}

// device parses --device HOST[:CONTAINER[:rwm]] or HOST:rwm.
func device(s string) (container.DeviceMapping, error) {
	bad := func(why string) (container.DeviceMapping, error) {
		return container.DeviceMapping{}, errdef.Invalid("invalid device specification: %s: %s", s, why)
	}
	if !strings.HasPrefix(s, "/") && strings.Contains(s, "=") {
		return container.DeviceMapping{}, errdef.NotImplemented("--device %s names a CDI device, and this version reads no CDI specifications yet", s)
	}
	parts := strings.Split(s, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch len(parts) {
	case 1:
	case 2:
		if deviceMode(parts[1]) {
			d.CgroupPermissions = parts[1]
		} else {
			d.PathInContainer = parts[1]
		}
	case 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	default:
		return bad("too many colons")
	}
	if !path.IsAbs(d.PathOnHost) || !path.IsAbs(d.PathInContainer) {
		return bad("a path is not absolute")
	}
	if strings.Contains(s, "\x00") {
		return bad("a path cannot contain a zero byte")
	}
	if !deviceMode(d.CgroupPermissions) {
		return bad("permissions are some of r, w and m")
	}
	return d, nil
}

func deviceMode(s string) bool {
	for i, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(s[:i], c) {
			return false
		}
	}
	return s != ""
}
