package kernel

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverlayIDMapped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	for _, old := range []bool{false, true} {
		name := map[bool]string{false: "by descriptor", true: "by path"}[old]
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{"a", "b", "rw/upper", "rw/work", "scratch"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "a/file"), []byte("top"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "b/file"), []byte("bottom"), 0o644); err != nil {
				t.Fatal(err)
			}
			m := []IDMap{{0, 0x80000000, 65536}}
			ns, err := NewUserNS(m, m)
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			o := &Overlay{
				Lower: []string{dir + "/a", dir + "/b"}, Upper: dir + "/rw/upper", Work: dir + "/rw/work",
				IDMap: ns, Owner: 0x80000000, Scratch: dir + "/scratch", Options: []string{"volatile"},
			}
			var fd int
			if old {
				fd, err = o.testByPath()
			} else {
				fd, err = o.Mount()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			f, err := unix.Openat(fd, "file", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(f)
			var st unix.Stat_t
			if err := unix.Fstat(f, &st); err != nil || st.Uid != 0x80000000 {
				t.Errorf("want owner %d, got %d, %v", 0x80000000, st.Uid, err)
			}
			b := make([]byte, 16)
			n, err := unix.Read(f, b)
			if string(b[:n]) != "top" {
				t.Errorf("want the topmost layer's file, got %q, %v", b[:n], err)
			}
			if err := unix.Stat(dir+"/rw/upper/file", &st); err != nil || st.Uid != 0 {
				t.Errorf("want the copy in upper to belong to 0 on disk, got %d, %v", st.Uid, err)
			}
		})
	}
}

// testByPath is Mount as on a kernel before 6.13.
func (o *Overlay) testByPath() (int, error) {
	var fds []int
	for _, d := range append(append([]string{}, o.Lower...), filepath.Dir(o.Upper)) {
		fd, err := o.layer(d)
		if err != nil {
			return -1, err
		}
		fds = append(fds, fd)
	}
	top := fds[len(fds)-1]
	upper, err := unix.Openat(top, "upper", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	work, err := unix.Openat(top, "work", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return o.mountAside(fds, upper, work)
}
