package engine

import (
	"slices"
	"strings"

	"hull/config"
	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func checkUlimits(us []Ulimit) error {
	for _, u := range us {
		switch {
		case !slices.Contains(config.LimitNames[:], u.Name):
			return errdef.Invalid("invalid ulimit type: %s", clip(u.Name))
		case u.Soft < -1 || u.Hard < -1:
			return errdef.Invalid("invalid ulimit %s: a limit must not be negative, but -1 for unlimited", u.Name)
		case u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1):
			return errdef.Invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	return nil
}

// A program that scans all descriptors up to the limit takes seconds at a million: hence the soft limit of shells.
const (
	softFiles = 1024
	hardFiles = 524288
)

// rlimits of the container's first process: no core dumps (they leave the container through core_pattern), the
// usual number of files, and what the person says.
func rlimits(us []Ulimit) []specs.POSIXRlimit {
	out := []specs.POSIXRlimit{
		{Type: "RLIMIT_CORE", Soft: 0, Hard: hardLimit(unix.RLIMIT_CORE, unix.RLIM_INFINITY)},
		{Type: "RLIMIT_NOFILE", Soft: softFiles, Hard: hardLimit(unix.RLIMIT_NOFILE, hardFiles)},
	}
	for _, u := range us {
		l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)} // -1 is RLIM_INFINITY
		out = slices.DeleteFunc(out, func(have specs.POSIXRlimit) bool { return have.Type == l.Type })
		out = append(out, l)
	}
	return out
}

// hardLimit is want, or what this process may give at most: nobody asked for it by number, so nobody need be warned.
func hardLimit(which int, want uint64) uint64 {
	var have unix.Rlimit
	if unix.Getrlimit(which, &have) != nil {
		return want
	}
	return min(want, have.Max)
}
