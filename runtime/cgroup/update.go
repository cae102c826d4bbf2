package cgroup

import (
	"errors"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Set changes the limits of a group that may be in use; what res does not mention stays as it is. After an error the
// limits are the old ones. For a moment device rules of v1 are narrower than both the old and the new ones, and they
// alone stay changed if their own second half fails. Warnings and errors are as in Make.
func (g *Group) Set(res *specs.LinuxResources) (warnings []string, err error) {
	old, err := g.Before(res)
	if err != nil {
		return nil, err
	}
	warnings, err = g.setLimits(res)
	if err == nil && res.Devices != nil {
		var notes []string
		notes, err = g.setDevices(res.Devices)
		warnings = append(warnings, notes...)
	}
	if err != nil {
		return nil, errors.Join(err, old.Restore())
	}
	return warnings, nil
}

// Former is what control files hold before they are written: an undo log, for callers that may be killed in between.
type Former []FormerFile

// FormerFile is one write that brings an old value back.
type FormerFile struct {
	Dir   string `json:"dir"` // absolute
	File  string `json:"file"`
	Value string `json:"value"`
}

// Before reads what Set(res) would replace, devices left out.
func (g *Group) Before(res *specs.LinuxResources) (Former, error) {
	plan, _, err := g.plan(res)
	if err != nil {
		return nil, err
	}
	var f Former
	for _, p := range plan {
		for _, l := range p.limits {
			f.keep(p.dir, l)
		}
	}
	return f, nil
}

// keep adds what writing l in dir would replace. A file that cannot be read is missing, or nothing is written to it.
func (f *Former) keep(dir string, l limit) {
	if dir == "" {
		return
	}
	name := l.file
	text, err := get(dir + "/" + name)
	if gone(err) && l.orFile != "" {
		name = l.orFile
		text, err = get(dir + "/" + name)
	}
	if err == nil {
		*f = append(*f, FormerFile{dir, name, formerValue(name, text, l.value)})
	}
}

// Restore writes everything back, as far as it can. The order is that of the writes: where two bound one another
// writeLimits finds the way.
func (f Former) Restore() error {
	var errs []error
	for len(f) > 0 {
		var limits []limit
		n := 0
		for n < len(f) && f[n].Dir == f[0].Dir {
			limits = append(limits, limit{file: f[n].File, value: f[n].Value})
			n++
		}
		_, err := writeLimits(f[0].Dir, limits)
		errs = append(errs, err)
		f = f[n:]
	}
	return errors.Join(errs...)
}

// formerValue is what to write to the file name so that it holds text again, as far as writing now changed it.
func formerValue(name, text, now string) string {
	key, _, many := strings.Cut(now, " ")
	switch {
	case name == "memory.oom_control":
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(line, "oom_kill_disable "); ok {
				return strings.TrimSpace(v)
			}
		}
		return "0"
	case many && strings.Contains(key, ":"): // a file with a line for each device
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, key+" ") {
				return strings.TrimSuffix(line, "\n")
			}
		}
		return key + " " + noDeviceLimit(name)
	case strings.HasSuffix(name, "weight"): // the first line is that of all other devices
		first, _, _ := strings.Cut(text, "\n")
		return first
	case text == "":
		return "\n" // an empty write would be none
	}
	return text
}

// noDeviceLimit is what takes the line of a device out of a file.
func noDeviceLimit(name string) string {
	switch name {
	case "io.max":
		return "rbps=max wbps=max riops=max wiops=max"
	case "io.weight", "io.bfq.weight":
		return "default"
	}
	return "0"
}
