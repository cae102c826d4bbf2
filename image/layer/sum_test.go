package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Two layers have one sum if and only if they are the same.
func TestSum(t *testing.T) {
	old := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	unpacked := func() string {
		dir := t.TempDir()
		for name, content := range map[string]string{"a": "1", "ab": "", "big": string(bytes.Repeat([]byte("x"), 600<<10)), "d/e": "2"} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		ts := []unix.Timespec{unix.NsecToTimespec(old.UnixNano()), unix.NsecToTimespec(old.UnixNano())}
		if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "link"), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	sum := func(dir string) string {
		t.Helper()
		s, err := Sum(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := sum(unpacked())
	seen := map[string]string{want: "as it is"}
	rewrite := func(path, content string) error {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		return os.Chtimes(path, old, old)
	}
	for name, change := range map[string]func(dir string) error{
		"":                 func(string) error { return nil },
		"a byte":           func(dir string) error { return rewrite(dir+"/a", "2") },
		"more bytes":       func(dir string) error { return rewrite(dir+"/a", "12") },
		"a late byte":      func(dir string) error { return rewrite(dir+"/big", string(bytes.Repeat([]byte("x"), 600<<10-1))+"y") },
		"bytes elsewhere":  func(dir string) error { return rewrite(dir+"/ab", "1") },
		"a mode":           func(dir string) error { return os.Chmod(dir+"/a", 0o600) },
		"a directory's":    func(dir string) error { return os.Chmod(dir+"/d", 0o700) },
		"the root's":       func(dir string) error { return os.Chmod(dir, 0o700) },
		"a file less":      func(dir string) error { return os.Remove(dir + "/ab") },
		"a file more":      func(dir string) error { return rewrite(dir+"/d/f", "") },
		"another name":     func(dir string) error { return os.Rename(dir+"/d/e", dir+"/d/f") },
		"another place":    func(dir string) error { return os.Rename(dir+"/d/e", dir+"/e") },
		"a time":           func(dir string) error { return os.Chtimes(dir+"/a", old, old.Add(1)) },
		"another kind":     func(dir string) error { os.Remove(dir + "/ab"); return os.Mkdir(dir+"/ab", 0o755) },
		"a time of a link": func(dir string) error { os.Remove(dir + "/link"); return os.Symlink("a", dir+"/link") },
	} {
		dir := unpacked()
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		got := sum(dir)
		if name == "" {
			if got != want {
				t.Error("the same has another sum")
			}
			continue
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s have one sum", name, other)
		}
		seen[got] = name
		differences, err := Differ(t.Context(), unpacked(), dir, 1)
		if err != nil || len(differences) == 0 {
			t.Errorf("%s: only the sum differs: %v", name, err)
		}
	}
	if _, err := Sum(t.Context(), filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
