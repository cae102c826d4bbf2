package engine

import (
	"fmt"
	"strings"

	"hull/state"
)

// badStore are file systems that take no overlayfs upper layer, or no id-mapped mounts, or lie about locks.
const badStore = " nfs cifs smb2 9p overlayfs fuse vfat exfat ntfs squashfs iso9660 proc sysfs "

func judgeRoot(f *facts) Check {
	d := &f.root
	c := f.judgeDir("root directory", d)
	switch {
	case c.Level != LevelOK:
	case strings.Contains(badStore, " "+d.fs+" "):
		c.Level = LevelFail
		c.Means = "Containers cannot have a writable layer on " + d.fs + "."
		c.Do = "Put the store on ext4, xfs, btrfs or tmpfs with --root or HULL_ROOT."
	case d.noexec:
		c.Level = LevelFail
		c.Found += ", mounted noexec"
		c.Means = "Neither Hull's runtime nor programs of images can be run from there."
		c.Do = "Mount it without noexec, or choose another place with --root or HULL_ROOT."
	case d.nosuid:
		c.Level = LevelWarn
		c.Found += ", mounted nosuid"
		c.Means = "Set-uid programs of images (su, sudo, ping) have no effect."
		c.Do = "Mount it without nosuid."
	}
	return c
}

func judgeRun(f *facts) Check {
	c := f.judgeDir("run directory", &f.run)
	if c.Level == LevelOK && f.uid == 0 && f.run.fs != "tmpfs" && strings.HasPrefix(f.run.path, "/run/") {
		c.Level = LevelInfo
		c.Means = "It survives a reboot, after which its content is stale; Hull finds that out by itself."
	}
	return c
}

func (f *facts) judgeDir(name string, d *directory) Check {
	c := Check{Name: name, Level: LevelOK, Found: fmt.Sprintf("%s, on %s", d.path, d.fs)}
	if d.probed != d.path {
		c.Found = fmt.Sprintf("%s does not exist yet; %s is on %s", d.path, d.probed, d.fs)
	}
	flag := "--root or HULL_ROOT"
	if d == &f.run {
		flag = "--run or HULL_RUN"
	}
	switch {
	case d.err != nil:
		c.Level, c.Found, c.Means, c.Do = LevelFail, d.err.Error(), "Nothing can be kept.", "Choose another directory with "+flag+"."
	case d.readonly:
		c.Level, c.Means, c.Do = LevelFail, "It is mounted read-only: nothing can be kept.", "Choose another directory with "+flag+"."
	case !d.writable:
		c.Level, c.Means = LevelFail, fmt.Sprintf("User %d may not write there.", f.uid)
		c.Do = "Run as its owner, or choose another directory with " + flag + "."
	case d.open:
		c.Level, c.Means = LevelWarn, fmt.Sprintf("Others may write there (mode %04o, owner %d).", d.mode, d.owner)
		c.Do = "As its owner: chmod go-w " + d.path
	}
	return c
}

func judgeSpace(f *facts) Check {
	d := &f.root
	if d.err != nil {
		return Check{}
	}
	c := Check{Name: "free space", Level: LevelOK, Found: fmt.Sprintf("%s of %s", size(d.free), size(d.size))}
	if d.inodes > 0 {
		c.Found += fmt.Sprintf(", %d inodes", d.freeInodes)
	}
	full := d.free < 1<<30 || d.inodes > 0 && d.freeInodes < 10000
	switch {
	case d.free < 32<<20 || d.inodes > 0 && d.freeInodes < 100:
		c.Level, c.Means = LevelFail, "The store is full: containers and images cannot be made."
	case full:
		c.Level, c.Means = LevelWarn, "The store is nearly full."
	}
	if c.Level != LevelOK {
		c.Do = "Remove what is not needed (hull rm, hull rmi), or move the store with --root."
	}
	return c
}

