package runtime

import (
	"slices"
	"strings"

	"hull/errdef"
)

// capabilities by number, capabilities(7).
var capabilities = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// Capabilities returns the names of all capabilities, as the runtime-spec has them.
func Capabilities() []string {
	names := make([]string, len(capabilities))
	for i, n := range capabilities {
		names[i] = "CAP_" + n
	}
	return names
}

// capMask turns names into bits. What we do not have ourselves cannot be given: inside a new user namespace that is
// nothing, outside it is left out with a warning.
func (b *boot) capMask(names []string) (mask uint64, err error) {
	for _, name := range names {
		i := slices.Index(capabilities[:], strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		if i < 0 {
			return 0, errdef.Invalid("unknown capability %q", name)
		}
		if b.userns == nil && !hasCap(uint(i)) {
			w := "capability " + name + " is left out: this process does not have it itself"
			if !slices.Contains(b.warnings, w) {
				b.warnings = append(b.warnings, w)
			}
			continue
		}
		mask |= 1 << i
	}
	return mask, nil
}
