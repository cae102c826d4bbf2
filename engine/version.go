package engine

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// VersionInfo says what this engine is and what it runs on.
type VersionInfo struct {
	Version, Commit, Go, OS, Arch, Kernel string
}

// Version needs no store and never fails.
func (e *Engine) Version() VersionInfo {
	v := VersionInfo{Version: e.opt.Version, Commit: e.opt.Commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if v.Version == "" {
		v.Version = "dev"
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		v.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return v
}
