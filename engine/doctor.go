package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Level says how much a Check matters.
type Level string

// The levels. Only LevelFail means that containers cannot run, or not as they should by default.
const (
	LevelOK   Level = "ok"
	LevelInfo Level = "info"
	LevelWarn Level = "warn"
	LevelFail Level = "fail"
)

// Check is one thing Doctor looked at, in plain sentences.
type Check struct {
	Group string // "kernel", "isolation", "limits", "store", "user" or "hull"
	Name  string
	Level Level
	Found string // what is there
	Means string // what follows for containers; "" when all is well
	Do    string // the cure; "" when none is needed or known
}

// Diagnosis is what this kernel and user can and cannot do.
type Diagnosis struct {
	Kernel string // release
	Arch   string
	UID    int
	Root   string
	Run    string
	Checks []Check // in order of groups
}

// Healthy reports whether no check failed.
func (d *Diagnosis) Healthy() bool {
	return !slices.ContainsFunc(d.Checks, func(c Check) bool { return c.Level == LevelFail })
}

// Doctor looks at the kernel, the user and the store. It changes nothing, needs no store, and never fails: what
// cannot be found out is a Check that says so.
func (e *Engine) Doctor(ctx context.Context) *Diagnosis { return e.examine(ctx).diagnose() }

// diagnose turns facts into checks. It asks the machine nothing, so every case can be tested anywhere.
func (f *facts) diagnose() *Diagnosis {
	d := &Diagnosis{Kernel: f.kernel, Arch: f.arch, UID: f.uid, Root: f.root.path, Run: f.run.path}
	for _, g := range []struct {
		name   string
		judges []func(*facts) Check
	}{
		{"kernel", []func(*facts) Check{judgeKernel, judgeCalls, judgeOverlay}},
		{"isolation", []func(*facts) Check{judgeNamespaces, judgeUserNS, judgeIDMap, judgeSeccomp, judgeLSM}},
		{"limits", []func(*facts) Check{judgeCgroups, judgeOpenFiles}},
		{"store", []func(*facts) Check{judgeRoot, judgeRun, judgeSpace, judgeLayout, judgeLeftovers}},
		{"user", []func(*facts) Check{judgeUser, judgeSubIDs}},
		{"hull", []func(*facts) Check{judgePayload, judgeNetwork, judgeRuntimes}},
	} {
		for _, judge := range g.judges {
			if c := judge(f); c.Level != "" {
				c.Group = g.name
				d.Checks = append(d.Checks, c)
			}
		}
	}
	return d
}

func judgeKernel(f *facts) Check {
	c := Check{Name: "version", Level: LevelOK, Found: fmt.Sprintf("Linux %s on %s", f.kernel, f.arch)}
	if f.major < 6 || f.major == 6 && f.minor < 1 {
		c.Level = LevelWarn
		c.Means = "Hull is tested with Linux 6.1 and newer; on an older one some containers may not start."
		c.Do = "Use a newer kernel if something fails."
	}
	return c
}

func judgeCalls(f *facts) Check {
	if len(f.noCalls) == 0 {
		return Check{Name: "system calls", Level: LevelOK, Found: "the mount API by descriptors, openat2, clone3 and pidfds are there"}
	}
	return Check{Name: "system calls", Level: LevelFail,
		Found: "missing: " + strings.Join(f.noCalls, ", "),
		Means: "Containers cannot be started.",
		Do:    "Use Linux 6.1 or newer. If the kernel is new enough, this shell is in a sandbox that hides them (a seccomp filter): allow them there."}
}

func judgeOverlay(f *facts) Check {
	c := Check{Name: "overlayfs", Level: LevelOK}
	switch {
	case !f.overlayKnown && f.overlayLater:
		c.Level = LevelInfo
		c.Found = "a module that the kernel loads when the first container starts"
	case !f.overlayKnown:
		c.Level = LevelFail
		c.Found = "this kernel has no overlayfs"
		c.Means = "Containers have no root file system."
		c.Do = "Use a kernel with CONFIG_OVERLAY_FS, or install the modules of this one."
	case f.overlay != nil:
		c.Level = LevelFail
		c.Found = fmt.Sprintf("overlayfs cannot be mounted on %s (%s): %v", f.root.probed, f.root.fs, f.overlay)
		c.Means = "Containers have no root file system."
		c.Do = "Put the store on a local file system (ext4, xfs, btrfs, tmpfs) with --root or HULL_ROOT."
	case f.atLeast(6, 13):
		c.Found = "layers are stacked by descriptor, up to 500 of them"
	default:
		c.Found = "layers are stacked by mount(2), some 230 of them (Linux 6.13 takes 500)"
	}
	return c
}

func judgeNamespaces(f *facts) Check {
	c := Check{Name: "namespaces", Level: LevelOK, Found: "mount, pid, net, uts, ipc, cgroup, user and time"}
	if len(f.noNamespaces) == 0 {
		return c
	}
	c.Level = LevelWarn
	c.Found = "the kernel lacks: " + strings.Join(f.noNamespaces, ", ")
	c.Means = "Containers share these with the host."
	c.Do = "Use a kernel built with them (CONFIG_NAMESPACES and what is below it)."
	for _, ns := range f.noNamespaces {
		if slices.Contains([]string{"mnt", "pid", "net", "uts", "ipc"}, ns) {
			c.Level = LevelFail
			c.Means = "Containers cannot be started."
		}
	}
	return c
}

