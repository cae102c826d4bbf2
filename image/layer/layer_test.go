package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/state"
	"hull/test/rig/nobody"
)

var when = time.Unix(1_700_000_000, 123_000_000)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// entry makes a header; h may set what it likes.
func entry(name string, typ byte, h func(*tar.Header)) tar.Header {
	hdr := tar.Header{Name: name, Typeflag: typ, Mode: 0o644, ModTime: when, Format: tar.FormatPAX}
	if typ == tar.TypeDir {
		hdr.Mode = 0o755
	}
	if h != nil {
		h(&hdr)
	}
	return hdr
}

func file(name string) tar.Header { return entry(name, tar.TypeReg, nil) }
func dir(name string) tar.Header  { return entry(name, tar.TypeDir, nil) }
func symlink(name, to string) tar.Header {
	return entry(name, tar.TypeSymlink, func(h *tar.Header) { h.Linkname = to })
}
func hardlink(name, to string) tar.Header {
	return entry(name, tar.TypeLink, func(h *tar.Header) { h.Linkname = to })
}
func device(name string, typ byte, major, minor int64) tar.Header {
	return entry(name, typ, func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor })
}

// pack makes a tar whose regular files hold their own name.
func pack(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = h.Name
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// jail is a directory to unpack into, with a canary tree around it.
type jail struct {
	t      testing.TB
	top    string
	dir    string
	before string
}

func newJail(t testing.TB) *jail {
	top, err := os.MkdirTemp("", "hull-layer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Remove(top) })
	j := &jail{t: t, top: top, dir: top + "/in/layer"}
	os.MkdirAll(j.dir, 0o755)
	os.MkdirAll(top+"/etc", 0o755)
	for _, p := range []string{"/etc/passwd", "/x", "/in/x", "/in/passwd"} {
		os.WriteFile(top+p, []byte("canary"), 0o600)
	}
	j.before = j.census()
	return j
}

// census lists everything outside the layer: name, mode, inode, content.
func (j *jail) census() string {
	var b strings.Builder
	filepath.WalkDir(j.top, func(p string, d fs.DirEntry, err error) error {
		if p == j.dir {
			return fs.SkipDir
		}
		st, err := os.Lstat(p)
		if err != nil {
			j.t.Error(err)
			return nil
		}
		sys := st.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, p, st.Mode(), sys.Ino, sys.Nlink, sys.Uid)
		if st.Mode().IsRegular() {
			data, _ := os.ReadFile(p)
			fmt.Fprintf(&b, "%q\n", data)
		}
		return nil
	})
	return b.String()
}

func (j *jail) unpack(tarball []byte, opts Options) (Result, error) {
	j.t.Helper()
	res, err := Unpack(context.Background(), j.dir, bytes.NewReader(tarball), opts)
	if after := j.census(); after != j.before {
		j.t.Errorf("outside of the layer changed:\n%s\nwas\n%s", after, j.before)
	}
	return res, err
}

// tree describes what is in the layer.
func (j *jail) tree() string { return treeOf(j.t, j.dir) }

func treeOf(t testing.TB, top string) string {
	var b strings.Builder
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(top, p)
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		switch m := st.Mode(); {
		case m.IsRegular():
			data, _ := os.ReadFile(p)
			fmt.Fprintf(&b, "%s=%s", name, data)
		case m&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&b, "%s->%s", name, to)
		case m.IsDir():
			fmt.Fprintf(&b, "%s/", name)
		case m&fs.ModeCharDevice != 0 && sys.Rdev == 0:
			fmt.Fprintf(&b, "%s!", name)
		default:
			fmt.Fprintf(&b, "%s %v %d", name, m.Type(), sys.Rdev)
		}
		if _, err := unix.Lgetxattr(p, OpaqueXattr(), make([]byte, 8)); err == nil {
			b.WriteString("*")
		}
		b.WriteString(" ")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return strings.TrimPrefix(strings.TrimSpace(b.String()), "./ ")
}

