package volume

import (
	"maps"
	"path"
	"slices"
	"strings"

	"hull/errdef"
)

// maxName is what a directory entry can hold.
const maxName = 255

// maxText bounds what a person hangs on a volume: labels and options, in bytes.
const maxText = 1 << 20

// CheckName holds the name of a volume to Docker's rule, in Docker's words; it becomes a directory entry.
func CheckName(name string) error {
	if len(name) == 1 {
		return errdef.Invalid("create %s: volume name is too short, names should be at least two alphanumeric characters", clip(name))
	}
	ok := len(name) >= 2 && len(name) <= maxName
	for i, c := range []byte(name) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (alnum || i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if !ok {
		return errdef.Invalid("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", clip(name), clip(name))
	}
	return nil
}

// clip keeps what is quoted back to a person readable.
func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// Check refuses a volume that could not be made or never be mounted.
func (o *Spec) Check() error {
	if err := CheckName(o.Name); err != nil {
		return err
	}
	if o.Driver != "" && o.Driver != Driver {
		return errdef.NotFound("create %s: error looking up volume plugin %s: plugin %q not found: this Hull has the driver local", o.Name, clip(o.Driver), clip(o.Driver))
	}
	size := 0
	for k, v := range o.Labels {
		if k == "" || strings.ContainsRune(k+v, 0) {
			return errdef.Invalid("create %s: invalid label %q: an empty name or a NUL byte", o.Name, clip(k))
		}
		size += len(k) + len(v)
	}
	for k, v := range o.Options {
		size += len(k) + len(v)
	}
	if size > maxText {
		return errdef.Invalid("create %s: labels and options have %d bytes together, more than the %d that are allowed", o.Name, size, maxText)
	}
	return checkOptions(o.Name, o.Options)
}

// checkOptions holds the driver's options to Docker's rules. What of them the kernel takes shows at the mount.
func checkOptions(name string, opts map[string]string) error {
	bad := func(format string, a ...any) error {
		return errdef.Invalid("create %s: %w", name, errdef.Invalid(format, a...))
	}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		switch k {
		case "type", "device", "o":
		case "size":
			return errdef.NotImplemented("create %s: quota size requested but no quota support", name)
		default:
			return bad("invalid option: %q", clip(k))
		}
		if strings.ContainsFunc(opts[k], func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return bad("option %s: control characters are not allowed", k)
		}
	}
	for _, need := range []struct{ have, want string }{{"o", "device"}, {"o", "type"}, {"type", "device"}, {"device", "type"}} {
		if opts[need.have] != "" && opts[need.want] == "" {
			return bad("missing required option: %q", need.want)
		}
	}
	v := Volume{Options: opts}
	if m := v.Mount(); m != nil && m.Bind && !path.IsAbs(m.Device) {
		return bad("the device of a bind must be an absolute path, not %q", clip(m.Device))
	}
	return nil
}

// Mount is the file system that a volume with options stands for, in place of a directory of its own.
type Mount struct {
	Type, Device string
	Options      []string // the words of o, those that say bind left out
	Bind         bool     // Device is a directory of the host
	Recursive    bool     // with what is mounted below it
}

// Mount returns what the options of the driver ask to be mounted; nil for a plain volume.
func (v *Volume) Mount() *Mount {
	if v.Options["type"] == "" {
		return nil
	}
	m := &Mount{Type: v.Options["type"], Device: v.Options["device"]}
	for o := range strings.SplitSeq(v.Options["o"], ",") {
		switch o {
		case "":
		case "bind":
			m.Bind = true
		case "rbind":
			m.Bind, m.Recursive = true, true
		default:
			m.Options = append(m.Options, o)
		}
	}
	return m
}
