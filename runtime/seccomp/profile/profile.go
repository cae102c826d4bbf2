// Package profile makes the seccomp profile of a container: Docker's default with Hull's hardening, or a file in
// Docker's format, resolved for a machine and a set of capabilities.
package profile

import (
	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Options are the facts about a container that its profile depends on.
type Options struct {
	Caps  []string // bounding set, with the CAP_ prefix
	Added []string // capabilities somebody asked for by name (--cap-add), with the CAP_ prefix; ALL counts as all of them
	// Compat32 opens the 32-bit system calls of a 64-bit machine (i386 on amd64, arm on arm64). Set it when the
	// image is of such an architecture or contains a 32-bit loader.
	Compat32 bool
}

// File returns the path of a file holding the compiled default profile for o, an array of struct sock_filter in
// native byte order. Files are kept in <root>/seccomp and made when missing or damaged; concurrent callers are safe.
func File(root string, o Options) (string, error) {
	return "", errdef.Unavailable("the default seccomp profile is not built yet")
}

// Default returns the default profile for o.
func Default(o Options) (*specs.LinuxSeccomp, error) {
	return nil, errdef.Unavailable("the default seccomp profile is not built yet")
}

// Parse reads a profile in the format of docker run --security-opt seccomp=FILE and resolves it for o.
func Parse(json []byte, o Options) (*specs.LinuxSeccomp, error) {
	return nil, errdef.Unavailable("the default seccomp profile is not built yet")
}
