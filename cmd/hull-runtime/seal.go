package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"hull/kernel"

	"golang.org/x/sys/unix"
)

// seal executes this program anew from a read-only mount of its directory, before a process of it gets into a
// container: there root may be the host's, and could open /proc/PID/exe for writing (CVE-2019-5736). It returns when
// there is nothing to do: already done, no container about to be entered, or no right to mount.
func (c *command) seal() error {
	if os.Geteuid() != 0 || !slices.Contains([]string{"create", "run", "exec"}, c.name) {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/proc/self/exe", &st); err != nil {
		return fmt.Errorf("look at our own program: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return nil
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find our own program: %w", err)
	}
	dir, err := kernel.ReadOnly(filepath.Dir(exe))
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(exe))
	return fmt.Errorf("execute %s anew: %w", exe, unix.Exec(path, os.Args, os.Environ()))
}
