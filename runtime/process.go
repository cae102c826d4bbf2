package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"hull/errdef"
	"hull/kernel"
	"hull/runtime/seccomp"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

// try is one path that execve was tried with.
type try struct {
	path   string
	result kernel.Reg
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// writeProc writes a file of the host's /proc about the calling child, in stage 1: there no container is involved yet,
// so no mount of one can be in the way (CVE-2019-16884, CVE-2025-52881).
func (b *boot) writeProc(what, path, text string) {
	p := b.prog
	fd := p.Call("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0).Result()
	p.Call(what, unix.SYS_WRITE, fd, text, len(text))
	b.closeReg(fd)
}

// label sets what the kernel applies at execve: the AppArmor profile and SELinux label; and the OOM score.
func (b *boot) label() error {
	if prof := b.process.ApparmorProfile; prof != "" && prof != "unconfined" {
		attr := "/proc/thread-self/attr/apparmor/exec"
		if _, err := os.Stat(attr); err != nil {
			attr = "/proc/thread-self/attr/exec"
		}
		if !appArmor() {
			b.warn("AppArmor profile %q is not applied: this kernel runs without AppArmor", prof)
		} else {
			b.writeProc("apply AppArmor profile "+prof, attr, "exec "+prof)
		}
	}
	if l := b.process.SelinuxLabel; l != "" {
		if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
			b.warn("SELinux label %q is not applied: this kernel runs without SELinux", l)
		} else {
			b.writeProc("apply SELinux label "+l, "/proc/thread-self/attr/exec", l)
		}
	}
	if score := b.process.OOMScoreAdj; score != nil {
		current, err := os.ReadFile("/proc/self/oom_score_adj")
		if want := fmt.Sprint(*score); err != nil || strings.TrimSpace(string(current)) != want {
			if err := canSetOOMScore(*score, strings.TrimSpace(string(current))); err != nil {
				b.warn("%v", err)
				return nil
			}
			b.writeProc("set OOM score", "/proc/self/oom_score_adj", want)
		}
	}
	return nil
}

func appArmor() bool {
	e, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(e) > 0 && e[0] == 'Y'
}

// canSetOOMScore: only CAP_SYS_RESOURCE may go below what the process began with, proc_pid_oom_score_adj(5).
func canSetOOMScore(want int, current string) error {
	var now int
	fmt.Sscan(current, &now)
	if want < now && !hasCap(unix.CAP_SYS_RESOURCE) {
		return fmt.Errorf("OOM score adjustment %d cannot be set without CAP_SYS_RESOURCE: it stays %d", want, now)
	}
	return nil
}

func hasCap(c uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

// rlimitNumber of an RLIMIT_ name; false if the kernel has no such limit.
func rlimitNumber(name string) (int, bool) {
	names := [...]string{
		"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
		"RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
		"RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
	}
	i := slices.Index(names[:], name)
	return i, i >= 0
}

// raiseLimits lifts the hard limits in stage 1, which has the host's rights; lowering, and the soft limits, come last,
// for a process with few files or little memory could not finish. Where the right is missing the limit is clamped.
func (b *boot) raiseLimits() error {
	for i := range b.process.Rlimits {
		l := &b.process.Rlimits[i]
		nr, ok := rlimitNumber(l.Type)
		if !ok {
			return errdef.Invalid("unknown limit %q", l.Type)
		}
		if l.Soft > l.Hard {
			return errdef.Invalid("limit %s: soft limit %d is above hard limit %d", l.Type, l.Soft, l.Hard)
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(nr, &now); err != nil {
			return fmt.Errorf("getrlimit %s: %w", l.Type, err)
		}
		if l.Hard <= now.Max {
			continue
		}
		if !hasCap(unix.CAP_SYS_RESOURCE) {
			b.warn("limit %s is %d instead of %d: raising it needs CAP_SYS_RESOURCE", l.Type, now.Max, l.Hard)
			clamped := *l
			clamped.Hard, clamped.Soft = now.Max, min(l.Soft, now.Max)
			b.setLimit(nr, &clamped)
			continue
		}
		b.setLimit(nr, &specs.POSIXRlimit{Type: l.Type, Soft: now.Cur, Hard: l.Hard})
	}
	return nil
}

func (b *boot) setLimit(nr int, l *specs.POSIXRlimit) {
	v := make([]byte, 16)
	putU64(v[0:], l.Soft)
	putU64(v[8:], l.Hard)
	b.prog.Call("set limit "+l.Type, unix.SYS_PRLIMIT64, 0, nr, v, 0)
}

// sysctls are written through a procfs of the container's own namespaces, before anything of it is made read-only.
func (b *boot) sysctls() error {
	if len(b.spec.Linux.Sysctl) == 0 {
		return nil
	}
	p := b.prog
	proc := b.newMount("open sysctls", "proc", "", nil, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	for key, value := range b.spec.Linux.Sysctl {
		path := strings.ReplaceAll(key, ".", "/")
		if strings.Contains(key, "/") {
			path = key
		}
		what := "set sysctl " + key
		if ns := sysctlNamespace(path); ns == 0 || (b.newNS|b.joinNS)&ns == 0 || strings.Contains(path, "..") {
			return errdef.Invalid("sysctl %q is not in a separate kernel namespace", key)
		}
		fd := b.openHow(what, proc, "sys/"+path, unix.O_WRONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV, 0).Result()
		p.Call(what, unix.SYS_WRITE, fd, value, len(value))
		b.closeReg(fd)
	}
	b.closeReg(proc)
	return nil
}

// sysctlNamespace is the kind of namespace that has the sysctl to itself; 0 for one that the whole host shares, such as
// kernel/core_pattern, which would run a command of the container's choice on the host.
func sysctlNamespace(path string) uint64 {
	switch {
	case strings.HasPrefix(path, "net/"):
		return unix.CLONE_NEWNET
	case path == "kernel/domainname":
		return unix.CLONE_NEWUTS
	case strings.HasPrefix(path, "fs/mqueue/"), strings.HasPrefix(path, "kernel/msg"), strings.HasPrefix(path, "kernel/shm"), path == "kernel/sem":
		return unix.CLONE_NEWIPC
	}
	return 0
}

// execute is the end of every program: stdio, working directory, rights, filter, execve.
func (b *boot) execute() error {
	p := b.prog
	if err := b.stdio(); err != nil {
		return err
	}
	cwd := b.process.Cwd
	if cwd == "" {
		cwd = "/"
	}
	again := b.enterCwd(cwd)
	if b.wait {
		b.waitForStart()
	}
	first := 3 + len(b.cfg.Preserve)
	// CVE-2024-21626: nothing of ours stays open. The status pipe too: its end of file says that execve was done.
	p.Call("close descriptors at exec", unix.SYS_CLOSE_RANGE, first, ^uint32(0), unix.CLOSE_RANGE_CLOEXEC)
	for _, l := range b.process.Rlimits {
		nr, _ := rlimitNumber(l.Type)
		var now unix.Rlimit
		if unix.Getrlimit(nr, &now) == nil && l.Hard > now.Max && !hasCap(unix.CAP_SYS_RESOURCE) {
			continue // clamped in raiseLimits
		}
		b.setLimit(nr, &l)
	}
	b.personality()
	// A session keyring of its own: otherwise the container's processes share the caller's keys (keyrings(7)).
	p.Call("join session keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, "_ses").Allow(unix.ENOSYS, unix.EPERM, unix.EDQUOT, unix.EACCES)
	umask := uint32(0o022)
	if m := b.process.User.Umask; m != nil {
		umask = *m
	}
	p.Call("set umask", unix.SYS_UMASK, umask)
	filter, err := b.filter()
	if err != nil {
		return err
	}
	if b.process.NoNewPrivileges {
		p.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	} else {
		b.loadFilter(filter) // needs CAP_SYS_ADMIN, seccomp(2)
	}
	if err := b.becomeUser(); err != nil {
		return err
	}
	if again != nil {
		again()
	}
	if !b.outlives {
		// After the last change of ids, which clears it. A monitor that is already gone has closed the status pipe: the
		// write then ends this process by SIGPIPE.
		p.Call("die with the parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	}
	if b.process.NoNewPrivileges {
		b.loadFilter(filter)
	}
	b.exec()
	return nil
}

// stdio puts the three descriptors in place.
func (b *boot) stdio() error {
	if b.process.Terminal {
		return b.preserve()
	}
	var null int = -1
	files := b.cfg.Stdio
	var from [3]int
	for i, f := range files {
		fd := -1
		switch {
		case f != nil:
			// Above 2, so that filling one place does not lose another.
			dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				return fmt.Errorf("stdio: %w", err)
			}
			b.fds = append(b.fds, dup)
			fd = dup
		default:
			if null < 0 {
				var err error
				if null, err = b.open("/dev/null", unix.O_RDWR); err != nil {
					return err
				}
				if null < 3 {
					if null, err = unix.FcntlInt(uintptr(null), unix.F_DUPFD_CLOEXEC, 3); err != nil {
						return err
					}
					b.fds = append(b.fds, null)
				}
			}
			fd = null
		}
		from[i] = fd
	}
	for i, fd := range from {
		b.prog.Call("set stdio", unix.SYS_DUP3, fd, i, 0)
		if b.user.uid != 0 && isPipe(fd) {
			// A user other than root must be able to reopen /dev/stdout; a file of the host's (/dev/null!) stays whose it is.
			b.prog.Call("chown stdio", unix.SYS_FCHOWN, i, b.user.uid, int(-1)).Allow(unix.EINVAL, unix.EPERM, unix.EROFS, unix.EOVERFLOW)
		}
	}
	return b.preserve()
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func (b *boot) preserve() error {
	base := 3 + len(b.cfg.Preserve)
	var from []int
	for _, f := range b.cfg.Preserve {
		dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, max(base, 64))
		if err != nil {
			return err
		}
		b.fds = append(b.fds, dup)
		from = append(from, dup)
	}
	for i, fd := range from {
		b.prog.Call("preserve descriptor", unix.SYS_DUP3, fd, 3+i, 0)
	}
	return nil
}

// openingCwd begins what a failure to open the working directory says, for explain.
const openingCwd = "open working directory "

// enterCwd changes into the working directory without magic links (CVE-2024-21626), making a missing one for the first
// process of a container, not for others (as runc). The
// function it returns, if any, tries again as the user, for a directory that root may not enter (NFS, FUSE).
func (b *boot) enterCwd(cwd string) func() {
	p := b.prog
	cwd = clean(cwd)
	denied, done := p.NewLabel(), p.NewLabel()
	root := p.Call("open root", unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Result()
	b.rootReg = root
	if cwd != "/" {
		fd := b.openCwd(root, cwd)
		p.Call("enter working directory "+cwd, unix.SYS_FCHDIR, fd).Allow(unix.EACCES).Else(denied)
		p.Jump(done)
		p.Mark(denied)
		p.Call("enter /", unix.SYS_FCHDIR, root)
		p.Mark(done)
	} else {
		p.Call("enter /", unix.SYS_FCHDIR, root)
	}
	b.checkCwd()
	if cwd == "/" {
		return nil
	}
	return func() {
		p.Call("enter working directory "+cwd, unix.SYS_CHDIR, cwd)
		b.checkCwd()
	}
}

// openCwd opens the working directory, which is not /.
func (b *boot) openCwd(root kernel.Reg, cwd string) kernel.Reg {
	p := b.prog
	const flags, resolve = unix.O_PATH | unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	if b.present {
		return b.openHow(openingCwd+cwd, root, cwd, flags, resolve, 0).Result()
	}
	missing, there := p.NewLabel(), p.NewLabel()
	fd := p.Register()
	b.openHow(openingCwd+cwd, root, cwd, flags, resolve, 0, unix.ENOENT).Else(missing).Into(fd)
	p.Jump(there)
	p.Mark(missing)
	b.makeDirs(cwd, fd)
	p.Mark(there)
	return fd
}

// checkCwd refuses a working directory outside the root: getcwd(2) then begins with "(unreachable)".
func (b *boot) checkCwd() {
	buf := make([]byte, unix.PathMax)
	b.prog.Call("check working directory", unix.SYS_GETCWD, buf, len(buf))
	b.prog.CheckByte("the working directory is outside the root of the container", buf, 0, '/', unix.EPERM)
}

// waitForStart says that all is set up, and waits for a byte in the FIFO.
func (b *boot) waitForStart() {
	p := b.prog
	b.searchCommand()
	p.Call("report ready", unix.SYS_WRITE, b.status[1], []byte{ready}, 1)
	// struct pollfd; ppoll without timeout: whom we wait for is the person who starts the container.
	pfd := make([]byte, 8)
	binary.NativeEndian.PutUint32(pfd, uint32(b.fifo))
	binary.NativeEndian.PutUint16(pfd[4:], unix.POLLIN)
	p.Call("wait for start", unix.SYS_PPOLL, pfd, 1, 0, 0, 0)
}

// personality applies what the runtime-spec knows beyond ids and capabilities.
func (b *boot) personality() {
	p := b.prog
	if pers := b.spec.Linux.Personality; pers != nil && pers.Domain == specs.PerLinux32 {
		p.Call("set personality", unix.SYS_PERSONALITY, 0x0008)
	}
	if prio := b.process.IOPriority; prio != nil {
		class := 2
		switch prio.Class {
		case specs.IOPRIO_CLASS_RT:
			class = 1
		case specs.IOPRIO_CLASS_IDLE:
			class = 3
		}
		p.Call("set I/O priority", unix.SYS_IOPRIO_SET, 1, 0, class<<13|prio.Priority)
	}
}

// filter is the compiled seccomp program: the caller's, or made from the configuration; nil for none.
func (b *boot) filter() (*seccomp.Program, error) {
	if n := len(b.cfg.Seccomp); n > 0 {
		if n%unix.SizeofSockFilter != 0 {
			return nil, errdef.Invalid("the compiled seccomp filter has %d bytes, no multiple of %d", n, unix.SizeofSockFilter)
		}
		insns := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&b.cfg.Seccomp[0])), n/unix.SizeofSockFilter)
		return &seccomp.Program{Filter: slices.Clone(insns)}, nil // a copy, for alignment
	}
	if b.spec.Linux.Seccomp == nil {
		return nil, nil
	}
	prog, warnings, err := seccomp.Compile(b.spec.Linux.Seccomp)
	b.warnings = append(b.warnings, warnings...)
	if err == nil && prog.Notify {
		err = errdef.Unavailable("seccomp: notification listeners are not supported")
	}
	return prog, err
}

func (b *boot) loadFilter(f *seccomp.Program) {
	if f == nil {
		return
	}
	b.prog.Keep(unsafe.Pointer(unsafe.SliceData(f.Filter)))
	fprog := &unix.SockFprog{Len: uint16(len(f.Filter)), Filter: &f.Filter[0]}
	b.prog.Call("load seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f.Flags|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, ptr(fprog))
}

// becomeUser gives up what the process is not to have: bounding set first, then ids, then the other sets.
func (b *boot) becomeUser() error {
	p := b.prog
	caps := b.process.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	bounding, err := b.capMask(caps.Bounding)
	if err != nil {
		return err
	}
	for c := range 64 {
		if bounding&(1<<c) == 0 && c <= unix.CAP_LAST_CAP {
			p.Call("drop capability from bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0).Allow(unix.EINVAL)
		}
	}
	p.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	if b.userns == nil || !b.setgroupsDenied() {
		groups := make([]byte, 4*len(b.user.groups))
		for i, g := range b.user.groups {
			binary.NativeEndian.PutUint32(groups[4*i:], g)
		}
		p.Call("set groups", unix.SYS_SETGROUPS, len(b.user.groups), groups)
	}
	p.Call("set group id", unix.SYS_SETRESGID, b.user.gid, b.user.gid, b.user.gid)
	p.Call("set user id", unix.SYS_SETRESUID, b.user.uid, b.user.uid, b.user.uid)
	p.Call("keep capabilities no longer", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
	var sets [3]uint64 // effective, permitted, inheritable
	for i, names := range [][]string{caps.Effective, caps.Permitted, caps.Inheritable} {
		if sets[i], err = b.capMask(names); err != nil {
			return err
		}
	}
	hdr := make([]byte, 8)
	binary.NativeEndian.PutUint32(hdr, unix.LINUX_CAPABILITY_VERSION_3)
	data := make([]byte, 24)
	for i, set := range sets {
		binary.NativeEndian.PutUint32(data[4*i:], uint32(set))
		binary.NativeEndian.PutUint32(data[12+4*i:], uint32(set>>32))
	}
	p.Call("set capabilities", unix.SYS_CAPSET, hdr, data)
	ambient, err := b.capMask(caps.Ambient)
	if err != nil {
		return err
	}
	p.Call("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := range 64 {
		if ambient&(1<<c) != 0 {
			p.Call("raise ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0).Allow(unix.EPERM)
		}
	}
	return nil
}

// exec runs the command: the path as it is when it has a slash, else below each directory of PATH.
func (b *boot) exec() {
	p := b.prog
	argv, env := p.Strings(b.process.Args), p.Strings(b.environment())
	for _, path := range b.candidates() {
		if b.cfg.Init != "" {
			b.execInit(path, env)
			continue
		}
		c := p.Call("exec "+path, unix.SYS_EXECVE, path, argv, env).Allow(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
		b.tries = append(b.tries, try{path, c.Result()})
	}
	p.Fail("exec "+b.process.Args[0], unix.ENOENT)
}

// execInit executes the init for the command at path, if that can be executed: the init itself is always there, and a
// command that is not is to be told like any other.
func (b *boot) execInit(path string, env any) {
	p := b.prog
	next := p.NewLabel()
	c := p.Call("exec "+path, unix.SYS_FACCESSAT, unix.AT_FDCWD, path, unix.X_OK).Allow(unix.ENOENT, unix.ENOTDIR, unix.EACCES).Else(next)
	b.tries = append(b.tries, try{path, c.Result()})
	argv := p.Strings(slices.Concat([]string{b.cfg.Init, path}, b.process.Args))
	p.Call("exec "+b.cfg.Init, unix.SYS_EXECVE, b.cfg.Init, argv, env)
	p.Mark(next)
}

// searchCommand fails early, for a process that waits for Start: the command may still go away.
func (b *boot) searchCommand() {
	p := b.prog
	found := p.NewLabel()
	for _, path := range b.candidates() {
		next := p.NewLabel()
		c := p.Call("exec "+path, unix.SYS_FACCESSAT, unix.AT_FDCWD, path, unix.X_OK).Allow(unix.ENOENT, unix.ENOTDIR, unix.EACCES).Else(next)
		b.tries = append(b.tries, try{path, c.Result()})
		p.Jump(found)
		p.Mark(next)
	}
	p.Fail("exec "+b.process.Args[0], unix.ENOENT)
	p.Mark(found)
}

func (b *boot) candidates() []string {
	name := b.process.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	if name == "" {
		return nil
	}
	search := defaultPath
	for _, e := range b.process.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for _, dir := range filepath.SplitList(search) {
		if !filepath.IsAbs(dir) {
			continue // a relative PATH would mean the working directory, which the image chooses
		}
		out = append(out, filepath.Join(dir, name))
	}
	return out
}

func (b *boot) environment() []string {
	env := slices.Clone(b.process.Env)
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env, "HOME="+b.user.home)
}

// explain says what a failure means for the person who typed the command.
func (b *boot) explain(err error) error {
	var e *kernel.Error
	if !errors.As(err, &e) {
		return err
	}
	if cwd, ok := strings.CutPrefix(e.What, openingCwd); ok && b.present {
		kind := errdef.ErrCannotRun
		if e.Errno == unix.ENOENT {
			kind = errdef.ErrNoCommand // as Docker, whose status of it is 127
		}
		return errdef.As(kind, fmt.Errorf("chdir to cwd (%q) failed: %w", cwd, e.Errno))
	}
	if !strings.HasPrefix(e.What, "exec ") {
		return err
	}
	name := b.process.Args[0]
	worst := e.Errno
	for _, t := range b.tries {
		if r := b.prog.Value(t.result); r < 0 && unix.Errno(-r) == unix.EACCES {
			worst = unix.EACCES
		}
	}
	switch worst {
	case unix.ENOENT, unix.ENOTDIR:
		if !strings.Contains(name, "/") {
			return errdef.As(errdef.ErrNoCommand, fmt.Errorf("exec: %q: executable file not found in $PATH", name))
		}
		return errdef.As(errdef.ErrNoCommand, fmt.Errorf("exec: %q: stat %s: %w", name, name, worst))
	}
	return errdef.As(errdef.ErrCannotRun, fmt.Errorf("exec: %q: %w", name, worst))
}
