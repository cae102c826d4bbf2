package image

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"hull/errdef"
	"hull/image/tree"
	"hull/state"
)

// Comparison is how one image became another. It keeps both in the store until Close.
//
//	c, err := s.Compare(ctx, "app@{1}", "app")
//	defer c.Close()
//	for _, d := range c.Config { ... }
//	sum, err := c.Files(ctx, func(f *tree.Change) error { ... })
type Comparison struct {
	Old, New *Image
	Config   []Setting // what differs, in the order in which people read it
	s        *Store
	lease    *state.Locked
}

// Setting is one part of the configuration that differs.
type Setting struct {
	Field string // as in the configuration: User, Env, ExposedPorts, ...
	Key   string // of what has several: the variable, the label, the port, the volume
	Kind  tree.Kind
	Old   string
	New   string
}

// Compare resolves two images and compares their configurations. The names may be places in logs.
func (s *Store) Compare(ctx context.Context, old, young string) (_ *Comparison, err error) {
	c := &Comparison{s: s}
	if c.lease, err = s.Lease(ctx); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		img  **Image
		name string
	}{{&c.Old, old}, {&c.New, young}} {
		if *one.img, err = s.Resolve(ctx, one.name); err != nil {
			c.lease.Unlock()
			return nil, err
		}
	}
	c.Config = settings(&c.Old.Config, &c.New.Config)
	return c, nil
}

// Close lets go of the images.
func (c *Comparison) Close() { c.lease.Unlock() }

func treeOf(img *Image) *tree.Tree {
	layers := make([]tree.Layer, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = tree.Layer{ID: l.ChainID, Dir: l.Dir}
	}
	return tree.New(layers)
}

// FileSummary is what there was to see in the files.
type FileSummary struct {
	Added, Changed, Deleted int
	Bytes                   int64 // of regular files: how much more the new tree has
	Unreadable              int   // files that an ordinary user could not look into: taken for unchanged
	Findings                []Finding
}

// Finding is something that a person who ships the new image should know of.
type Finding struct {
	Rule string // one of Rules
	Text string
}

// The rules of findings.
const (
	RuleSetuid        = "setuid"         // a file that is now setuid or setgid
	RuleCapabilities  = "capabilities"   // a file that now has capabilities, or others
	RuleWorldWritable = "world-writable" // a file or directory that now everybody may write to
	RuleDevice        = "device"         // a device that was not there
	RuleRootUser      = "root-user"      // the new image runs as root, whether or not the old one did
	RulePorts         = "ports"          // a port is exposed that was not
	RuleCommand       = "command"        // the entrypoint or the command is another one
	RuleDowngrade     = "downgrade"      // a package is older than it was; only a changelog knows
)

// Rules returns all rules.
func Rules() []string {
	return []string{RuleSetuid, RuleCapabilities, RuleWorldWritable, RuleDevice, RuleRootUser, RulePorts, RuleCommand, RuleDowngrade}
}

// maxFindings bounds what is said of one rule.
const maxFindings = 1000

// Files calls f with each path that differs, directories before what is in them. An error of f ends it. The findings are
// those of files and of the configuration.
func (c *Comparison) Files(ctx context.Context, f func(*tree.Change) error) (*FileSummary, error) {
	sum := &FileSummary{Findings: c.configFindings()}
	counts := map[string]int{}
	add := func(rule, format string, args ...any) {
		if counts[rule]++; counts[rule] <= maxFindings {
			sum.Findings = append(sum.Findings, Finding{rule, fmt.Sprintf(format, args...)})
		}
	}
	stats, err := tree.Diff(ctx, treeOf(c.Old), treeOf(c.New), func(ch *tree.Change) error {
		switch ch.Kind {
		case tree.Added:
			sum.Added++
		case tree.Changed:
			sum.Changed++
		case tree.Deleted:
			sum.Deleted++
		}
		if ch.New != nil {
			sum.Bytes += ch.New.Size
			fileFindings(ch, add)
		}
		if ch.Old != nil {
			sum.Bytes -= ch.Old.Size
		}
		return f(ch)
	})
	sum.Unreadable = stats.Unreadable
	return sum, err
}

func fileFindings(c *tree.Change, add func(rule, format string, args ...any)) {
	e := c.New
	if e.Setuid() && (!c.Old.Setuid() || slices.Contains(c.What, "owner")) {
		add(RuleSetuid, "%s has mode %04o and owner %s", c.Path, e.Mode, owner(e))
	}
	if e.Capabilities() && (c.Old == nil || c.Old.Xattrs["security.capability"] != e.Xattrs["security.capability"]) {
		add(RuleCapabilities, "%s has file capabilities", c.Path)
	}
	if open := worldWritable(e); open && !worldWritable(c.Old) {
		add(RuleWorldWritable, "%s has mode %04o", c.Path, e.Mode)
	}
	if e.Type&fs.ModeDevice != 0 && (c.Old == nil || c.Old.Type != e.Type || c.Old.Device != e.Device) {
		add(RuleDevice, "%s is a device", c.Path)
	}
}

