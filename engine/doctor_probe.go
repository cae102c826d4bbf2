package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/kernel"
	"hull/monitor"
	"hull/payload"
	"hull/state"

	"golang.org/x/sys/unix"
)

// facts are what Doctor found out, before it judges: zero values and nil errors stand for "works".
type facts struct {
	uid          int
	userName     string
	kernel, arch string
	major, minor int

	noCalls      []string
	noNamespaces []string
	noCaps       []string
	nested       bool // in a user namespace that is not the machine's
	capResource  bool
	userNS       error
	overlayKnown bool  // overlayfs is in the kernel now
	overlayLater bool  // it is a module, loaded when first used
	overlay      error // of a real mount
	idmap        error // of a real mount on the store's file system
	seccomp      error
	lsm          []string
	sysctls      map[string]string
	nofile       uint64
	cgroups      cgroupFacts
	noMapTools   []string
	subIDs       int

	root, run        directory
	formatted        bool // there is a store
	version          error
	dead             []string // containers whose monitor died
	noRuntime, noBox error
	obstacles        []string // what keeps runtimes of others from working
	obstructed       bool     // one of them is the default
}

type cgroupFacts struct {
	layout      string // "" for none
	controllers []string
	dir         string // where containers' cgroups would be made
	refused     error
}

// directory is the root or run directory, or what is above it while it does not exist.
type directory struct {
	path, probed       string
	err                error
	fs                 string
	readonly, noexec   bool
	nosuid, writable   bool
	open               bool // to writing by others
	mode, owner        uint32
	size, free         uint64 // bytes; free for this user
	inodes, freeInodes uint64
}

func (f *facts) atLeast(major, minor int) bool {
	return f.major > major || f.major == major && f.minor >= minor
}

func (f *facts) sysctl(name string) string { return f.sysctls[name] }

// examine gathers the facts. Each probe undoes what it did before it returns, or does it in a process or mount
// namespace that is gone then.
func (e *Engine) examine(ctx context.Context) *facts {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the kernel did not answer"))
	defer cancel()
	v := e.Version()
	f := &facts{uid: os.Geteuid(), kernel: v.Kernel, arch: v.Arch, sysctls: make(map[string]string)}
	f.major, f.minor = kernel.Version()
	f.userName = userName(f.uid)
	f.noCalls = missingCalls()
	f.noNamespaces = missingNamespaces()
	f.nested = nested(procFile("self/uid_map"))
	f.noCaps, f.capResource = missingCaps(procFile("self/status"))
	for _, name := range []string{"user/max_user_namespaces", "kernel/unprivileged_userns_clone",
		"kernel/apparmor_restrict_unprivileged_userns", "net/ipv4/ip_forward"} {
		f.sysctls[name] = strings.TrimSpace(procFile("sys/" + name))
	}
	f.root, f.run = lookAt(e.root), lookAt(e.run)
	f.seccomp = probeSeccomp()
	f.lsm = securityModules()
	f.nofile = filesLimit()
	f.cgroups = lookAtCgroups(procFile("self/mountinfo"), procFile("self/cgroup"), f.uid)
	f.noMapTools, f.subIDs = f.lookAtIDs()
	if _, err := os.Stat(filepath.Join(e.root, "version")); err == nil {
		f.formatted = true
		f.version = e.ready()
	}
	f.dead = e.lost()
	f.noRuntime, f.noBox = e.carried()
	f.obstacles, f.obstructed = e.obstacles()
	f.probeMounts(ctx)
	return f
}

func procFile(name string) string {
	b, err := os.ReadFile("/proc/" + name)
	if err != nil {
		return "" // absent is a fact of its own: the sysctl or feature does not exist
	}
	return string(b)
}

