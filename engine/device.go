package engine

import (
	"errors"
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

// checkDevices checks the words of --device and --device-cgroup-rule; whether a device exists is seen at start.
func checkDevices(h *Host) error {
	for _, d := range h.Devices {
		if !path.IsAbs(d.Host) || !path.IsAbs(d.Container) || strings.ContainsRune(d.Host+d.Container, 0) {
			return errdef.Invalid("invalid device %q: the paths must be absolute", clip(d.Host+":"+d.Container))
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			return errdef.Invalid("invalid device permissions %q: want letters of rwm", clip(d.Permissions))
		}
		if os.Geteuid() != 0 && path.Clean(d.Host) != path.Clean(d.Container) {
			return errdef.Forbidden("an ordinary user cannot make device nodes, and has those of the host under their own names only: --device %s, not %s", clip(d.Host), clip(d.Host+":"+d.Container))
		}
	}
	for _, r := range h.DeviceRules {
		if _, err := parseDeviceRule(r); err != nil {
			return err
		}
	}
	return nil
}

// parseDeviceRule reads "c 10:200 rwm"; * stands for any number.
func parseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	bad := errdef.Invalid("invalid device cgroup rule: '%s'", clip(s))
	f := strings.Fields(s)
	if len(f) != 3 || !contains("a b c", f[0]) || strings.Trim(f[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return specs.LinuxDeviceCgroup{}, bad
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[2]}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 31)
		if err != nil {
			return specs.LinuxDeviceCgroup{}, bad
		}
		*n.to = new(int64(v))
	}
	return r, nil
}

// devices fills in the device nodes the container gets beside the usual ones, which the runtime makes, and the
// rules of its cgroup: everything is denied but what is named.
func (b *builder) devices() error {
	h := &b.c.Host
	if h.Privileged {
		b.rules(specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
		if b.ids != nil { // an ordinary user's: there is no right to make nodes
			return nil
		}
		return b.hostDevices("/dev")
	}
	b.rules(specs.LinuxDeviceCgroup{Access: "rwm"},
		rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
		rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"), rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"),
		rule("c", 5, 0, "rwm"), rule("c", 5, 1, "rwm"), rule("c", 5, 2, "rwm"), rule("c", 136, -1, "rwm"))
	for _, d := range h.Devices {
		if err := b.device(d); err != nil {
			return err
		}
	}
	for _, s := range h.DeviceRules {
		r, err := parseDeviceRule(s)
		if err != nil {
			return err
		}
		b.rules(r)
	}
	return nil
}

func (b *builder) rules(r ...specs.LinuxDeviceCgroup) {
	b.spec.Linux.Resources.Devices = append(b.spec.Linux.Resources.Devices, r...)
}

// rule allows a device; -1 is any number.
func rule(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// device gives one device, or all below a directory.
func (b *builder) device(d Device) error {
	if d.Permissions == "" {
		d.Permissions = "rwm"
	}
	found := false
	err := eachDevice(d.Host, func(p string, st *unix.Stat_t) {
		found = true
		rel, _ := filepath.Rel(d.Host, p)
		dev := linuxDevice(path.Join(d.Container, rel), st)
		b.spec.Linux.Devices = append(b.spec.Linux.Devices, dev)
		b.rules(rule(dev.Type, dev.Major, dev.Minor, d.Permissions))
	})
	if err != nil {
		return errdef.Invalid("error gathering device information while adding custom device %q: %w", clip(d.Host), err)
	}
	if !found {
		return errdef.Invalid("error gathering device information while adding custom device %q: not a device node", clip(d.Host))
	}
	return nil
}

// hostDevices gives all devices of the host but terminals' and what has a file system of its own.
func (b *builder) hostDevices(dir string) error {
	return eachDevice(dir, func(p string, st *unix.Stat_t) {
		if p == "/dev/console" || p == "/dev/ptmx" {
			return
		}
		b.spec.Linux.Devices = append(b.spec.Linux.Devices, linuxDevice(p, st))
	})
}

// eachDevice calls yield for the device node p, or those below the directory p. Symbolic links are followed for p
// alone, as in /dev/disk/by-id.
func eachDevice(p string, yield func(path string, st *unix.Stat_t)) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return err
	}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		yield(p, &st)
		return nil
	} else if t != unix.S_IFDIR {
		return nil
	}
	return filepath.WalkDir(p, func(q string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return nil // devices come and go
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"}, d.Name()):
			return fs.SkipDir
		case d.Type()&os.ModeDevice == 0:
			return nil
		}
		if unix.Lstat(q, &st) == nil {
			yield(q, &st)
		}
		return nil
	})
}

func linuxDevice(p string, st *unix.Stat_t) specs.LinuxDevice {
	mode := os.FileMode(st.Mode & 0o777)
	d := specs.LinuxDevice{Path: p, Type: "c", Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))),
		FileMode: &mode, UID: new(st.Uid), GID: new(st.Gid)}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		d.Type = "b"
	}
	return d
}
