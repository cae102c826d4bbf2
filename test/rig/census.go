package rig

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/engine"
	"hull/kernel/netlink"
	"hull/monitor"
	"hull/network"
)

// Census is what exists in the kernel and on disk because of one engine: a line each, sorted. It looks only at
// what can be traced to the engine by name, so that tests may run beside each other and beside other engines.
type Census []string

// Mark takes the census that the next Check compares with.
func (h *Hull) Mark(t testing.TB) {
	t.Helper()
	h.emptyTrash()
	h.base = h.settle(func(a, b Census) bool { return slices.Equal(a, b) && !h.parting(b) })
}

// parting reports whether c has a link of a container that does not run any more: the kernel takes it away a moment
// after the network namespace.
func (h *Hull) parting(c Census) bool {
	const prefix = len("h1234") // of the name of a link; the container's id follows
	for _, line := range c {
		name, ok := strings.CutPrefix(line, "link h")
		if !ok || strings.HasPrefix(name, "ull") || len(name) < prefix { // hull0, hull-1234abcd: the bridge
			continue
		}
		if running, _ := filepath.Glob(filepath.Join(h.RunDir, "containers", name[prefix-1:]+"*")); len(running) == 0 {
			return true
		}
	}
	return false
}

// Check fails t for everything that came or went since Mark.
func (h *Hull) Check(t testing.TB) {
	t.Helper()
	for _, line := range h.Difference() {
		t.Error(line)
	}
}

// Difference is what came or went since Mark, a line each. What is on its way out gets a moment: a monitor ends
// after its container's waiters were told.
func (h *Hull) Difference() []string {
	faults := h.emptyTrash()
	now := h.Census()
	if !slices.Equal(h.base, now) {
		now = h.settle(func(_, b Census) bool { return slices.Equal(h.base, b) })
	}
	return append(faults, differences(h.base, now)...)
}

// differences are the lines that only one of two has.
func differences(base, now Census) []string {
	var out []string
	for _, line := range now {
		if !slices.Contains(base, line) {
			out = append(out, "left behind: "+line)
		}
	}
	for _, line := range base {
		if !slices.Contains(now, line) {
			out = append(out, "gone: "+line)
		}
	}
	return out
}

// settle takes the census until done is content with the last two of them, or patience ends.
func (h *Hull) settle(done func(before, now Census) bool) Census {
	before := h.Census()
	for end := time.Now().Add(Patience(3 * time.Second)); ; {
		now := h.Census()
		if done(before, now) || time.Now().After(end) {
			return now
		}
		before = now
		time.Sleep(10 * time.Millisecond)
	}
}

// Census counts now.
func (h *Hull) Census() Census {
	var c Census
	add := func(kind string, names []string) {
		for _, n := range names {
			c = append(c, kind+" "+n)
		}
	}
	add("process", h.processes())
	add("cgroup", h.cgroups())
	add("id range", h.claims())
	add("link", h.Links())
	add("published port", h.ports())
	add("mount", h.mountsEverywhere())
	add("socket", h.sockets())
	add("loop device", h.loops())
	add("open file of the test", h.openFiles())
	add("file", h.files())
	slices.Sort(c)
	return slices.Compact(c)
}

// ports are what the firewall leads to containers. The tables themselves are kept.
func (h *Hull) ports() (out []string) {
	ports, err := h.Table().Ports()
	if err != nil {
		return nil // no tables, or no right to look
	}
	for _, p := range ports {
		out = append(out, fmt.Sprint(p.Proto, " ", p.Host, " ", p.ID))
	}
	return out
}

func (h *Hull) processes() []string {
	var out []string
	for _, pid := range h.Pids() {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		out = append(out, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '})))
	}
	return out
}

// cgroups are those of containers and monitors. The engine's own two parents, which it keeps for the next container,
// do not count; processes in them do (Pids).
func (h *Hull) cgroups() []string {
	return slices.DeleteFunc(h.allCgroups(), func(dir string) bool {
		return strings.HasPrefix(filepath.Base(dir), h.Instance())
	})
}

// allCgroups are the engine's directories in every hierarchy, deepest first.
func (h *Hull) allCgroups() []string {
	var out []string
	for _, hierarchy := range hierarchies() {
		tops, _ := filepath.Glob(filepath.Join(hierarchy, "hull*"))
		for _, top := range tops {
			name := filepath.Base(top)
			if name != h.Instance() && !strings.HasPrefix(name, h.Instance()+".") {
				continue
			}
			filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					out = append(out, path)
				}
				return nil
			})
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(b, a) })
	return out
}

// hierarchies are the mount points of all cgroup file systems.
func hierarchies() []string {
	var out []string
	for _, m := range mountinfo("self") {
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			out = append(out, m.point)
		}
	}
	return out
}