func missingCalls() []string {
	var missing []string
	check := func(name string, fd int, err error, fine ...error) {
		if err == nil {
			unix.Close(fd)
		} else if !slices.ContainsFunc(fine, func(e error) bool { return errors.Is(err, e) }) {
			missing = append(missing, name)
		}
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	check("openat2", fd, err)
	fd, err = unix.PidfdOpen(os.Getpid(), 0)
	check("pidfd_open", fd, err)
	fd, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLOEXEC)
	check("open_tree", fd, err)
	// Without the right to mount the call itself still answers, with EPERM.
	fd, err = unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	check("fsopen", fd, err, unix.EPERM)
	err = unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	check("mount_setattr", -1, err, unix.EPERM, unix.EBADF, unix.EINVAL)
	// A structure of no size is refused before anything is cloned.
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	check("clone3", -1, errno, unix.EINVAL)
	return missing
}

func missingNamespaces() []string {
	var missing []string
	for _, ns := range []string{"mnt", "pid", "net", "uts", "ipc", "cgroup", "user", "time"} {
		if _, err := os.Lstat("/proc/self/ns/" + ns); err != nil {
			missing = append(missing, ns)
		}
	}
	return missing
}

// nested reads the text of /proc/self/uid_map: the first user namespace maps every id to itself.
func nested(uidMap string) bool {
	return !slices.Equal(strings.Fields(uidMap), []string{"0", "0", "4294967295"})
}

// missingCaps reads what a root engine needs from the text of /proc/self/status.
func missingCaps(status string) (missing []string, resource bool) {
	_, line, _ := strings.Cut(status, "\nCapEff:")
	line, _, _ = strings.Cut(line, "\n")
	have, _ := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	for _, c := range []struct {
		name string
		bit  int
	}{
		{"CAP_CHOWN", unix.CAP_CHOWN}, {"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE}, {"CAP_FOWNER", unix.CAP_FOWNER},
		{"CAP_KILL", unix.CAP_KILL}, {"CAP_SETGID", unix.CAP_SETGID}, {"CAP_SETUID", unix.CAP_SETUID},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE}, {"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_MKNOD", unix.CAP_MKNOD},
	} {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing, have&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// probeSeccomp installs a filter at address 0: a kernel with filters says EFAULT, one without EINVAL.
func probeSeccomp() error {
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0)
	if errors.Is(err, unix.EFAULT) {
		return nil
	}
	return err
}

func securityModules() []string {
	var found []string
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && strings.HasPrefix(string(b), "Y") {
		found = append(found, "AppArmor")
	}
	if b, err := os.ReadFile("/sys/fs/selinux/enforce"); err == nil {
		found = append(found, map[bool]string{true: "SELinux (enforcing)", false: "SELinux (permissive)"}[strings.HasPrefix(string(b), "1")])
	}
	// landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) answers the version of its ABI.
	if abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
		found = append(found, fmt.Sprintf("Landlock (ABI %d)", abi))
	}
	return found
}

func filesLimit() uint64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return r.Max
}

