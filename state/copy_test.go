package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func openTree(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// describe lists a tree with everything a copy has to keep, a line each.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%s mode %o owner %d:%d mtime %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d content %.20q", st.Size, strings.TrimRight(string(b), "\x00"))
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			line += " to " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d", st.Rdev)
		}
		if d.Type().IsRegular() || d.IsDir() {
			for _, x := range []string{"user.note", "security.capability", "system.posix_acl_default"} {
				v := make([]byte, 256)
				if n, err := unix.Getxattr(path, x, v); err == nil {
					line += fmt.Sprintf(" %s=%q", x, v[:n])
				}
			}
		}
		if st.Nlink > 1 && !d.IsDir() {
			if first, ok := inodes[st.Ino]; ok {
				line += " same as " + first
			}
			inodes[st.Ino] = rel
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// zoo is a tree of everything.
func zoo(t *testing.T, dir string) {
	t.Helper()
	root := os.Geteuid() == 0
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.MkdirAll(dir+"/sub/deep", 0o755))
	do(os.WriteFile(dir+"/file", []byte("content"), 0o640))
	do(os.WriteFile(dir+"/sub/suid", []byte("program"), 0o755))
	do(unix.Chmod(dir+"/sub/suid", 0o4755))
	do(os.Link(dir+"/file", dir+"/sub/deep/link"))
	do(os.Symlink("/etc/passwd", dir+"/abs"))
	do(os.Symlink("../../..", dir+"/sub/up"))
	do(unix.Mkfifo(dir+"/fifo", 0o600))
	do(unix.Setxattr(dir+"/file", "user.note", []byte("x"), 0))
	do(unix.Setxattr(dir+"/sub", "user.note", []byte("of a directory"), 0))
	sparse, err := os.Create(dir + "/sparse")
	do(err)
	_, err = sparse.WriteAt([]byte("end"), 1<<30)
	do(err)
	do(sparse.Truncate(1<<30 + 1<<20))
	do(sparse.Close())
	if root {
		do(os.Lchown(dir+"/sub/suid", 12, 34))
		do(unix.Chmod(dir+"/sub/suid", 0o4755))
		do(os.Lchown(dir+"/abs", 56, 78))
		do(unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		do(unix.Setxattr(dir+"/sub/suid", "security.capability", caps, 0))
		do(os.Chown(dir, 7, 8))
	}
	do(os.Chmod(dir+"/sub/deep", 0o500))
	do(unix.Chmod(dir, 0o1770))
	when := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9, Nsec: 5}}
	for _, name := range []string{"file", "sub/deep", "abs", "fifo", "sub", ""} {
		do(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), when, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func TestCopyTree(t *testing.T) {
	dir := t.TempDir()
	src, dst := dir+"/src", dir+"/dst"
	t.Cleanup(func() { os.Chmod(src+"/sub/deep", 0o700); os.Chmod(dst+"/sub/deep", 0o700) })
	zoo(t, src)
	if err := os.Mkdir(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := CopyTree(t.Context(), openTree(t, src), openTree(t, dst)); err != nil {
		t.Fatal(err)
	}
	want, got := describe(t, src), describe(t, dst)
	if !slices.Equal(want, got) {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	var st unix.Stat_t
	if err := unix.Stat(dst+"/sparse", &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("a file of 1 GiB of holes takes %d bytes, %v", st.Blocks*512, err)
	}
}

// A link in what is copied leads nobody out of it: not where it is read, not where it is written.
func TestCopyTreeFollowsNothing(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"src", "dst", "secret"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(dir+"/secret/key", []byte("secret"), 0o600), os.Symlink("../secret", dir+"/src/dir"),
		os.Symlink("../secret/key", dir+"/src/key")); err != nil {
		t.Fatal(err)
	}
	if err := CopyTree(t.Context(), openTree(t, dir+"/src"), openTree(t, dir+"/dst")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dir", "key"} {
		if st, err := os.Lstat(filepath.Join(dir, "dst", name)); err != nil || st.Mode().Type() != fs.ModeSymlink {
			t.Errorf("%s: want a link, got %v, %v", name, st, err)
		}
	}
}

func TestCopyTreeEnds(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/src/a/b", 0o755), os.Mkdir(dir+"/dst", 0o755)); err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := CopyTree(ctx, openTree(t, dir+"/src"), openTree(t, dir+"/dst")); !errors.Is(err, why) {
		t.Errorf("want the cause of the context, got %v", err)
	}
}

// MoveInto killed after any of its steps is finished by the next one.
func TestMoveIntoAgain(t *testing.T) {
	for moved := range 3 {
		dir := t.TempDir()
		from, to := dir+"/from", dir+"/to"
		if err := errors.Join(os.Mkdir(from, 0o755), os.Mkdir(to, 0o755), unix.Chmod(from, 0o2751),
			os.WriteFile(from+"/a", []byte("a"), 0o600), os.Mkdir(from+"/b", 0o700), os.WriteFile(to+"/c", []byte("theirs"), 0o600),
			os.WriteFile(from+"/c", []byte("ours"), 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"a", "b"}[:moved] { // what the killed one had done
			if err := os.Rename(filepath.Join(from, n), filepath.Join(to, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := MoveInto(from, to); err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(to)
		st, err2 := os.Stat(to)
		if err != nil || err2 != nil || len(names) != 3 || st.Mode() != fs.ModeDir|fs.ModeSetgid|0o751 {
			t.Errorf("want a, b and c in a directory of mode 2751, got %v %v, %v %v", names, st.Mode(), err, err2)
		}
		if b, err := os.ReadFile(to + "/c"); err != nil || string(b) != "theirs" {
			t.Errorf("what was in the way is %q, %v", b, err)
		}
		if _, err := os.Lstat(from); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("from is still there: %v", err)
		}
	}
}
