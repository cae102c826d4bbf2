package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// joinAll completes the namespaces of spec that are another container's with paths below the directory of its process. A
// descriptor of that stays with the process, whoever gets its number; it is looked at after it was opened. The function it
// returns closes the descriptors, when the container is made.
func joinAll(spec *specs.Spec, joins []Join) (done func(), err error) {
	var fds []int
	done = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	for _, j := range joins {
		dir := "/proc/" + strconv.Itoa(j.Pid)
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
			var begun uint64
			if begun, _, err = startTime(j.Pid); err == nil && begun != j.PidStart {
				err = unix.ESRCH
			}
		}
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
			done()
			return nil, errdef.Conflict("cannot join %s of a non running container: %s", j.Namespaces[0], j.ID)
		}
		if err != nil {
			done()
			return nil, fmt.Errorf("join container %s: %w", j.ID, err)
		}
		for _, kind := range j.Namespaces {
			for i := range spec.Linux.Namespaces {
				if ns := &spec.Linux.Namespaces[i]; ns.Type == kind {
					ns.Path = fmt.Sprintf("/proc/self/fd/%d/ns/%s", fd, procName(kind))
				}
			}
		}
	}
	return done, nil
}

// procName is what /proc/PID/ns calls a namespace that the runtime-spec calls kind.
func procName(kind specs.LinuxNamespaceType) string {
	switch kind {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(kind)
}

// disconnect removes the container's link when others live on in its network namespace: with the container its address is
// given back, and may belong to a new one. Alone it goes with the namespace, which the kernel clears away without us.
func (s *server) disconnect() error {
	if s.cfg.Network == nil || !exists(filepath.Join(s.path, JoinedFile)) {
		return nil
	}
	return runtime.Disconnect(s.cfg.Network.Link.Host)
}

// releaseClaim removes a claim of ours; the last member of a group removes its directory too.
func (s *server) releaseClaim(claim string) error {
	if holder, err := os.Readlink(claim); err != nil || holder != s.path {
		return nil
	}
	err := os.Remove(claim)
	if dir := filepath.Dir(claim); strings.HasSuffix(dir, MembersSuffix) {
		_ = unix.Rmdir(dir)
	}
	return err
}
