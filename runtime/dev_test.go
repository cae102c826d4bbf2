package runtime

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Before Linux 6.3 a tmpfs cannot be id-mapped: what is in /dev then belongs to the host's ids of its owners.
func TestChownDev(t *testing.T) {
	if !root() {
		t.Skip("needs root: it makes devices")
	}
	fd, err := devTmpfs(&options{data: []string{"mode=755"}})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	maps := []specs.LinuxIDMapping{{HostID: 0xF0000000, Size: 65536}}
	uid, gid := uint32(7), uint32(65536)
	b := &boot{process: &specs.Process{Terminal: true}, spec: &specs.Spec{Linux: &specs.Linux{
		UIDMappings: maps, GIDMappings: maps,
		Devices: []specs.LinuxDevice{
			{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200, UID: &uid},
			{Path: "/dev/outside", Type: "c", Major: 1, Minor: 3, GID: &gid}, // no such group in the container
		},
	}}}
	if err := b.fillDev(fd); err != nil {
		t.Fatal(err)
	}
	if err := b.chownDev(fd, "."); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]uint32{
		".":       {0xF0000000, 0xF0000000, unix.S_IFDIR | 0o755},
		"net":     {0xF0000000, 0xF0000000, unix.S_IFDIR | 0o755},
		"null":    {0xF0000000, 0xF0000000, unix.S_IFCHR | 0o666},
		"net/tun": {0xF0000007, 0xF0000000, unix.S_IFCHR | 0o666},
		"ptmx":    {0xF0000000, 0xF0000000, unix.S_IFLNK | 0o777},
		"console": {0xF0000000, 0xF0000000, unix.S_IFREG | 0o600},
		"outside": {0, gid, unix.S_IFCHR | 0o666},
	} {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := [3]uint32{st.Uid, st.Gid, st.Mode}; got != want {
			t.Errorf("%s: want %#x, got %#x", name, want, got)
		}
	}
}
