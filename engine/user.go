package engine

import (
	"strconv"
	"strings"

	"hull/errdef"
)

// maxUserID is the largest user or group id: 2^32-1 means "no change" to the kernel.
const maxUserID = 1<<32 - 2

// checkUser holds USER[:GROUP] to the rules that keep a number from being taken for a name and the other way
// round (CVE-2024-40635, CVE-2016-3697): what is all digits is never looked up, and must be an id. The names are
// resolved in the container's own root, by the runtime.
func checkUser(s string) error {
	if s == "" {
		return nil
	}
	user, group, found := strings.Cut(s, ":")
	if user == "" && group == "" || found && group == "" {
		return errdef.Invalid("invalid user %q: want USER or USER:GROUP", clip(s))
	}
	for _, part := range []string{user, group} {
		if err := checkUserPart(part); err != nil {
			return err
		}
	}
	return nil
}

func checkUserPart(s string) error {
	if s == "" {
		return nil
	}
	if isDigits(strings.TrimLeft(s, "+-")) {
		if n, err := strconv.ParseUint(s, 10, 64); err != nil || n > maxUserID {
			return errdef.Invalid("invalid user or group id %q: must be between 0 and %d", clip(s), uint64(maxUserID))
		}
		return nil
	}
	// What cannot be a name in /etc/passwd is not looked for there.
	if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f || r == '/' || r == ',' }) {
		return errdef.Invalid("invalid user or group name %q", clip(s))
	}
	return nil
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