// claims are the id ranges held for containers of this engine.
func (h *Hull) claims() []string {
	members, _ := filepath.Glob(filepath.Join(monitor.IDClaims, "*"+monitor.MembersSuffix))
	var out []string
	for _, dir := range append(members, monitor.IDClaims) {
		out = append(out, h.linksIn(dir)...)
	}
	return out
}

// subnets are the claims of this engine's networks, which are kept as long as its store.
func (h *Hull) subnets() []string { return h.linksIn(network.Claims) }

// linksIn are the symbolic links of a directory that lead to this engine.
func (h *Hull) linksIn(dir string) []string {
	var out []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, h.Dir+"/") {
			out = append(out, path)
		}
	}
	return out
}

// Links are those of containers, on the host. The bridge they are ports of is kept.
func (h *Hull) Links() []string {
	c, err := netlink.Open()
	if err != nil {
		return nil
	}
	defer c.Close()
	all, _ := c.Links()
	var out []string
	prefix := engine.Open(h.Root, h.RunDir, engine.Options{}).LinkPrefix()
	for _, l := range all {
		if l.Kind == "veth" && strings.HasPrefix(l.Name, prefix) {
			out = append(out, l.Name)
		}
	}
	return out
}

type mount struct{ point, fstype, source, line string }

// mountinfo reads /proc/WHO/mountinfo; WHO is a pid or self.
func mountinfo(who string) []mount {
	b, err := os.ReadFile("/proc/" + who + "/mountinfo")
	if err != nil {
		return nil
	}
	var out []mount
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		left, right, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if ok && len(f) > 4 && len(g) > 1 {
			out = append(out, mount{f[4], g[0], g[1], line})
		}
	}
	return out
}

// mounts are the mount points in who's namespace that are in the engine's directory or made of it.
func (h *Hull) mounts(who string) []string {
	var out []string
	for _, m := range mountinfo(who) {
		// The line holds the source inside its file system and overlayfs's layers too.
		if strings.Contains(m.line, h.Dir+"/") {
			out = append(out, m.point)
		}
	}
	return out
}

// mountsEverywhere looks into every mount namespace of the host: a forgotten one keeps a container's layers busy.
func (h *Hull) mountsEverywhere() []string {
	self, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{self: true}
	out := h.mounts("self")
	for _, pid := range allPids() {
		who := strconv.Itoa(pid)
		ns, err := os.Readlink("/proc/" + who + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		for _, m := range h.mounts(who) {
			out = append(out, m+" in "+ns)
		}
	}
	return out
}

func (h *Hull) sockets() []string {
	var out []string
	b, _ := os.ReadFile("/proc/thread-self/net/unix") // of the network that the test is in
	for line := range strings.Lines(string(b)) {
		if i := strings.Index(line, h.Dir+"/"); i >= 0 {
			out = append(out, strings.TrimSpace(line[i:]))
		}
	}
	return out
}

func (h *Hull) loops() []string {
	var out []string
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range backing {
		if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), h.Root) {
			out = append(out, filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return out
}

// openFiles are descriptors of the test process itself: a library of ours that leaks them shows here.
func (h *Hull) openFiles() []string {
	var out []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(to, h.Root) || strings.HasPrefix(to, h.RunDir)) {
			out = append(out, e.Name()+" "+to)
		}
	}
	return out
}

// files are the names in store and run directory. Directories count only by what they hold, but a container's
// always. What is made once and kept is left out: the extracted runtime, compiled filters and the store's own marks.
func (h *Hull) files() []string {
	var out []string
	for _, top := range []string{h.Root, h.RunDir} {
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			rel, _ := filepath.Rel(h.Dir, path)
			switch {
			case rel == "root/bin", rel == "root/seccomp", rel == "root/refs.log", rel == "root/origins", strings.HasPrefix(rel, "root/skeleton-"):
				return filepath.SkipDir
			case rel == "run/firewall/state.json", rel == "run/firewall/relay", rel == "root/version", rel == "root/oci-layout", rel == "root/index.json", strings.HasPrefix(rel, "root/networks/"), filepath.Base(rel) == ".last", filepath.Base(rel) == ".lock", rel == "root/containers/.limbo":
			case filepath.Base(filepath.Dir(rel)) == "containers", filepath.Base(filepath.Dir(rel)) == ".limbo",
				filepath.Dir(rel) == "root/volumes":
				out = append(out, rel)
			case strings.HasPrefix(rel, "root/layers/") && strings.Contains(rel, "/fs/"):
				if d.IsDir() {
					return filepath.SkipDir // a layer's content is checked where layers are
				}
			case !d.IsDir():
				out = append(out, rel)
			}
			return nil
		})
	}
	return out
}
