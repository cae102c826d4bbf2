package profile

import (
	"errors"
	"testing"

	"hull/errdef"
	"hull/runtime/seccomp"
)

// A profile file is written by a person: anything in it is refused as invalid or resolves and compiles.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
		"syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"4.8"}},
		{"names":["write"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["arm64"]}},null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text, Options{Caps: dockerCaps})
		if err == nil {
			_, _, err = seccomp.Compile(s)
		}
		if err != nil && !errors.Is(err, errdef.ErrInvalid) {
			t.Fatalf("%v is not of the kind invalid", err)
		}
	})
}