// lookAt finds what path is on. A path that does not exist yet is judged by the nearest directory above.
func lookAt(path string) directory {
	d := directory{path: path, probed: path}
	var st unix.Stat_t
	for {
		err := unix.Stat(d.probed, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || d.probed == "/" || d.probed == "." {
			d.err = &fs.PathError{Op: "look at", Path: d.probed, Err: err}
			return d
		}
		d.probed = filepath.Dir(d.probed)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		d.err = fmt.Errorf("%s is not a directory", d.probed)
		return d
	}
	d.mode, d.owner = st.Mode&0o7777, st.Uid
	d.open = d.probed == d.path && d.mode&0o022 != 0
	d.writable = unix.Faccessat(unix.AT_FDCWD, d.probed, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
	var s unix.Statfs_t
	if err := unix.Statfs(d.probed, &s); err != nil {
		d.err = &fs.PathError{Op: "statfs", Path: d.probed, Err: err}
		return d
	}
	d.readonly, d.nosuid, d.noexec = s.Flags&unix.ST_RDONLY != 0, s.Flags&unix.ST_NOSUID != 0, s.Flags&unix.ST_NOEXEC != 0
	d.size, d.free = s.Blocks*uint64(s.Bsize), s.Bavail*uint64(s.Bsize)
	d.inodes, d.freeInodes = s.Files, s.Ffree
	d.fs = fsName(d.probed, s.Type)
	return d
}

// fsName is the type of the file system path is on, as mountinfo calls it.
func fsName(path string, magic int64) string {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err == nil {
		for m := range mounts(procFile("self/mountinfo")) {
			if m.id == st.Mnt_id {
				return m.fs
			}
		}
	}
	return fmt.Sprintf("file system %#x", magic)
}

// A mount is one line of mountinfo, proc_pid_mountinfo(5).
type mount struct {
	id        uint64
	point, fs string
	super     string // options of the file system
}

func mounts(mountinfo string) func(yield func(mount) bool) {
	return func(yield func(mount) bool) {
		for line := range strings.SplitSeq(mountinfo, "\n") {
			before, after, ok := strings.Cut(line, " - ")
			b, a := strings.Fields(before), strings.Fields(after)
			if !ok || len(b) < 6 || len(a) < 3 {
				continue
			}
			id, _ := strconv.ParseUint(b[0], 10, 64)
			if !yield(mount{id, b[4], a[0], a[2]}) {
				return
			}
		}
	}
}

// lookAtCgroups finds the hierarchies and what may be made in them. On v2 containers of root go below the root of
// the hierarchy, those of a user below the cgroup the user is in.
func lookAtCgroups(mountinfo, self string, uid int) cgroupFacts {
	var g cgroupFacts
	var unified string
	seen := map[string]bool{}
	for m := range mounts(mountinfo) {
		switch {
		case m.fs == "cgroup2" && unified == "":
			unified = m.point
		case m.fs == "cgroup":
			for opt := range strings.SplitSeq(m.super, ",") {
				if slices.Contains([]string{"memory", "cpu", "pids", "cpuset", "blkio", "devices", "freezer"}, opt) && !seen[opt] {
					seen[opt] = true
					g.controllers = append(g.controllers, strings.Replace(opt, "blkio", "io", 1))
					g.dir = m.point
				}
			}
		}
	}
	switch {
	case len(g.controllers) > 0 && unified != "":
		g.layout = "cgroup v1, with v2 beside it (hybrid),"
	case len(g.controllers) > 0:
		g.layout = "cgroup v1"
	case unified != "":
		g.layout, g.dir = "cgroup v2", unified
		if uid != 0 {
			g.dir = filepath.Join(unified, ownCgroup(self))
		}
		b, _ := os.ReadFile(g.dir + "/cgroup.controllers")
		g.controllers = strings.Fields(string(b))
		if uid == 0 {
			// Neither has a name of its own on v2: devices are eBPF programs, the freezer a file of every cgroup.
			g.controllers = append(g.controllers, "devices")
		}
		g.controllers = append(g.controllers, "freezer")
	}
	if g.dir != "" {
		g.refused = unix.Faccessat(unix.AT_FDCWD, g.dir, unix.W_OK, unix.AT_EACCESS)
	}
	slices.Sort(g.controllers)
	return g
}

// ownCgroup is the path on v2 in the text of /proc/self/cgroup.
func ownCgroup(self string) string {
	for line := range strings.SplitSeq(self, "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return path
		}
	}
	return "/"
}

func userName(uid int) string {
	b, _ := os.ReadFile("/etc/passwd")
	for line := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == strconv.Itoa(uid) {
			return f[0]
		}
	}
	return strconv.Itoa(uid)
}

func (f *facts) lookAtIDs() (missing []string, ids int) {
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		path, err := exec.LookPath(tool)
		if err != nil || !privileged(path) {
			missing = append(missing, tool)
		}
	}
	uids, _ := os.ReadFile("/etc/subuid")
	gids, _ := os.ReadFile("/etc/subgid")
	return missing, min(subIDs(uids, f.userName, f.uid), subIDs(gids, f.userName, f.uid))
}

