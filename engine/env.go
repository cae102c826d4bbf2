package engine

import (
	"slices"
	"strings"

	"hull/errdef"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// checkEnv refuses what no environment can hold. A value may have newlines; files made from it are not ours.
func checkEnv(env []string) error {
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "":
			return errdef.Invalid("invalid environment variable: %s", clip(kv))
		case strings.ContainsRune(kv, 0):
			return errdef.Invalid("invalid environment variable: %s has a NUL byte", clip(name))
		case strings.ContainsAny(name, "\n\r"):
			return errdef.Invalid("invalid environment variable: %q has a line break in its name", clip(name))
		}
	}
	return nil
}

// overlayEnv returns base with the variables of over set. A name without "=" removes the variable.
func overlayEnv(base, over []string) []string {
	out := slices.Clone(base)
	for _, kv := range over {
		name, _, set := strings.Cut(kv, "=")
		i := slices.IndexFunc(out, func(have string) bool {
			n, _, _ := strings.Cut(have, "=")
			return n == name
		})
		switch {
		case set && i >= 0:
			out[i] = kv
		case set:
			out = append(out, kv)
		case i >= 0:
			out = slices.Delete(out, i, i+1)
		}
	}
	return out
}

// processEnv is the environment of the container's first process. HOME is set by the runtime, which knows the user's
// entry in /etc/passwd.
func processEnv(c *Config) []string {
	base := []string{defaultPath, "HOSTNAME=" + c.Hostname}
	if c.Tty {
		base = append(base, "TERM=xterm")
	}
	return overlayEnv(base, c.Env)
}