func size(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func judgeLayout(f *facts) Check {
	c := Check{Name: "layout", Level: LevelOK}
	switch {
	case !f.formatted:
		c.Level, c.Found = LevelInfo, "no store yet; the first command that needs one makes it"
	case f.version != nil:
		c.Level, c.Found = LevelFail, f.version.Error()
		c.Means = "This Hull leaves the store alone."
	default:
		c.Found = fmt.Sprintf("of version %d, the one this Hull writes", state.Version)
	}
	return c
}

func judgeLeftovers(f *facts) Check {
	c := Check{Name: "leftovers", Level: LevelOK, Found: "none"}
	if n := len(f.dead); n > 0 {
		c.Level = LevelWarn
		c.Found = fmt.Sprintf("%d containers have lost their monitor: %s", n, strings.Join(short(f.dead), " "))
		if n == 1 {
			c.Found = "the container " + short(f.dead)[0] + " has lost its monitor"
		}
		c.Means = "Somebody killed it, or memory ran out. Its processes may still run."
		c.Do = "Look at it with hull ps -a: that repairs it too."
	}
	return c
}

func short(ids []string) []string {
	var s []string
	for _, id := range ids {
		s = append(s, id[:min(12, len(id))])
	}
	return s
}

func judgeUser(f *facts) Check {
	c := Check{Name: "rights", Level: LevelOK, Found: "root"}
	switch {
	case f.uid != 0:
		c.Level, c.Found = LevelInfo, fmt.Sprintf("ordinary user %d", f.uid)
		c.Means = "Containers run rootless, with networks none and host."
	case f.nested:
		c.Level, c.Found = LevelWarn, "root of a user namespace, not of the machine"
		c.Means = "Containers may not start: id ranges and device rules belong to the machine's root."
		c.Do = "Run hull outside of that namespace (sandbox, container), as root or as an ordinary user."
	case len(f.noCaps) > 0:
		c.Level, c.Found = LevelWarn, "root without "+strings.Join(f.noCaps, ", ")
		c.Means = "Some containers may not start."
		c.Do = "Run hull outside of the sandbox or container that took these capabilities away."
	}
	return c
}

func judgeSubIDs(f *facts) Check {
	if f.uid == 0 {
		return Check{}
	}
	c := Check{Name: "user ids", Level: LevelOK, Found: fmt.Sprintf("%d sub-ids, mapped by newuidmap and newgidmap", f.subIDs)}
	var why string
	switch {
	case len(f.noMapTools) > 0:
		why = strings.Join(f.noMapTools, " and ") + " not installed or not set-uid root"
		c.Do = "As root: apt-get install uidmap"
	case f.subIDs < 65536:
		why = fmt.Sprintf("/etc/subuid and /etc/subgid give this user %d ids", f.subIDs)
		c.Do = fmt.Sprintf("As root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 %s", f.userName)
	default:
		return c
	}
	c.Level, c.Found = LevelWarn, why
	c.Means = "Containers have a single user, root, who is you; programs that change user (apt-get, servers) fail."
	return c
}

func judgePayload(f *facts) Check {
	switch {
	case f.noRuntime != nil:
		return Check{Name: "build", Level: LevelFail, Found: f.noRuntime.Error(), Means: "Containers cannot be started.", Do: "Build with make build."}
	case f.noBox != nil:
		return Check{Name: "build", Level: LevelWarn, Found: f.noBox.Error(), Means: "There is no built-in image.",
			Do: "Install busybox-static or make a Debian mirror reachable, then make build."}
	}
	return Check{Name: "build", Level: LevelOK, Found: "carries its runtime and the image box"}
}

func judgeNetwork(f *facts) Check {
	if f.uid != 0 {
		return Check{Name: "network", Level: LevelInfo, Found: "an ordinary user has --network none and host",
			Means: "Containers without --network get none, with a warning; -p has no effect."}
	}
	c := Check{Name: "network", Level: LevelOK, Found: "containers are on a bridge, unless --network says none, host or container:NAME"}
	if f.sysctl("net/ipv4/ip_forward") == "0" {
		c.Level = LevelInfo
		c.Found += "; this host forwards no packets"
		c.Means = "The first container that needs it turns net.ipv4.ip_forward on, for containers only: the firewall table of Hull drops all else."
	}
	return c
}
