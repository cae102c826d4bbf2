package engine

import (
	"strings"

	"hull/errdef"
)

// security is what --security-opt says.
type security struct {
	noNewPrivileges bool
	seccomp         string // "" is the default profile, "unconfined", or a profile in Docker's JSON
	apparmor        string
	label           []string // of SELinux: "disable", "type:X", ...
	unmasked        bool     // systempaths=unconfined
}

const unconfined = "unconfined"

func parseSecurity(h *Host) (*security, error) {
	s := new(security)
	if h.Privileged {
		s.seccomp, s.apparmor, s.unmasked = unconfined, unconfined, true
	}
	for _, o := range h.SecurityOpt {
		if o == "no-new-privileges" {
			s.noNewPrivileges = true
			continue
		}
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			if key, value, ok = strings.Cut(o, ":"); !ok { // the old spelling
				return nil, errdef.Invalid("invalid --security-opt: %q", clip(o))
			}
		}
		switch key {
		case "no-new-privileges":
			if value != "true" && value != "false" {
				return nil, errdef.Invalid("invalid --security-opt: %q", clip(o))
			}
			s.noNewPrivileges = value == "true"
		case "seccomp":
			s.seccomp = value
			if value == "builtin" {
				s.seccomp = ""
			}
		case "apparmor":
			s.apparmor = value
		case "label":
			s.label = append(s.label, value)
		case "systempaths":
			if value != unconfined {
				return nil, errdef.Invalid("invalid --security-opt: %q", clip(o))
			}
			s.unmasked = true
		default:
			return nil, errdef.Invalid("invalid --security-opt: %q", clip(o))
		}
	}
	return s, nil
}

// The paths of Docker 29, and those of threats 2.2 and A27 that its list lacks.
var (
	maskedPaths = [...]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware", "/sys/fs/selinux", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/slab", "/sys/kernel/tracing",
	}
	readonlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)