func judgeUserNS(f *facts) Check {
	if f.userNS == nil {
		return Check{Name: "user namespace", Level: LevelOK, Found: "root in a container is nobody outside"}
	}
	c := Check{Name: "user namespace", Level: LevelFail, Found: "cannot be created: " + f.userNS.Error()}
	if f.uid == 0 {
		c.Means = "Containers run only with --userns=host, where root inside is root outside."
	} else {
		c.Means = "An ordinary user cannot run containers here."
	}
	c.Do = f.cureUserNS()
	return c
}

func (f *facts) cureUserNS() string {
	switch {
	case f.sysctl("user/max_user_namespaces") == "0":
		return "As root: sysctl -w user.max_user_namespaces=15000"
	case f.uid != 0 && f.sysctl("kernel/unprivileged_userns_clone") == "0":
		return "As root: sysctl -w kernel.unprivileged_userns_clone=1"
	case f.uid != 0 && f.sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "As root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give hull an AppArmor profile with the rule \"userns,\"."
	}
	return "Use a kernel built with CONFIG_USER_NS; in a sandbox or container, allow user namespaces there."
}

func judgeIDMap(f *facts) Check {
	c := Check{Name: "id-mapped mounts", Level: LevelOK}
	switch {
	case f.uid != 0:
		c.Level = LevelInfo
		c.Found = "only root can make them; the layers of an ordinary user are owned by that user"
	case f.userNS != nil:
		c.Level = LevelInfo
		c.Found = "not tried: that takes a user namespace"
	case f.idmap == nil:
		c.Found = fmt.Sprintf("work on %s (%s): layers are shared between containers, none is copied or chowned", f.root.probed, f.root.fs)
	default:
		c.Level = LevelFail
		c.Found = fmt.Sprintf("do not work on %s (%s): %v", f.root.probed, f.root.fs, f.idmap)
		c.Means = "Containers run only with --userns=host, where root inside is root outside."
		c.Do = "Put the store on ext4, xfs, btrfs or tmpfs with --root or HULL_ROOT."
	}
	return c
}

func judgeSeccomp(f *facts) Check {
	c := Check{Name: "seccomp", Level: LevelOK, Found: "containers get a filter of system calls"}
	if f.seccomp != nil {
		c.Level = LevelFail
		c.Found = "the kernel takes no filters: " + f.seccomp.Error()
		c.Means = "Containers run only with --security-opt seccomp=unconfined, and may then try every system call."
		c.Do = "Use a kernel with CONFIG_SECCOMP_FILTER."
	}
	return c
}

func judgeLSM(f *facts) Check {
	c := Check{Name: "security modules", Level: LevelInfo, Found: "no AppArmor, SELinux or Landlock: containers do without"}
	if len(f.lsm) > 0 {
		c.Found = strings.Join(f.lsm, ", ")
	}
	return c
}

// limitFlags says which flags need a controller, in the order they are reported in.
func limitFlags() [][2]string {
	return [][2]string{
		{"memory", "--memory"}, {"cpu", "--cpus and --cpu-shares"}, {"pids", "--pids-limit"}, {"cpuset", "--cpuset-cpus"},
		{"io", "--blkio-weight and --device-read-bps"}, {"devices", "device rules"}, {"freezer", "pause"},
	}
}

func judgeCgroups(f *facts) Check {
	c := Check{Name: "cgroups", Level: LevelOK}
	g := &f.cgroups
	if g.layout == "" && f.uid == 0 {
		return Check{Name: "cgroups", Level: LevelFail, Found: "no cgroup file system is mounted",
			Means: "Nothing of a container can be limited, and what it leaves behind cannot be found.",
			Do:    "As root: mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
	}
	switch {
	case g.layout == "":
		c.Found = "none"
	case len(g.controllers) == 0:
		c.Found = g.layout + " without controllers"
	default:
		c.Found = g.layout + " with " + strings.Join(g.controllers, ", ")
	}
	if f.uid != 0 {
		c.Level = LevelInfo
		c.Means = "This version uses them for root only: for this user --memory, --cpus and --pids-limit do not hold, with a warning."
		return c
	}
	if g.refused != nil {
		c.Level = LevelFail
		c.Found += fmt.Sprintf("; %s is not ours to write: %v", g.dir, g.refused)
		c.Means = "Containers cannot be started."
		c.Do = "Mount the cgroup file system writable; inside another container engine that takes --privileged."
		return c
	}
	var without []string
	for _, l := range limitFlags() {
		if !slices.Contains(g.controllers, l[0]) {
			without = append(without, l[1])
		}
	}
	if len(without) > 0 {
		c.Level = LevelWarn
		c.Means = "No effect on this machine: " + strings.Join(without, ", ") + "."
		c.Do = "Enable the controllers on the kernel's command line (cgroup_enable=memory, cgroup_no_v1=all)."
	}
	return c
}

func judgeOpenFiles(f *facts) Check {
	c := Check{Name: "open files", Level: LevelOK, Found: fmt.Sprintf("up to %d a process", f.nofile)}
	switch {
	case f.nofile < 1024:
		c.Level = LevelWarn
		c.Means = "Servers in containers may run out of descriptors."
		c.Do = "Raise the hard limit of this session (ulimit -Hn 1048576, /etc/security/limits.conf)."
	case !f.capResource:
		c.Level = LevelInfo
		c.Found += "; without CAP_SYS_RESOURCE no limit can be raised"
		c.Means = "A larger --ulimit is cut to what there is, and --oom-score-adj cannot go down; the container starts, with a warning."
	}
	return c
}