func owner(e *tree.Entry) string {
	if e.UID < 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d:%d", e.UID, e.GID)
}

// worldWritable: a directory with the sticky bit, such as /tmp, lets nobody remove what others have.
func worldWritable(e *tree.Entry) bool {
	if e == nil || e.Mode&0o002 == 0 {
		return false
	}
	return e.Type == 0 || e.Type == fs.ModeDir && e.Mode&0o1000 == 0
}

func (c *Comparison) configFindings() []Finding {
	out := []Finding{}
	if why := runsAsRoot(treeOf(c.New), c.New.Config.Run.User); why != "" {
		out = append(out, Finding{RuleRootUser, why})
	}
	for _, s := range c.Config {
		switch {
		case s.Field == "ExposedPorts" && s.Kind == tree.Added:
			out = append(out, Finding{RulePorts, "port " + s.Key + " is exposed"})
		case s.Field == "Entrypoint" || s.Field == "Cmd":
			out = append(out, Finding{RuleCommand, fmt.Sprintf("%s was %s and is %s", s.Field, cmp.Or(s.Old, "not set"), cmp.Or(s.New, "not set"))})
		}
	}
	return out
}

// Content compares one file line by line: the unified difference, "" if there is none. The error says why the file
// cannot be compared so.
func (c *Comparison) Content(path string) (string, error) {
	var texts [2][]byte
	names := [2]string{"/dev/null", "/dev/null"}
	for i, img := range []*Image{c.Old, c.New} {
		f, e, err := treeOf(img).Open(path)
		if err == nil {
			texts[i], err = tree.Text(f, e)
			names[i] = fmt.Sprintf("%s %s", path, short(img.ID))
			if f != nil {
				f.Close()
			}
			if err != nil {
				return "", fmt.Errorf("%s of %s %w", path, short(img.ID), err)
			}
			continue
		}
		if !os.IsNotExist(err) {
			return "", errdef.As(errdef.ErrInvalid, err)
		}
	}
	if names[0] == names[1] {
		return "", errdef.NotFound("neither image has a file %s", path)
	}
	return tree.Unified(names[0], names[1], texts[0], texts[1]), nil
}

// settings lists what differs in what the images run and how.
func settings(a, b *Config) []Setting {
	var d settingDiff
	x, y := &a.Run, &b.Run
	d.text("Platform", platformOf(a), platformOf(b))
	d.text("User", x.User, y.User)
	d.text("Entrypoint", commandText(x.Entrypoint), commandText(y.Entrypoint))
	d.text("Cmd", commandText(x.Cmd), commandText(y.Cmd))
	d.text("WorkingDir", x.WorkingDir, y.WorkingDir)
	d.each("Env", environment(x.Env), environment(y.Env))
	d.each("ExposedPorts", keys(x.ExposedPorts), keys(y.ExposedPorts))
	d.each("Volumes", keys(x.Volumes), keys(y.Volumes))
	d.each("Labels", x.Labels, y.Labels)
	d.text("StopSignal", x.StopSignal, y.StopSignal)
	d.text("StopTimeout", asJSON(x.StopTimeout), asJSON(y.StopTimeout))
	d.text("Healthcheck", asJSON(x.Healthcheck), asJSON(y.Healthcheck))
	d.text("Shell", commandText(x.Shell), commandText(y.Shell))
	d.text("OnBuild", commandText(x.OnBuild), commandText(y.OnBuild))
	return d.list
}

// settingDiff collects settings that differ.
type settingDiff struct{ list []Setting }

func (d *settingDiff) text(field, old, young string) {
	d.one(field, "", old, young, old != "", young != "")
}

func (d *settingDiff) one(field, key, old, young string, had, has bool) {
	s := Setting{Field: field, Key: key, Kind: tree.Changed, Old: old, New: young}
	switch {
	case had == has && old == young:
		return
	case !had:
		s.Kind = tree.Added
	case !has:
		s.Kind = tree.Deleted
	}
	d.list = append(d.list, s)
}

func (d *settingDiff) each(field string, old, young map[string]string) {
	all := maps.Clone(old)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, young)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		x, had := old[key]
		y, has := young[key]
		d.one(field, key, x, y, had, has)
	}
}

func platformOf(c *Config) string {
	return platformOfConfig(c).String()
}

func environment(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, e := range list {
		k, v, _ := strings.Cut(e, "=")
		m[k] = v
	}
	return m
}

func keys(m map[string]struct{}) map[string]string {
	out := make(map[string]string, len(m))
	for k := range m {
		out[k] = ""
	}
	return out
}

// commandText is a command as a Dockerfile has it, "" if there is none.
func commandText(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return asJSON(list)
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" {
		return ""
	}
	return string(b)
}
