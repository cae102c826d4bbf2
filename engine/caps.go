package engine

import (
	"slices"
	"strings"

	"hull/errdef"
)

// defaultCaps are Docker's fourteen. Most are harmless in a user namespace; keeping them keeps CapEff what
// programs and people expect.
var defaultCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// allCaps are those of Linux 6.18, by number: see capabilities(7).
var allCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

const capAll = "ALL"

// capabilities returns the capabilities of the container's processes, and those asked for by name.
// As in Docker, the order of add and drop does not matter: ALL is taken first, names win over it.
func capabilities(h *Host) (caps, added []string, err error) {
	add, err := capNames(h.CapAdd)
	if err != nil {
		return nil, nil, err
	}
	drop, err := capNames(h.CapDrop)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case h.Privileged, slices.Contains(add, capAll):
		caps = slices.Clone(allCaps[:])
	case slices.Contains(drop, capAll):
	default:
		caps = slices.Clone(defaultCaps[:])
	}
	if h.Privileged { // drops do not apply to what is asked to have everything
		return caps, []string{capAll}, nil
	}
	caps = slices.DeleteFunc(caps, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c != capAll && !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return caps, add, nil
}

// capNames brings capability names to the form CAP_X, or ALL.
func capNames(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, n := range names {
		c := strings.ToUpper(strings.TrimSpace(n))
		if c == capAll || c == "CAP_ALL" {
			out = append(out, capAll)
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(allCaps[:], c) {
			return nil, errdef.Invalid("invalid capability: %q", clip(n))
		}
		out = append(out, c)
	}
	return out, nil
}