// A36-A39: what comes out, or "" for refused. Names are hostile, the world outside stays as it was.
func TestZoo(t *testing.T) {
	long := strings.Repeat("n", 255)
	deep := strings.Repeat("d/", 1023)
	for _, c := range []struct {
		name    string
		entries []tar.Header
		want    string // "" is refused
	}{
		{"plain", []tar.Header{dir("./"), dir("./a/"), file("./a/f"), symlink("./l", "a/f"), hardlink("./h", "./a/f")}, "a/ a/f=./a/f h=./a/f l->a/f"},
		{"absolute", []tar.Header{file("/etc/passwd")}, "etc/ etc/passwd=/etc/passwd"},
		{"dotdot", []tar.Header{file("../x")}, ""},
		{"dotdot inside", []tar.Header{dir("a"), file("a/../../x")}, ""},
		{"dotdot to itself", []tar.Header{dir("a"), file("a/../b")}, ""},
		{"dotdot alone", []tar.Header{dir("..")}, ""},
		{"dotdot at the end", []tar.Header{dir("a"), file("a/..")}, ""},
		{"root as a file", []tar.Header{file(".")}, ""},
		{"root as a link", []tar.Header{symlink("./", "/etc")}, ""},
		{"empty name", []tar.Header{symlink("", "/etc")}, ""},
		{"many slashes", []tar.Header{file("a//b/././/c")}, "a/ a/b/ a/b/c=a//b/././/c"},
		{"backslash", []tar.Header{file(`a\..\x`)}, `a\..\x=a\..\x`},
		{"not UTF-8", []tar.Header{entry("a\xff\xfe", tar.TypeSymlink, func(h *tar.Header) { h.Linkname = "b"; h.Format = tar.FormatGNU })}, "a\xff\xfe->b"},
		{"newline", []tar.Header{symlink("a\nb", "c\nd")}, "a\nb->c\nd"},
		{"longest component", []tar.Header{symlink(long, "x")}, long + "->x"},
		{"too long component", []tar.Header{file(long + "n")}, ""},
		{"too long component of a directory", []tar.Header{file("a/" + long + "n/f")}, ""},
		{"too long path", []tar.Header{file(strings.Repeat("n/", 2048) + "n")}, ""},
		{"400 kB path", []tar.Header{file(strings.Repeat("component/", 40_000) + "n")}, ""},
		{"too deep", []tar.Header{dir(deep + "d/d")}, ""},
		{"link target too long", []tar.Header{symlink("a", strings.Repeat("x", 5000))}, ""},
		{"duplicate file", []tar.Header{file("a"), symlink("a", "x"), file("a")}, "a=a"},

		{"file through a link to outside", []tar.Header{symlink("a", "../../etc"), file("a/passwd")}, ""},
		{"file through an absolute link", []tar.Header{dir("etc"), symlink("a", "/etc"), file("a/passwd")}, "a->/etc etc/ etc/passwd=a/passwd"},
		{"file through dotdot that ends inside", []tar.Header{dir("etc"), symlink("a", "../../../../../etc"), file("a/passwd")}, "a->../../../../../etc etc/ etc/passwd=a/passwd"},
		{"chain of links", []tar.Header{dir("d"), symlink("a", "b"), symlink("b", "d/../.."), dir("in"), file("a/x")}, "a->b b->d/../.. d/ in/ x=a/x"},
		{"link to itself", []tar.Header{symlink("a", "a"), file("a/x")}, ""},
		{"links in a circle", []tar.Header{symlink("a", "b/c"), symlink("b", "a/c"), file("a/x")}, ""},
		{"dangling link as directory", []tar.Header{symlink("a", "nowhere"), file("a/x")}, ""},
		{"file as directory", []tar.Header{file("a"), file("a/x")}, ""},
		{"magic link", []tar.Header{symlink("a", "/proc/self/root"), file("a/x")}, ""},
		{"link replaced by a file, not followed", []tar.Header{symlink("a", "../x"), file("a")}, "a=a"},
		{"link replaced by a directory", []tar.Header{symlink("a", "../../etc"), dir("a"), file("a/passwd")}, "a/ a/passwd=a/passwd"},
		{"directory, link, file through", []tar.Header{dir("a"), file("a/f"), symlink("a", "../../etc"), file("a/passwd")}, ""},
		{"open directory moved from under its files", []tar.Header{dir("b"), dir("a"), file("a/f"), symlink("a", "b"), file("a/g")}, "a->b b/ b/g=a/g"},
		{"directory replaced by a file", []tar.Header{dir("a/b/c"), file("a/b/c/f"), file("a")}, "a=a"},

		{"hard link outside", []tar.Header{hardlink("h", "../x")}, ""},
		{"hard link absolute", []tar.Header{hardlink("h", "/etc/passwd")}, ""},
		{"hard link through a link", []tar.Header{symlink("a", "../.."), hardlink("h", "a/x")}, ""},
		{"hard link to a link", []tar.Header{symlink("a", "/etc/passwd"), hardlink("h", "a")}, "a->/etc/passwd h->/etc/passwd"},
		{"hard link to a directory", []tar.Header{dir("a"), hardlink("h", "a")}, ""},
		{"hard link to the root", []tar.Header{hardlink("h", "/")}, ""},
		{"hard link to itself", []tar.Header{file("a"), hardlink("a", "a")}, "a=a"},
		{"hard link to nothing", []tar.Header{hardlink("h", "a/b")}, ""},
		{"hard link over a directory that holds the target", []tar.Header{dir("a"), file("a/f"), hardlink("a", "a/f")}, ""},
		{"hard link to a whiteout", []tar.Header{file(".wh.a"), hardlink("h", "a")}, ""},
		{"hard link to a whiteout by its name", []tar.Header{file(".wh.a"), hardlink("h", ".wh.a")}, ""},
		{"hard link replaces", []tar.Header{file("a"), file("b"), hardlink("b", "a")}, "a=a b=a"},

		{"whiteout", []tar.Header{dir("d"), file("d/.wh.a")}, "d/ d/a!"},
		{"whiteout without its directory", []tar.Header{file("d/.wh.a")}, "d/ d/a!"},
		{"whiteout as a directory", []tar.Header{dir(".wh.a")}, "a!"},
		{"whiteout of dot", []tar.Header{file(".wh..")}, ""},
		{"whiteout of dotdot", []tar.Header{file("a/.wh...")}, ""},
		{"whiteout of nothing", []tar.Header{file(".wh.")}, ""},
		{"entry below a whiteout", []tar.Header{file(".wh.a/x")}, ""},
		{"entry below a whiteout, deeper", []tar.Header{file("d/.wh.a/x")}, ""},
		{"whiteout then file", []tar.Header{file(".wh.a"), file("a")}, "a=a"},
		{"file then whiteout", []tar.Header{file("a"), file(".wh.a")}, "a=a"},
		{"whiteout then directory", []tar.Header{file(".wh.a"), dir("a"), file("a/f")}, "a/* a/f=a/f"},
		{"directory then whiteout", []tar.Header{dir("a"), file("a/f"), file(".wh.a")}, "a/* a/f=a/f"},
		{"whiteout of the parent of later entries", []tar.Header{file(".wh.a"), file("a/f")}, ""},
		{"opaque", []tar.Header{dir("d"), file("d/.wh..wh..opq"), file("d/f")}, "d/* d/f=d/f"},
		{"opaque without its directory", []tar.Header{file("d/.wh..wh..opq")}, "d/*"},
		{"opaque through a link to the root", []tar.Header{symlink("a", "/"), file("a/.wh..wh..opq")}, "a->/"},
		{"opaque root", []tar.Header{file(".wh..wh..opq"), file("f")}, "f=f"},
		{"files of AUFS", []tar.Header{dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"), dir(".wh..wh.orph"), file("d/.wh..wh.x")}, "d/"},

		{"unknown type", []tar.Header{entry("a", 'Z', nil)}, ""},
		{"fifo", []tar.Header{entry("p", tar.TypeFifo, nil)}, "p p--------- 0"},
		{"device 0:0", []tar.Header{device("c", tar.TypeChar, 0, 0), file("f")}, "f=f"},
		{"impossible device", []tar.Header{entry("c", tar.TypeChar, func(h *tar.Header) { h.Devmajor = 1 << 20; h.Format = tar.FormatGNU })}, ""},
		{"uid too large", []tar.Header{entry("a", tar.TypeReg, func(h *tar.Header) { h.Uid = 1<<32 - 1; h.Format = tar.FormatGNU })}, ""},
		{"negative gid", []tar.Header{entry("a", tar.TypeReg, func(h *tar.Header) { h.Gid = -2; h.Format = tar.FormatGNU })}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJail(t)
			_, err := j.unpack(pack(t, c.entries...), Options{})
			if c.want == "" {
				if err == nil {
					t.Errorf("want refused, got %s", j.tree())
				} else if !errors.Is(err, errdef.ErrInvalid) && !isErrno(err) {
					t.Errorf("want blame on the archive, got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := j.tree(); got != c.want {
				t.Errorf("want %s\n got %s", c.want, got)
			}
		})
	}
}

// A36, A41: headers that no library writes.
func TestRawHeaders(t *testing.T) {
	// header is one of USTAR, with what change makes of it; size is the length of its content.
	header := func(name string, typ byte, size string, change func([]byte)) []byte {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00"+size+"\x0000000000000\x00        "+string(typ))
		copy(h[257:], "ustar\x0000")
		if change != nil {
			change(h)
		}
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return h
	}
	pax := func(records string) []byte {
		data := make([]byte, (len(records)+511)/512*512)
		copy(data, records)
		return append(header("pax", tar.TypeXHeader, fmt.Sprintf("%011o", len(records)), nil), data...)
	}
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		n += len(strconv.Itoa(n + 2))
		return fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	end := make([]byte, 1024)
	const none = "00000000000"
	for _, c := range []struct {
		name string
		raw  []byte
		want string // "" is refused
	}{
		{"plain", header("a", tar.TypeReg, none, nil), "a="},
		{"NUL in a name", header("a\x00/../../x", tar.TypeReg, none, nil), "a="},
		{"NUL in a name of PAX", append(pax(record("path", "a\x00b")), header("a", tar.TypeReg, none, nil)...), ""},
		{"NUL in a link of PAX", append(pax(record("linkpath", "a\x00b")), header("l", tar.TypeSymlink, none, nil)...), ""},
		{"dotdot in a prefix", header("x", tar.TypeReg, none, func(h []byte) { copy(h[345:], "../..") }), ""},
		{"file with a slash at its end", header("a/", tar.TypeReg, none, nil), "a="},
		{"the same of before POSIX", header("a/", 0, none, nil), "a/"},
		{"8 EiB", header("a", tar.TypeReg, "77777777777", func(h []byte) { copy(h[124:], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") }), ""},
		{"less than nothing", header("a", tar.TypeReg, none, func(h []byte) { copy(h[124:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }), ""},
		{"sparse, 8 EiB", append(pax(record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+record("GNU.sparse.name", "a")+record("GNU.sparse.realsize", "9223372036854775807")),
			append(header("a", tar.TypeReg, "00000001000", nil), append([]byte("0\n"), make([]byte, 510)...)...)...), ""},
		{"sparse, parts without end", append(pax(record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+record("GNU.sparse.name", "a")+record("GNU.sparse.realsize", "10")),
			append(header("a", tar.TypeReg, "00000001000", nil), append([]byte("9223372036854775807\n"), make([]byte, 492)...)...)...), ""},
		{"header of PAX, 1 GiB", header("pax", tar.TypeXHeader, "10000000000", nil), ""},
		{"long name of GNU, 1 GiB", header("././@LongLink", tar.TypeGNULongName, "10000000000", nil), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJail(t)
			_, err := j.unpack(append(c.raw, end...), Options{})
			if c.want == "" {
				if !errors.Is(err, errdef.ErrInvalid) {
					t.Errorf("want blame on the archive, got %v and %s", err, j.tree())
				}
				return
			}
			if got := j.tree(); err != nil || got != c.want {
				t.Errorf("want %s, got %s, %v", c.want, got, err)
			}
		})
	}
}

func isErrno(err error) bool {
	var e syscall.Errno
	return errors.As(err, &e)
}

func TestDevices(t *testing.T) {
	needRoot(t)
	j := newJail(t)
	if _, err := j.unpack(pack(t, device("null", tar.TypeChar, 1, 3), device("disk", tar.TypeBlock, 8, 1)), Options{}); err != nil {
		t.Fatal(err)
	}
	if want, got := fmt.Sprint("disk D--------- ", unix.Mkdev(8, 1), " null Dc--------- ", unix.Mkdev(1, 3)), j.tree(); want != got {
		t.Errorf("want %s, got %s", want, got)
	}
}

func TestMeta(t *testing.T) {
	needRoot(t)
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	attrs := map[string]string{
		"security.capability": caps, "user.note": "x", "trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/etc",
		"user.overlay.opaque": "y", "trusted.foo": "1", "security.selinux": "s0",
	}
	set := func(h *tar.Header) {
		h.Uid, h.Gid = 1000, 70000
		h.PAXRecords = map[string]string{}
		for k, v := range attrs {
			h.PAXRecords[xattrRecord+k] = v
		}
	}
	j := newJail(t)
	_, err := j.unpack(pack(t,
		entry("./", tar.TypeDir, func(h *tar.Header) { h.Mode = 0o711 }),
		entry("d", tar.TypeDir, func(h *tar.Header) { set(h); h.Mode = 0o1777 }),
		entry("d/f", tar.TypeReg, func(h *tar.Header) { set(h); h.Mode = 0o6755 }),
		entry("l", tar.TypeSymlink, func(h *tar.Header) { set(h); h.PAXRecords = nil; h.Linkname = "d/f" }),
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"d": 0o1777, "d/f": 0o6755, "l": 0o777} {
		var st unix.Stat_t
		if err := unix.Lstat(j.dir+"/"+name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != mode || st.Uid != 1000 || st.Gid != 70000 || st.Mtim.Nano() != when.UnixNano() {
			t.Errorf("%s: got %o %d:%d %v", name, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim)
		}
	}
	if st, _ := os.Stat(j.dir); st.Mode().Perm() != 0o711 || !st.ModTime().Equal(when) {
		t.Errorf("root: got %v %v", st.Mode(), st.ModTime())
	}
	for _, name := range []string{"d", "d/f"} {
		list := make([]byte, 1024)
		n, err := unix.Llistxattr(j.dir+"/"+name, list)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
		slices.Sort(got)
		if want := []string{"security.capability", "user.note"}; !slices.Equal(want, got) && !(name == "d" && slices.Equal(got, []string{"security.capability", "user.note"})) {
			t.Errorf("%s: want %q, got %q", name, want, got)
		}
	}
}

// A layer whose root is opaque hides each name of the layers below.
func TestOpaqueRoot(t *testing.T) {
	j := newJail(t)
	lower := t.TempDir()
	os.MkdirAll(lower+"/both/x", 0o755)
	os.MkdirAll(lower+"/only/x", 0o755)
	os.WriteFile(lower+"/file", nil, 0o600)
	_, err := j.unpack(pack(t, file(".wh..wh..opq"), dir("both"), file("new")), Options{Lower: func() ([]string, error) { return []string{lower}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if want, got := "both/* file! new=new only!", j.tree(); want != got {
		t.Errorf("want %s, got %s", want, got)
	}
}

func TestLimits(t *testing.T) {
	big := entry("f", tar.TypeReg, func(h *tar.Header) { h.Size = 100_000 })
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&big)
	w.Write(make([]byte, 100_000))
	w.Close()
	for name, l := range map[string]Limits{"bytes of the stream": {Bytes: 100_001}, "bytes of a file": {Bytes: 99_999}} {
		if _, err := newJail(t).unpack(buf.Bytes(), Options{Limits: l}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	many := pack(t, file("a"), file("b"), file("c"))
	if _, err := newJail(t).unpack(many, Options{Limits: Limits{Entries: 2}}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("entries: got %v", err)
	}
	if _, err := newJail(t).unpack(many, Options{Limits: Limits{Entries: 3}}); err != nil {
		t.Error(err)
	}
}

// Sparse files of GNU tar stay sparse, and one of 8 EiB is refused at once.
func TestSparse(t *testing.T) {
	src := t.TempDir()
	f, err := os.Create(src + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("begin"), 0)
	f.WriteAt([]byte("middle"), 5<<20)
	f.Truncate(64 << 20)
	f.Close()
	for _, format := range []string{"gnu", "posix"} {
		out, err := exec.Command("tar", "-C", src, "--format="+format, "-S", "-cf", "-", "sparse").Output()
		if err != nil {
			t.Skipf("no GNU tar: %v", err)
		}
		j := newJail(t)
		if _, err := j.unpack(out, Options{}); err != nil {
			t.Fatal(err)
		}
		want, _ := os.ReadFile(src + "/sparse")
		got, _ := os.ReadFile(j.dir + "/sparse")
		if !bytes.Equal(want, got) {
			t.Errorf("%s: content differs", format)
		}
		var st unix.Stat_t
		unix.Stat(j.dir+"/sparse", &st)
		if st.Blocks*512 > 4<<20 {
			t.Errorf("%s: takes %d bytes of disk", format, st.Blocks*512)
		}
	}
	if err := os.Truncate(src+"/sparse", 1<<40); err != nil {
		t.Skip(err)
	}
	out, err := exec.Command("tar", "-C", src, "-S", "-cf", "-", "sparse").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newJail(t).unpack(out, Options{}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("want a file of 1 TiB in %d bytes refused, got %v", len(out), err)
	}
}

// A41: streams that grow without bound end, whatever they are made of.
func TestBombs(t *testing.T) {
	zeros := make([]byte, 1<<20)
	var z bytes.Buffer
	zw, _ := zstd.NewWriter(&z, zstd.WithWindowSize(8<<20))
	for range 1200 {
		zw.Write(zeros)
	}
	zw.Close()
	r, c, err := Decompress(bytes.NewReader(z.Bytes()))
	if err != nil || c != Zstd {
		t.Fatal(c, err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if !errors.Is(err, errdef.ErrInvalid) || n > ratioAfter+1<<20 {
		t.Errorf("zstd: read %d bytes, %v", n, err)
	}
	// A frame that asks for a window of 2 GiB.
	r, _, err = Decompress(bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x03, 0x00, 0x00}))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		r.Close()
	}
	if err == nil {
		t.Error("want a window of 2 GiB refused")
	}
	// What is in it is compressed again: that is no tar.
	var inner, outer bytes.Buffer
	for _, b := range []struct {
		to   *bytes.Buffer
		data []byte
	}{{&inner, pack(t, file("a"))}, {&outer, nil}} {
		gw := gzip.NewWriter(b.to)
		if b.data == nil {
			b.data = inner.Bytes()
		}
		gw.Write(b.data)
		gw.Close()
	}
	if _, err := newJail(t).unpack(outer.Bytes(), Options{}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("gzip in gzip: want it refused, got %v", err)
	}
	for _, bad := range []string{"\xfd7zXZ\x00....", "BZh91AY&SY....", "\x1f\x8b\x08garbage......."} {
		r, _, err := Decompress(strings.NewReader(bad))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil {
			t.Errorf("%q: want refused", bad)
		}
	}
}

func TestDecompress(t *testing.T) {
	want := bytes.Repeat([]byte("layer "), 10_000)
	var g, z bytes.Buffer
	gw := gzip.NewWriter(&g)
	gw.Write(want)
	gw.Close()
	zw, _ := zstd.NewWriter(&z)
	zw.Write(want)
	zw.Close()
	for c, data := range map[Compression][]byte{Plain: want, Gzip: g.Bytes(), Zstd: z.Bytes()} {
		r, got, err := Decompress(bytes.NewReader(data))
		if err != nil || got != c {
			t.Fatal(got, err)
		}
		out, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(out, want) {
			t.Errorf("%d: %d bytes, %v", c, len(out), err)
		}
		r.Close()
		if c == Plain {
			continue
		}
		r, _, _ = Decompress(bytes.NewReader(data[:len(data)-9]))
		if _, err := io.ReadAll(r); err == nil {
			t.Errorf("%d: want a cut stream noticed", c)
		}
	}
	if r, _, err := Decompress(strings.NewReader("")); err != nil {
		t.Error(err)
	} else if out, err := io.ReadAll(r); len(out) > 0 || err != nil {
		t.Error(out, err)
	}
}

func TestCompress(t *testing.T) {
	want := pack(t, file("a"), file("b"))
	for _, c := range []Compression{Gzip, Zstd} {
		var first []byte
		for _, portion := range []int{len(want), 1000, 7} { // the portions make no difference
			var out bytes.Buffer
			w, err := Compress(&out, c)
			if err != nil {
				t.Fatal(err)
			}
			for part := range slices.Chunk(want, portion) {
				if _, err := w.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = out.Bytes()
			}
			if !bytes.Equal(out.Bytes(), first) {
				t.Errorf("%d: in portions of %d it is another stream", c, portion)
			}
			r, got, err := Decompress(&out)
			if err != nil || got != c {
				t.Fatal(got, err)
			}
			data, err := io.ReadAll(r)
			if r.Close(); err != nil || !bytes.Equal(data, want) {
				t.Errorf("%d: %d bytes, %v", c, len(data), err)
			}
		}
	}
	if _, err := Compress(io.Discard, Bzip2); !errors.Is(err, errdef.ErrUnavailable) {
		t.Errorf("bzip2: %v", err)
	}
}

// What Decompress refuses is not made: a layer with a huge file of zeros.
func TestCompressZeros(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for c, want := range map[Compression]error{Gzip: nil, Zstd: ErrDense} {
		var out bytes.Buffer
		w, err := Compress(&out, c)
		for i := 0; i < 1100 && err == nil; i++ {
			_, err = w.Write(zeros)
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%d: want %v, got %v", c, want, err)
		}
		if err != nil {
			continue
		}
		r, _, err := Decompress(&out)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != 1100<<20 || err != nil {
			t.Errorf("%d: read %d bytes, %v", c, n, err)
		}
		r.Close()
	}
}

func TestDiffIDIsOfTheWholeStream(t *testing.T) {
	data := append(pack(t, file("a")), make([]byte, 10_240)...)
	data = append(data, "trailing"...)
	res, err := newJail(t).unpack(data, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sum := exec.Command("sha256sum")
	sum.Stdin = bytes.NewReader(data)
	out, err := sum.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256:" + string(out[:64]); res.DiffID != want {
		t.Errorf("want %s, got %s", want, res.DiffID)
	}
}

func TestCancelled(t *testing.T) {
	j := newJail(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := Unpack(ctx, j.dir, bytes.NewReader(pack(t, file("a"))), Options{}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// A truncated tar is no success at any length.
func TestTruncated(t *testing.T) {
	data := pack(t, dir("a"), file("a/f"), file("b"))
	for n := 1; n < len(data)-1024; n += 100 {
		if n%512 == 0 {
			continue // between two entries, a tar without its end mark is accepted, as by all others
		}
		if _, err := newJail(t).unpack(data[:n], Options{}); err == nil {
			t.Errorf("want an error after %d bytes", n)
		}
	}
}

func TestUnprivileged(t *testing.T) {
	nobody.Runs(t, "^Test(Zoo|OpaqueRoot|Sparse|Closed|Truncated|Owners)", "TestZoo")
}

// Directories that their mode closes are filled nevertheless, and closed at the end.
func TestClosedDirectories(t *testing.T) {
	j := newJail(t)
	closed := func(h *tar.Header) { h.Mode = 0 }
	_, err := j.unpack(pack(t, entry("./", tar.TypeDir, func(h *tar.Header) { h.Mode = 0o500 }), entry("a", tar.TypeDir, closed), entry("a/b", tar.TypeDir, closed), file("a/b/f")), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(j.dir + "/a"); err != nil || st.Mode().Perm() != 0 {
		t.Errorf("got %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(j.dir); err != nil || st.Mode().Perm() != 0o500 {
		t.Errorf("got %v, %v", st.Mode(), err)
	}
}

// What an ordinary user may not do is left out.
func TestOwnersWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs no root")
	}
	j := newJail(t)
	res, err := j.unpack(pack(t, device("null", tar.TypeChar, 1, 3), entry("f", tar.TypeReg, func(h *tar.Header) {
		h.Uid, h.PAXRecords = 1, map[string]string{xattrRecord + "security.capability": "x", xattrRecord + "user.a": "b"}
	})), Options{})
	if err != nil || res.Skipped != 1 {
		t.Fatal(res, err)
	}
	if got := j.tree(); got != "f=f" {
		t.Errorf("got %s", got)
	}
}

// Random entries over few names: whatever happens, it happens inside.
func TestRandomEntries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "a/b", "a/c", "b/a", "a/b/c", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".", "../a", "b/../c", "c"}
	links := []string{"a", "/", "..", "../..", "/etc", "b/c", "../../etc/passwd", "c/../../..", "."}
	for range 150 {
		var entries []tar.Header
		for range 12 {
			n := names[rnd.IntN(len(names))]
			switch rnd.IntN(5) {
			case 0:
				entries = append(entries, dir(n))
			case 1:
				entries = append(entries, symlink(n, links[rnd.IntN(len(links))]))
			case 2:
				entries = append(entries, hardlink(n, append(names, links...)[rnd.IntN(len(names)+len(links))]))
			default:
				entries = append(entries, file(n))
			}
		}
		j := newJail(t)
		for len(entries) > 0 { // a refused entry ends the unpacking: go on with the rest into the same directory
			res, err := j.unpack(pack(t, entries...), Options{})
			if err == nil {
				break
			}
			entries = entries[res.Entries:]
			if res.Entries == 0 {
				entries = entries[1:]
			}
		}
		state.Remove(j.top)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(f, dir("a"), file("a/f"), symlink("l", "/etc"), hardlink("h", "a/f")))
	f.Add(pack(f, file(".wh.a"), file("d/.wh..wh..opq"), symlink("a", "../.."), file("a/x")))
	f.Add(pack(f, entry("f", tar.TypeReg, func(h *tar.Header) { h.PAXRecords = map[string]string{xattrRecord + "user.a": "b"} })))
	f.Fuzz(func(t *testing.T, data []byte) {
		j := newJail(t)
		j.unpack(data, Options{Limits: Limits{Bytes: 1 << 20, Entries: 1000}})
		state.Remove(j.top)
	})
}

// debian makes, once, the tar of a Debian root file system; it skips where there is no mirror.
func debian(t testing.TB) string {
	t.Helper()
	needRoot(t)
	cache := filepath.Join(os.TempDir(), "hull-test-bookworm-essential.tar")
	if _, err := os.Stat(cache); err == nil {
		return cache
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is not installed")
	}
	if err := exec.Command("mmdebstrap", "--variant=essential", "--quiet", "bookworm", cache+".new.tar").Run(); err != nil {
		os.Remove(cache + ".new.tar")
		t.Skipf("no Debian mirror: %v", err)
	}
	if err := os.Rename(cache+".new.tar", cache); err != nil {
		t.Fatal(err)
	}
	return cache
}

// A real root file system comes out as GNU tar unpacks it.
func TestDebianLikeGNUTar(t *testing.T) {
	cache := debian(t)
	want := t.TempDir()
	if out, err := exec.Command("tar", "-C", want, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", cache).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	j := newJail(t)
	f, err := os.Open(cache)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Now()
	res, err := Unpack(t.Context(), j.dir, f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries, %d MB in %v", res.Entries, res.Size>>20, time.Since(start))
	a, b := listing(t, want), listing(t, j.dir)
	for name, line := range a {
		if b[name] != line {
			t.Errorf("%s:\nwant %s\n got %s", name, line, b[name])
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			t.Errorf("%s: not in GNU tar's", name)
		}
	}
	state.Remove(want)
}

// listing describes every file: type, mode, owner, time, size, content, links, attributes.
func listing(t *testing.T, top string) map[string]string {
	all := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(top, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%o %d:%d %d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if inodes[st.Ino] == "" {
				inodes[st.Ino] = name
			}
			line += fmt.Sprintf(" %d %x %d %s", st.Size, sumBytes(data), st.Nlink, inodes[st.Ino])
		case unix.S_IFLNK:
			to, _ := os.Readlink(p)
			line += " " + to
		}
		list := make([]byte, 4096)
		if n, err := unix.Llistxattr(p, list); err == nil && n > 0 {
			line += fmt.Sprintf(" %q", list[:n])
		}
		all[name] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sumBytes(data []byte) (sum uint64) {
	for _, c := range data {
		sum = sum*31 + uint64(c)
	}
	return sum
}

func BenchmarkUnpackDebian(b *testing.B) {
	cache := debian(b)
	for b.Loop() {
		top := b.TempDir()
		f, err := os.Open(cache)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Unpack(b.Context(), top, f, Options{}); err != nil {
			b.Fatal(err)
		}
		f.Close()
		b.StopTimer()
		state.Remove(top)
		b.StartTimer()
	}
}
