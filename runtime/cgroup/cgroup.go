// Package cgroup makes, fills, watches and removes the control groups of containers, on cgroup v1, v2 and both
// at once ("hybrid"). A group is one path below every hierarchy that this process may write to.
//
//	layout := cgroup.Detect()
//	g, warnings, err := cgroup.Make(layout, "hull/"+id, spec.Linux.Resources)
//	door, err := g.Door()       // descriptors through which a forked child goes in
//	...
//	err = g.Kill(ctx)           // nothing runs in it afterwards
//	err = g.Remove(ctx)         // and nothing is left
//
// Beware: where cgroups are missing or not writable there is no error but a Group without directories and a
// warning for each limit that was asked for; whoever needs a limit to hold reads the warnings.
// Pids are those of the caller's pid namespace.
package cgroup

import (
	"errors"
	"os"
	"path"
	"runtime"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Group is one control group: a directory in each hierarchy of a Layout. Its methods treat a directory that is
// gone as empty and removed, so they are idempotent. A Group holds no descriptors.
type Group struct {
	path string
	dirs []groupDir
}

type groupDir struct {
	*hierarchy
	path string // absolute
}

// Open returns the group at path, which need not exist.
func Open(l Layout, path string) (*Group, error) {
	clean, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	g := &Group{path: clean}
	for i := range l.hierarchies {
		h := &l.hierarchies[i]
		g.dirs = append(g.dirs, groupDir{h, h.top + clean})
	}
	return g, nil
}

// Ensure makes the group at path below every hierarchy, without limits and with its missing parents, for the engine's
// own processes. One that is there and in use stays as it is.
func Ensure(l Layout, path string) (*Group, error) {
	g, err := Open(l, path)
	if err != nil {
		return nil, err
	}
	for i := range g.dirs {
		if err := g.dirs[i].makeParents(g.path + "/member"); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// cleanPath makes p start with a slash and refuses to name the root, or anything above it.
func cleanPath(p string) (string, error) {
	if strings.Contains(p, "\n") || strings.Contains(p, "\x00") {
		return "", errdef.Invalid("invalid cgroup path %q", p)
	}
	clean := path.Clean("/" + p)
	if clean == "/" {
		return "", errdef.Invalid("invalid cgroup path %q: it names no group", p)
	}
	return clean, nil
}

// Make makes the group at path below every hierarchy, with its missing parents, and sets the limits of res (nil: none).
// On failure the group is gone again; parents stay, as other containers may be moving into them.
// A group that exists already is taken over if no process is in it; a group in use is errdef.ErrConflict.
// Limits that this kernel or user cannot set are warnings; values the kernel refuses are errdef.ErrInvalid.
// Device access is always restricted: runtime-spec's list, on top of "nothing but the default devices".
func Make(l Layout, path string, res *specs.LinuxResources) (*Group, []string, error) {
	g, err := Open(l, path)
	if err != nil {
		return nil, nil, err
	}
	if res == nil {
		res = &specs.LinuxResources{}
	}
	if !l.Writable() {
		return g, missingAll(l, res), nil
	}
	var made []string
	undo := func() {
		for _, dir := range made {
			unix.Rmdir(dir)
		}
	}
	for i := range g.dirs {
		fresh, err := g.dirs[i].make(g.path)
		if err != nil {
			undo()
			return nil, nil, err
		}
		if fresh {
			made = append(made, g.dirs[i].path)
		}
	}
	warnings, err := g.setLimits(res)
	if err == nil {
		var notes []string
		notes, err = g.setDevices(res.Devices)
		warnings = append(warnings, notes...)
	}
	if err != nil {
		undo()
		return nil, nil, err
	}
	return g, warnings, nil
}

// make makes the directory of a group whose path below the hierarchy is p, and says whether it was new.
func (d *groupDir) make(p string) (bool, error) {
	err := unix.Mkdir(d.path, 0o755)
	for try := 0; gone(err) && try < 20; try++ {
		// Another process may prune the parents while we make them; then once more.
		if err := d.makeParents(p); err != nil && !gone(err) {
			return false, err
		}
		err = unix.Mkdir(d.path, 0o755)
	}
	switch err {
	case nil:
	case unix.EEXIST:
		pids, err := readPids(unix.AT_FDCWD, d.path+"/cgroup.procs")
		if err != nil {
			return false, err
		}
		if len(pids) > 0 {
			return false, errdef.Conflict("cgroup %s is in use by %d processes", d.path, len(pids))
		}
		return false, d.prepare()
	default:
		return false, &os.PathError{Op: "mkdir", Path: d.path, Err: err}
	}
	if err := d.prepare(); err != nil {
		unix.Rmdir(d.path)
		return false, err
	}
	return true, nil
}

func (d *groupDir) makeParents(p string) error {
	parent := groupDir{d.hierarchy, d.top}
	for name := range strings.SplitSeq(strings.TrimPrefix(path.Dir(p), "/"), "/") {
		if name == "" {
			break
		}
		parent.path += "/" + name
		err := unix.Mkdir(parent.path, 0o755)
		if err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "mkdir", Path: parent.path, Err: err}
		}
		if err := parent.prepare(); err != nil {
			return err
		}
		if err == nil && d.has("cpuset") {
			// New groups below it begin as copies: that saves each of them the rebuilding of scheduling domains.
			if err := put(parent.path+"/cgroup.clone_children", "1"); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare makes a directory usable for processes: a new v1 cpuset has no cpus and no memory nodes, and nothing
// can enter it (ENOSPC) until it has.
func (d *groupDir) prepare() error {
	if !d.has("cpuset") {
		return nil
	}
	if v, err := get(d.path + "/cpuset.mems"); err != nil || v != "" {
		return err // the second of the two that are copied
	}
	above := groupDir{d.hierarchy, path.Dir(d.path)}
	if above.path != d.top {
		// Another process may have made it and not yet come to filling it.
		if err := above.prepare(); err != nil {
			return err
		}
	}
	for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		v, err := get(d.path + name)
		if err != nil {
			return err
		}
		if v != "" {
			continue
		}
		if v, err = get(above.path + name); err != nil {
			return err
		}
		if err := put(d.path+name, v); err != nil {
			return err
		}
	}
	return nil
}

// Path returns the group's path below every hierarchy, starting with a slash.
func (g *Group) Path() string { return g.path }

// Exists reports whether the group has a directory in any hierarchy.
func (g *Group) Exists() bool {
	for _, d := range g.dirs {
		if unix.Access(d.path, unix.F_OK) == nil {
			return true
		}
	}
	return false
}

// dir returns the group's directory for a v1 controller, "" if there is none.
func (g *Group) dir(controller string) string {
	for _, d := range g.dirs {
		if d.has(controller) {
			return d.path
		}
	}
	return ""
}

// unified returns the group's directory in the v2 hierarchy, "" if there is none.
func (g *Group) unified() string {
	for _, d := range g.dirs {
		if d.v2 {
			return d.path
		}
	}
	return ""
}

// Door is the way into a group for a process about to be forked.
type Door struct {
	// Tasks are "tasks" files of v1 hierarchies, open for writing: the child writes "0" to each, before any
	// setns or setuid. The right to do so was checked at open(2) (the opener's credentials count since
	// CVE-2021-4197), and moving only the calling thread needs no grace period of all processors: it is 40 times
	// cheaper than writing the child's pid to cgroup.procs from outside. It moves the calling thread only.
	Tasks []int
	// Dir is the directory of the v2 hierarchy, for clone3 with CLONE_INTO_CGROUP; -1 if there is none.
	Dir int
}

// Close closes the descriptors.
func (d *Door) Close() {
	for _, fd := range d.Tasks {
		unix.Close(fd)
	}
	if d.Dir >= 0 {
		unix.Close(d.Dir)
	}
	*d = Door{Dir: -1}
}

// Door opens the group for processes to come in. All descriptors are close-on-exec; the caller closes the Door.
func (g *Group) Door() (*Door, error) {
	door := &Door{Dir: -1}
	for _, d := range g.dirs {
		name, flags := d.path+"/tasks", unix.O_WRONLY
		if d.v2 {
			name, flags = d.path, unix.O_DIRECTORY|unix.O_RDONLY
		}
		fd, err := open(name, flags)
		if err != nil {
			door.Close()
			return nil, err
		}
		if d.v2 {
			door.Dir = fd
		} else {
			door.Tasks = append(door.Tasks, fd)
		}
	}
	return door, nil
}

// Forking calls fork on a thread that is in the v1 hierarchies of the door, so that a process it starts begins its
// life there, and brings the thread back. With SysProcAttr.CgroupFD set to Dir it is in all of them. Between the
// two the thread, and with it this process, stops if the group is frozen: only for groups nobody freezes.
func (d *Door) Forking(l Layout, fork func() error) error {
	if len(d.Tasks) == 0 {
		return fork()
	}
	back, err := l.own().Door()
	if err != nil {
		return err
	}
	defer back.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = d.enter()
	if err == nil {
		err = fork()
	}
	return errors.Join(err, back.enter())
}

// enter moves the calling thread into the v1 hierarchies.
func (d *Door) enter() error {
	for _, fd := range d.Tasks {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return &os.PathError{Op: "enter", Path: "cgroup", Err: err}
		}
	}
	return nil
}

// own returns the group this process is in, which may have another path in each hierarchy.
func (l Layout) own() *Group {
	g := &Group{}
	for i := range l.hierarchies {
		if h := &l.hierarchies[i]; !h.v2 {
			g.dirs = append(g.dirs, groupDir{h, h.top + h.own})
		}
	}
	return g
}

// open is open(2) with O_CLOEXEC; os.File would try to poll these files.
func open(name string, flags int) (int, error) { return openat(unix.AT_FDCWD, name, flags) }

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

// put writes value to a control file, in one write(2) as the kernel wants it.
func put(name, value string) error {
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, []byte(value))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "write " + quoteShort(value) + " to", Path: name, Err: err}
		}
		return nil
	}
}

func quoteShort(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return `"` + strings.TrimSuffix(s, "\n") + `"`
}

// get reads a control file, without the newline at its end.
func get(name string) (string, error) { return getat(unix.AT_FDCWD, name) }

func getat(dir int, name string) (string, error) {
	fd, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var b []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return strings.TrimSuffix(string(b), "\n"), nil
		}
		b = append(b, buf[:n]...)
	}
}

// gone reports that a file or its group does not exist any more: kernfs answers ENODEV for a file that was open.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }
