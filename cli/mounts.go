package cli

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// bind reads -v [SOURCE:]TARGET[:OPTIONS]. A directory of the host gets an absolute path; an anonymous volume, which has
// a target only, is told apart. What else is wrong with it the engine says.
func bind(s string) (spec string, anonymous bool, err error) {
	parts := strings.Split(s, ":")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return "", false, errdef.Invalid("invalid volume specification: '%s'", s)
	}
	target := parts[min(len(parts)-1, 1)]
	if err := checkTarget(target); err != nil {
		return "", false, errdef.Invalid("invalid volume specification: '%s': %w", s, err)
	}
	if len(parts) == 1 {
		return target, true, nil
	}
	source := parts[0]
	if source == "." || source == ".." || strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../") {
		if parts[0], err = filepath.Abs(source); err != nil {
			return "", false, err
		}
	}
	return strings.Join(parts, ":"), false, nil
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
