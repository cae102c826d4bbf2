package profile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"hull/runtime/seccomp"
)

// version names the default profile in the names of compiled files. A change of Docker's profile, of the hardening,
// or of the compiler's output needs a new one: TestVersion holds its digest.
const version = "0.2.4-1"

// relevant are the capabilities the profile asks about, in the order of their bits in a file's name.
var relevant = [...]string{
	"CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT",
	"CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG",
}

// File returns the path of a file holding the compiled default profile for o: an array of struct sock_filter in
// native byte order, with a checksum that seccomp.ReadFile verifies. Files are kept in <root>/seccomp and made when
// missing or damaged. A reader sees a whole file or none, and so many callers at once are safe.
func File(root string, o Options) (string, error) {
	m, err := host()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "seccomp", m.key(o)+".bpf")
	if _, err := seccomp.ReadFile(path); err == nil {
		return path, nil
	}
	filter, err := m.compiled(o)
	if err != nil {
		return "", fmt.Errorf("compile the default seccomp profile: %w", err)
	}
	if err := write(path, seccomp.Seal(filter)); err != nil {
		return "", fmt.Errorf("keep the default seccomp profile: %w", err)
	}
	return path, nil
}

// key names all that the compiled profile depends on.
func (m machine) key(o Options) string {
	var set uint
	for i, c := range relevant {
		if slices.Contains(o.Caps, c) {
			set |= 1 << i
		}
	}
	key := fmt.Sprintf("%s-%s-%d.%d-%04x", version, dockerName(m.arch), m.kernel[0], m.kernel[1], set)
	if slices.Contains(families(o), afPacket) {
		key += "-packet"
	}
	if o.Compat32 {
		key += "-compat32"
	}
	return key
}

// write replaces path. It is not synced: what a power cut leaves of it fails its checksum and is made again.
func write(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.ReadFrom(bytes.NewReader(b)); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
