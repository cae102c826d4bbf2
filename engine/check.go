package engine

import (
	"path"
	"strings"

	"hull/errdef"
)

// Modes of a namespace.
const (
	modeHost      = "host"
	modeNone      = "none"
	modePrivate   = "private"
	modeShareable = "shareable"
)

// maxLabels bounds what a person hangs on a container, all labels together, in bytes.
const maxLabels = 1 << 20

// check refuses a definition that no container can be made of, before anything is made, and says what is done
// otherwise than asked. It looks at nothing outside the definition.
func (r *record) check() (warnings []string, err error) {
	c, h := &r.Config, &r.Host
	if len(c.Entrypoint)+len(c.Cmd) == 0 {
		return nil, errdef.Invalid("no command specified")
	}
	for _, a := range append(c.Entrypoint[:len(c.Entrypoint):len(c.Entrypoint)], c.Cmd...) {
		if strings.ContainsRune(a, 0) {
			return nil, errdef.Invalid("invalid command: an argument has a NUL byte")
		}
	}
	for _, check := range []func() error{
		func() error { return checkEnv(c.Env) },
		func() error { return checkUser(c.User) },
		func() error { return checkWorkingDir(c.WorkingDir) },
		func() error { return checkHostname(c.Hostname) },
		func() error { return checkHostname(c.Domainname) },
		func() error { return checkLabels(c.Labels) },
		func() error { return checkStop(c) },
		func() error { return checkRestart(h) },
		func() error { return checkHealth(c.Health) },
		func() error { return checkModes(h) },
		func() error { return checkResources(&h.Resources) },
		func() error { return checkSysctls(h) },
		func() error { return checkUlimits(h.Ulimits) },
		func() error { return checkHosts(h) },
		func() error { return checkGroups(h.GroupAdd) },
		func() error { return checkCgroupParent(h.CgroupParent) },
		func() error { _, _, err := capabilities(h); return err },
		func() error { _, err := parseSecurity(h); return err },
		func() error { _, err := parseMounts(h); return err },
		func() error { return checkDevices(h) },
		func() error { _, err := logConfig(&h.Log); return err },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if warnings, err = checkPorts(c, h); err != nil {
		return nil, err
	}
	if h.UTSMode == modeHost && c.Hostname != "" {
		return nil, errdef.Invalid("conflicting options: hostname and the UTS mode")
	}
	if h.OOMScoreAdj < -1000 || h.OOMScoreAdj > 1000 {
		return nil, errdef.Invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OOMScoreAdj)
	}
	return warnings, nil
}

func checkWorkingDir(dir string) error {
	if dir != "" && !path.IsAbs(dir) {
		return errdef.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", clip(dir))
	}
	return noControl("working directory", dir)
}

// checkHostname keeps line breaks and the like out of /etc/hosts; 64 bytes is the kernel's limit.
func checkHostname(name string) error {
	ok := len(name) <= 64 && !strings.HasPrefix(name, "-") && !strings.HasPrefix(name, ".")
	for _, c := range []byte(name) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.' || c == '_')
	}
	if !ok {
		return errdef.Invalid("invalid hostname format: %s", clip(name))
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	size := 0
	for k, v := range labels {
		if k == "" || strings.ContainsRune(k, 0) || strings.ContainsRune(v, 0) {
			return errdef.Invalid("invalid label %q: an empty name or a NUL byte", clip(k))
		}
		size += len(k) + len(v)
	}
	if size > maxLabels {
		return errdef.Invalid("the labels have %d bytes together, more than the %d that are allowed", size, maxLabels)
	}
	return nil
}

func checkStop(c *Config) error {
	if c.StopSignal == "" {
		return nil
	}
	_, err := ParseSignal(c.StopSignal)
	return err
}

func checkModes(h *Host) error {
	for _, m := range []struct{ flag, value, allowed string }{
		{"--userns", h.Userns, "host private"},
		{"--pid", h.PidMode, "host private"},
		{"--ipc", h.IPCMode, "host private shareable none"},
		{"--uts", h.UTSMode, "host private"},
		{"--cgroupns", h.CgroupnsMode, "host private"},
	} {
		if (m.flag == "--pid" || m.flag == "--ipc") && strings.HasPrefix(m.value, containerPrefix) {
			continue // see resolveShared
		}
		if m.value != "" && !contains(m.allowed, m.value) {
			return errdef.Invalid("invalid mode for %s: %s", m.flag, clip(m.value))
		}
	}
	return nil
}

func contains(words, w string) bool {
	for f := range strings.FieldsSeq(words) {
		if f == w {
			return true
		}
	}
	return false
}

// checkSysctls admits what belongs to a namespace that the container has to itself.
func checkSysctls(h *Host) error {
	for k, v := range h.Sysctls {
		k = strings.ReplaceAll(k, "/", ".")
		if err := noControl("sysctl "+k, k+v); err != nil {
			return err
		}
		net := strings.HasPrefix(k, "net.")
		ipc := strings.HasPrefix(k, "fs.mqueue.") || strings.HasPrefix(k, "kernel.shm") || strings.HasPrefix(k, "kernel.msg") || k == "kernel.sem"
		switch {
		case strings.Contains(k, ".."):
		case net && h.Network == modeHost:
			return errdef.Invalid("sysctl %q not allowed in host network namespace", k)
		case ipc && h.IPCMode == modeHost:
			return errdef.Invalid("sysctl %q not allowed in host ipc namespace", k)
		case net, ipc:
			continue
		}
		return errdef.Invalid("sysctl %q is not in a separate kernel namespace", clip(k))
	}
	return nil
}

// checkHosts keeps what goes into /etc/hosts and resolv.conf on its line.
func checkHosts(h *Host) error {
	for _, x := range h.ExtraHosts {
		name, addr, ok := cutHost(x)
		if !ok || checkHostname(name) != nil || strings.ContainsAny(addr, " \t\r\n\x00#") {
			return errdef.Invalid("invalid extra host %q: want NAME:ADDRESS", clip(x))
		}
	}
	for _, list := range [][]string{h.DNS, h.DNSSearch, h.DNSOptions} {
		for _, s := range list {
			if s == "" || strings.ContainsAny(s, " \t\r\n\x00#;") {
				return errdef.Invalid("invalid DNS setting %q", clip(s))
			}
		}
	}
	return nil
}

// cutHost splits NAME:ADDRESS or NAME=ADDRESS; the address may have colons.
func cutHost(s string) (name, addr string, ok bool) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || i == len(s)-1 {
		return "", "", false
	}
	return s[:i], strings.Trim(s[i+1:], "[]"), true
}

// noControl refuses bytes that end or split a line.
func noControl(what, s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errdef.Invalid("invalid %s %q: control characters are not allowed", clip(what), clip(s))
	}
	return nil
}