// privileged reports whether the program gets rights its caller has not: set-uid, or file capabilities.
func privileged(path string) bool {
	st, err := os.Stat(path)
	if err != nil {
		return false
	}
	_, err = unix.Getxattr(path, "security.capability", nil)
	return st.Mode()&os.ModeSetuid != 0 || err == nil
}

// subIDs counts the ids that a file like /etc/subuid gives to a user, who is named or numbered there (subuid(5)).
func subIDs(file []byte, name string, uid int) int {
	total := 0
	for s := bufio.NewScanner(bytes.NewReader(file)); s.Scan(); {
		f := strings.Split(s.Text(), ":")
		if len(f) != 3 || f[0] != name && f[0] != strconv.Itoa(uid) {
			continue
		}
		if n, err := strconv.Atoi(f[2]); err == nil && n > 0 {
			total += n
		}
	}
	return total
}

// lost are the containers that have a run directory but no monitor.
func (e *Engine) lost() []string {
	entries, err := os.ReadDir(filepath.Join(e.run, "containers"))
	if err != nil {
		return nil // no run directory yet, or judged as such already
	}
	var dead []string
	for _, d := range entries {
		if strings.HasPrefix(d.Name(), state.TempPrefix) {
			continue
		}
		if _, alive := monitor.Alive(e.runDir(d.Name())); !alive {
			dead = append(dead, d.Name())
		}
	}
	return dead
}

// carried looks for what hull runs containers with.
func (e *Engine) carried() (noRuntime, noBox error) {
	if e.opt.Runtime == "" {
		_, noRuntime = payload.RuntimeDigest()
	}
	_, noBox = payload.Box()
	return noRuntime, noBox
}

// probeMounts makes a user namespace and, in it or in a mount namespace of its own, what a container would mount.
func (f *facts) probeMounts(ctx context.Context) {
	var release unix.Utsname
	if err := unix.Uname(&release); err == nil {
		mods, _ := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(release.Release[:]) + "/modules.dep")
		f.overlayLater = bytes.Contains(mods, []byte("/overlay.ko"))
	}
	f.overlayKnown = strings.Contains(procFile("filesystems"), "\toverlay\n")
	if f.overlayKnown {
		f.overlayLater = false
	}

	ids := []kernel.IDMap{{Inside: 0, Outside: rangeFirst << rangeBits, Size: 1 << rangeBits}}
	gids := ids
	if f.uid != 0 {
		ids = []kernel.IDMap{{Inside: 0, Outside: uint32(f.uid), Size: 1}}
		gids = []kernel.IDMap{{Inside: 0, Outside: uint32(os.Getegid()), Size: 1}}
	}
	ns, err := kernel.NewUserNS(ids, gids)
	if err != nil {
		f.userNS = err
		ns = nil
	} else {
		defer ns.Close()
		f.userNS = inUserNS(ctx, ns, func(*kernel.Program) {})
	}
	dirs, remove, err := f.scratch()
	if err != nil {
		f.overlay = err
		return
	}
	defer remove()
	if f.uid == 0 {
		if err := inPrivateMounts(func() { f.probeAsRoot(ns, dirs) }); err != nil {
			f.overlay, f.idmap = err, err
		}
		return
	}
	if f.overlayKnown && f.userNS == nil { // one that cannot be made is said once
		f.overlay = inUserNS(ctx, ns, func(p *kernel.Program) {
			if dirs.hidden {
				p.Call("mount tmpfs", unix.SYS_MOUNT, "tmpfs", "/tmp", "tmpfs", 0, 0)
				for _, d := range dirs.lower {
					p.Call("make directory", unix.SYS_MKDIRAT, unix.AT_FDCWD, d, 0o700)
				}
			}
			p.Call("mount overlay", unix.SYS_MOUNT, "overlay", dirs.merged, "overlay", 0, dirs.options()+",userxattr")
		})
	}
}

