package attack

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// canaryText is what the attacker looks for; see attacker/leak.go.
const canaryText = "canary of the host\n"

// canaries is a directory of the host that no container may reach. Any change of it fails t.
func canaries(t *testing.T) (dir, file string) {
	t.Helper()
	// Not t.TempDir: it has to be where a container without the user's consent could only get by an escape, and its
	// path must be the same inside and outside.
	dir, err := os.MkdirTemp("/var/tmp", "canary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) // ours alone: no container may have been in there
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte(canaryText), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub", "empty"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sub/program"), []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := inventory(t, dir)
	t.Cleanup(func() {
		for _, line := range changes(before, inventory(t, dir)) {
			t.Errorf("canary: %s", line)
		}
	})
	return dir, file
}

// changes says what is in one inventory and not in the other.
func changes(before, after []string) []string {
	var out []string
	for _, line := range before {
		if !slices.Contains(after, line) {
			out = append(out, "was "+line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			out = append(out, "is  "+line)
		}
	}
	return out
}

// inventory is a line for each file: all that an attack could change.
func inventory(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(b)
		case unix.S_IFLNK:
			content, _ = os.Readlink(path)
		}
		names := make([]byte, 4096)
		n, _ := unix.Llistxattr(path, names)
		out = append(out, fmt.Sprintf("%s inode %d mode %o owner %d:%d links %d device %x xattr %q content %q",
			path, st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev, names[:max(n, 0)], content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// successes are the attacker's lines about what worked.
func successes(output string) []string {
	var out []string
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "SUCCESS ") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// held fails t for every success of the attacker, and when it did not run at all: it always has a note to make.
func held(t *testing.T, output string) {
	t.Helper()
	list := successes(output)
	for _, line := range list {
		t.Error(line)
	}
	if len(list) == 0 && !strings.Contains(output, "# ") {
		t.Errorf("the attacker did not run: %q", output)
	}
}
