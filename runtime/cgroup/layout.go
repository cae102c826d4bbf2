package cgroup

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Layout is the arrangement of cgroup hierarchies of this host as this process may use them.
// The zero Layout has none: groups made in it are empty, and limits become warnings.
type Layout struct {
	hierarchies []hierarchy
	// Reason says, when groups cannot be made at all, why, and what would help.
	Reason string
}

// hierarchy is one mounted cgroup tree.
type hierarchy struct {
	top         string   // groups are made below: the mount point, or what was delegated to this user
	controllers []string // of a v1 hierarchy, as /proc/self/cgroup names them; nil for v2
	own         string   // where this process is, relative to the mount point
	v2          bool
}

func (h *hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// Writable reports whether groups can be made.
func (l Layout) Writable() bool { return len(l.hierarchies) > 0 }

// Version is 2 when the controllers are in the unified hierarchy, 1 when some are not, 0 when there are no groups.
func (l Layout) Version() int {
	switch {
	case !l.Writable():
		return 0
	case slices.ContainsFunc(l.hierarchies, func(h hierarchy) bool { return !h.v2 }):
		return 1
	}
	return 2
}

// Controllers lists the controllers that limits can be set with, by the kernel's names.
func (l Layout) Controllers() []string {
	var all []string
	for _, h := range l.hierarchies {
		if h.v2 {
			b, err := os.ReadFile(h.top + "/cgroup.controllers")
			if err == nil {
				all = append(all, strings.Fields(string(b))...)
			}
			continue
		}
		for _, c := range h.controllers {
			if !strings.HasPrefix(c, "name=") {
				all = append(all, c)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// detected is what Detect found; hierarchies are not mounted or delegated anew under a running engine.
var detected struct {
	once   sync.Once
	layout Layout
}

// Detect finds the hierarchies, once for the life of the process.
func Detect() Layout {
	detected.once.Do(func() { detected.layout = detect() })
	return detected.layout
}

// detect costs one read of /proc/self/cgroup and two probes a hierarchy when they are
// mounted where systemd mounts them, and reads /proc/self/mountinfo otherwise: that file is long on a busy host.
func detect() Layout {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Layout{Reason: "this kernel has no cgroups: " + err.Error()}
	}
	found := parseMembership(string(b))
	for i := range found {
		found[i].top = usualMount(&found[i])
	}
	if slices.ContainsFunc(found, func(h hierarchy) bool { return h.top == "" }) {
		if m, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
			fillMounts(found, string(m))
		}
	}
	l := Layout{}
	mounted := false
	for _, h := range found {
		if h.top == "" {
			continue
		}
		mounted = true
		if h.top = writableBelow(&h); h.top != "" {
			l.hierarchies = append(l.hierarchies, h)
		}
	}
	switch {
	case l.Writable():
	case !mounted:
		l.Reason = "no cgroup hierarchy is mounted"
	case os.Geteuid() == 0:
		l.Reason = "cgroups are mounted read-only here"
	default:
		l.Reason = "no cgroup is delegated to this user (a systemd user session, or systemd-run --user --scope -p Delegate=yes, has one)"
	}
	return l
}

// parseMembership reads /proc/PID/cgroup: "hierarchy-id:controllers:path", see cgroups(7).
func parseMembership(text string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(text) {
		id, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		names, own, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		h := hierarchy{own: own}
		if id == "0" && names == "" {
			h.v2 = true
		} else {
			h.controllers = strings.Split(names, ",")
		}
		found = append(found, h)
	}
	return found
}

const mountRoot = "/sys/fs/cgroup"

// usualMount returns where h is mounted if that is the usual place, "" otherwise.
func usualMount(h *hierarchy) string {
	if h.v2 {
		if isType(mountRoot, unix.CGROUP2_SUPER_MAGIC) {
			return mountRoot
		}
		if isType(mountRoot+"/unified", unix.CGROUP2_SUPER_MAGIC) {
			return mountRoot + "/unified"
		}
		return ""
	}
	// "cpu,cpuacct" may be mounted as cpuacct,cpu; a link named after each controller is then beside it.
	for _, name := range []string{strings.Join(h.controllers, ","), h.controllers[0]} {
		dir := mountRoot + "/" + strings.TrimPrefix(name, "name=")
		if isType(dir, unix.CGROUP_SUPER_MAGIC) {
			return dir
		}
	}
	return ""
}

func isType(dir string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == magic
}

// fillMounts finds the mount points still missing in found. The first mount of a hierarchy is taken.
func fillMounts(found []hierarchy, mountinfo string) {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		dir, options := unescape(left[4]), strings.Split(right[2], ",")
		for i := range found {
			h := &found[i]
			if h.top != "" {
				continue
			}
			switch right[0] {
			case "cgroup2":
				if h.v2 {
					h.top = dir
				}
			case "cgroup":
				if !h.v2 && slices.Contains(options, h.controllers[0]) {
					h.top = dir
				}
			}
		}
	}
}

// unescape undoes the \ooo of mountinfo, see proc(5).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// writableBelow returns the directory of h nearest to its root below which this process may make groups and put
// its children: the mount point, or for an ordinary user the top of the delegated subtree it is in. A process can
// only be moved within a subtree whose cgroup.procs is writable, so a writable directory beside it is no use.
func writableBelow(h *hierarchy) string {
	if mayMake(h.top, h.v2) {
		return h.top
	}
	if !h.v2 {
		return ""
	}
	dir := h.top
	for name := range strings.SplitSeq(strings.Trim(h.own, "/"), "/") {
		if name == ".." { // outside of our cgroup namespace
			return ""
		}
		dir += "/" + name
		if mayMake(dir, true) {
			return dir
		}
	}
	return ""
}

func mayMake(dir string, v2 bool) bool {
	may := func(path string) bool { return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil }
	return may(dir) && (!v2 || may(dir+"/cgroup.procs"))
}

// String describes the layout in a line, for people.
func (l Layout) String() string {
	switch l.Version() {
	case 0:
		return "none: " + l.Reason
	case 2:
		return fmt.Sprintf("cgroup v2 at %s (%s)", l.hierarchies[0].top, strings.Join(l.Controllers(), " "))
	}
	kind := "cgroup v1"
	if slices.ContainsFunc(l.hierarchies, func(h hierarchy) bool { return h.v2 }) {
		kind = "cgroup v1 with a v2 hierarchy beside it"
	}
	return fmt.Sprintf("%s (%s)", kind, strings.Join(l.Controllers(), " "))
}

// Mount is one cgroup file system as a container sees it.
type Mount struct {
	Name string // directory below /sys/fs/cgroup; of v1 hierarchies the controllers, joined by commas
	Dir  string // the group, where the host has it
	V2   bool
}

// Mounts lists what a container has to have below /sys/fs/cgroup to see its own group. A single v2 entry belongs on
// /sys/fs/cgroup itself, several entries each in a directory of their own below it.
func (g *Group) Mounts() []Mount {
	var out []Mount
	for _, d := range g.dirs {
		name := "unified"
		if !d.v2 {
			name = strings.TrimPrefix(strings.Join(d.controllers, ","), "name=")
		}
		out = append(out, Mount{Name: name, Dir: d.path, V2: d.v2})
	}
	return out
}