// probeAsRoot runs in a mount namespace that nobody shares.
func (f *facts) probeAsRoot(ns *os.File, dirs scratch) {
	if ns != nil {
		fd, err := kernel.Clone(unix.AT_FDCWD, f.root.probed, false)
		if err == nil {
			err = kernel.IDMapMount(fd, ns, false)
			unix.Close(fd)
		}
		f.idmap = err
	}
	if !f.overlayKnown {
		return
	}
	if dirs.hidden {
		f.overlay = unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "")
		for _, d := range dirs.lower {
			f.overlay = errors.Join(f.overlay, os.Mkdir(d, 0o700))
		}
		if f.overlay == nil {
			f.overlay = unix.Mount("overlay", dirs.merged, "overlay", 0, dirs.options())
		}
		return
	}
	o := kernel.Overlay{Lower: dirs.lower, Upper: dirs.upper, Work: dirs.work, Scratch: dirs.merged}
	if f.idmap == nil {
		o.IDMap, o.Owner = ns, rangeFirst<<rangeBits
	}
	fd, err := o.Mount()
	if err == nil {
		unix.Close(fd)
	}
	f.overlay = err
}

// scratch are directories for one overlay mount.
type scratch struct {
	lower               []string
	upper, work, merged string
	hidden              bool // on a tmpfs over /tmp that only the probe's mount namespace sees
}

func (s *scratch) options() string {
	o := "lowerdir=" + strings.Join(s.lower, ":")
	if s.upper != "" {
		o += ",upperdir=" + s.upper + ",workdir=" + s.work
	}
	return o
}

// scratch makes directories in the store, where layers would be. While there is none of ours it makes none there: two
// directories of a tmpfs, stacked read-only, tell at least whether there is overlayfs.
func (f *facts) scratch() (s scratch, remove func(), err error) {
	if !f.formatted || f.version != nil || !f.root.writable || f.root.readonly {
		return scratch{lower: []string{"/tmp/a", "/tmp/b"}, merged: "/tmp/a", hidden: true}, func() {}, nil
	}
	tmp := filepath.Join(f.root.path, state.TempName())
	s = scratch{lower: []string{tmp + "/a", tmp + "/b"}, upper: tmp + "/upper", work: tmp + "/work", merged: tmp + "/merged"}
	remove = func() {
		if e := state.Remove(tmp); e != nil && f.root.err == nil {
			f.root.err = e
		}
	}
	for _, d := range append([]string{tmp, s.upper, s.work, s.merged}, s.lower...) {
		if err := os.Mkdir(d, 0o700); err != nil {
			remove()
			return s, nil, err
		}
	}
	return s, remove, nil
}

// inPrivateMounts runs do on a thread with a mount namespace of its own. Both end with it.
func inPrivateMounts(do func()) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// What /proc/self tells is the main thread's, and it never ends: keep it busy and take another.
			defer runtime.UnlockOSThread()
			done <- inPrivateMounts(do)
			return
		}
		// Never unlocked: the runtime ends a locked thread whose goroutine ends, and the namespace with it.
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	return <-done
}

// inUserNS runs the steps in a child that enters the user namespace as root and has the namespaces of a container.
func inUserNS(ctx context.Context, ns *os.File, steps func(*kernel.Program)) error {
	p, err := kernel.NewProgram()
	if err != nil {
		return err
	}
	defer p.Close()
	enterAsRoot(p, ns)
	p.Call("create namespaces", unix.SYS_UNSHARE, unix.CLONE_NEWNS|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWNET|unix.CLONE_NEWPID)
	p.Call("make mounts private", unix.SYS_MOUNT, "", "/", "", unix.MS_REC|unix.MS_PRIVATE, 0)
	steps(p)
	p.Exit(0)

	_, err = runProgram(ctx, p)
	return err
}
