package tree

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
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hull/errdef"
	"hull/image/layer"
	"hull/state"
)

// file is an entry of a layer: type 0 is a regular file, or a directory if the name ends with a slash.
type file struct {
	name, data string
	typ        byte
	mode       int64
	uid        int
	xattrs     map[string]string
}

// unpack makes a layer of files.
func unpack(t testing.TB, top, id string, files ...file) Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.typ, Mode: f.mode, Uid: f.uid, Gid: f.uid, Format: tar.FormatPAX}
		switch {
		case f.typ == tar.TypeSymlink || f.typ == tar.TypeLink:
			h.Linkname = f.data
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		case f.typ == 0 || f.typ == tar.TypeReg:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.data))
		}
		if f.mode == 0 {
			h.Mode = 0o755
		}
		for k, v := range f.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, f.data)
		}
	}
	w.Close()
	dir := filepath.Join(top, id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := layer.Unpack(t.Context(), dir, &b, layer.Options{}); err != nil {
		t.Fatal(err)
	}
	return Layer{id, dir}
}

// scratch is a directory that layers can be removed from whatever their modes are.
func scratch(t testing.TB) string {
	t.Helper()
	top, err := os.MkdirTemp("", "hull-tree")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := state.Remove(top); err != nil {
			t.Error(err)
		}
	})
	return top
}

// changes is a diff in short: "+/a", "-/b", "~/c content,mode".
func changes(t testing.TB, a, b []Layer) []string {
	t.Helper()
	fds := openFiles(t)
	var out []string
	_, err := Diff(t.Context(), New(a), New(b), func(c *Change) error {
		out = append(out, strings.TrimSpace(map[Kind]string{Added: "+", Deleted: "-", Changed: "~"}[c.Kind]+c.Path+" "+strings.Join(c.What, ",")))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := openFiles(t); got != fds {
		t.Errorf("%d files are open, before it were %d", got, fds)
	}
	return out
}

func openFiles(t testing.TB) int {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // from the first of its kind on, the Go runtime keeps files of its own open
		r.Close()
		w.Close()
	}
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

func TestDiff(t *testing.T) {
	top := scratch(t)
	base := unpack(t, top, "base", file{name: "etc/"}, file{name: "etc/a", data: "1"}, file{name: "etc/b", data: "1"}, file{name: "etc/c", data: "1"},
		file{name: "usr/"}, file{name: "usr/lib/"}, file{name: "usr/lib/x", data: "x"}, file{name: "usr/lib/sub/"}, file{name: "usr/lib/sub/y", data: "y"},
		file{name: "link", typ: tar.TypeSymlink, data: "etc/a"}, file{name: "was-dir/"}, file{name: "was-dir/in", data: "1"}, file{name: "was-file", data: "1"})
	top1 := unpack(t, top, "top1", file{name: "etc/b", data: "2"}, file{name: "etc/.wh.c"}, file{name: "etc/same", data: "s"})
	top2 := unpack(t, top, "top2", file{name: "etc/b", data: "3"}, file{name: "etc/same", data: "s"},
		file{name: "usr/lib/.wh..wh..opq"}, file{name: "usr/lib/z", data: "z"},
		file{name: "link", typ: tar.TypeSymlink, data: "etc/b"}, file{name: "was-dir", data: "1"}, file{name: "was-file/"}, file{name: "was-file/in", data: "1"},
		file{name: "suid", data: "s", mode: 0o4755}, file{name: "etc/a", data: "1", mode: 0o600})
	for name, row := range map[string]struct {
		a, b []Layer
		want []string
	}{
		"same":  {[]Layer{base, top1}, []Layer{base, top1}, nil},
		"up":    {[]Layer{base}, []Layer{base, top1}, []string{"~/etc/b content", "-/etc/c", "+/etc/same"}},
		"down":  {[]Layer{base, top1}, []Layer{base}, []string{"~/etc/b content", "+/etc/c", "-/etc/same"}},
		"aside": {[]Layer{base, top1}, []Layer{base, top2}, []string{"~/etc/a mode", "~/etc/b content", "+/etc/c", "~/link target", "+/suid", "-/usr/lib/sub", "-/usr/lib/sub/y", "-/usr/lib/x", "+/usr/lib/z", "~/was-dir type", "-/was-dir/in", "~/was-file type", "+/was-file/in"}},
		"all":   {nil, []Layer{top1}, []string{"+/etc", "+/etc/b", "+/etc/same"}},
		"none":  {[]Layer{top1}, nil, []string{"-/etc", "-/etc/b", "-/etc/same"}},
	} {
		got := changes(t, row.a, row.b)
		if !slices.Equal(got, row.want) {
			t.Errorf("%s:\nwant %q\n got %q", name, row.want, got)
		}
	}
}

func TestDiffEntries(t *testing.T) {
	top := scratch(t)
	a := unpack(t, top, "a", file{name: "f", data: "1", mode: 0o644})
	caps := map[string]string{"user.note": "n"}
	if os.Geteuid() == 0 {
		caps["security.capability"] = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	}
	b := unpack(t, top, "b", file{name: "f", data: "1", mode: 0o4755, uid: 7, xattrs: caps}, file{name: "pipe", typ: tar.TypeFifo})
	n := 0
	_, err := Diff(t.Context(), New([]Layer{a}), New([]Layer{a, b}), func(c *Change) error {
		n++
		if c.Layer != 1 {
			t.Errorf("%s is of layer %d", c.Path, c.Layer)
		}
		if c.Path != "/f" {
			return nil
		}
		if !c.New.Setuid() || c.Old.Setuid() || c.New.Capabilities() != (os.Geteuid() == 0) || c.New.Xattrs["user.note"] != "n" {
			t.Errorf("got %+v", c.New)
		}
		if want := map[bool]int{true: 7, false: -1}[os.Geteuid() == 0]; c.New.UID != want {
			t.Errorf("want the owner %d, got %d", want, c.New.UID)
		}
		f, err := c.OpenNew()
		if err != nil {
			return err
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		if string(text) != "1" {
			t.Errorf("got %q, %v", text, err)
		}
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d changes, %v", n, err)
	}
	stop := errors.New("stop")
	if _, err := Diff(t.Context(), New(nil), New([]Layer{b}), func(*Change) error { return stop }); err != stop {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := Diff(ctx, New(nil), New([]Layer{b}), func(*Change) error { return nil }); err != stop {
		t.Errorf("got %v", err)
	}
}

// Deeper than a path can be, and with more layers than a process may have files open for all depths.
func TestDiffDeep(t *testing.T) {
	top := scratch(t)
	deep := func(id, end string) Layer {
		l := unpack(t, top, id)
		fd, err := unix.Open(l.Dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if err := unix.Mkdirat(fd, "directory", 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := unix.Openat(fd, "directory", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			fd = next
		}
		defer unix.Close(fd)
		if err := unix.Mkdirat(fd, end, 0o755); err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := deep("a", "old"), deep("b", "new")
	got := changes(t, []Layer{a}, []Layer{a, b})
	if len(got) != 1 || !strings.HasSuffix(got[0], "/new") {
		t.Errorf("got %d changes", len(got))
	}
	got = changes(t, []Layer{a}, []Layer{b})
	if len(got) != 2 {
		t.Errorf("got %d changes", len(got))
	}
}

// Holes take no time, however large they are.
func TestDiffHoles(t *testing.T) {
	top := scratch(t)
	var l [3]Layer
	for i := range l {
		l[i] = unpack(t, top, fmt.Sprint(i), file{name: "big", data: "x"})
		if err := os.Truncate(l[i].Dir+"/big", 1<<40); err != nil {
			t.Skip(err)
		}
	}
	f, err := os.OpenFile(l[2].Dir+"/big", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("y"), 1<<39); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := changes(t, l[:1], l[1:2]); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if got := changes(t, l[:1], l[2:]); !slices.Equal(got, []string{"~/big content"}) {
		t.Errorf("got %v", got)
	}
}

func TestDiffUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	top := scratch(t)
	a := unpack(t, top, "a", file{name: "d/"}, file{name: "d/x", data: "1"}, file{name: "shadow", data: "1", mode: 0o100})
	b := unpack(t, top, "b", file{name: "d/"}, file{name: "d/x", data: "2"}, file{name: "shadow", data: "2", mode: 0o100})
	for _, l := range []Layer{a, b} {
		if err := os.Chmod(l.Dir+"/shadow", 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(l.Dir+"/d", 0); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := Diff(t.Context(), New([]Layer{a}), New([]Layer{b}), func(c *Change) error {
		t.Errorf("got %+v", c)
		return nil
	})
	if err != nil || stats.Unreadable != 2 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

// Against the kernel: what differs between two mounts of overlayfs is what Diff says.
func TestDiffLikeOverlayfs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	top := scratch(t)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		dir := filepath.Join(top, fmt.Sprint(round))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		common := randomLayers(t, r, dir, "c", 1+r.IntN(3))
		a := slices.Concat(common, randomLayers(t, r, dir, "a", 1+r.IntN(3)))
		b := slices.Concat(common, randomLayers(t, r, dir, "b", 1+r.IntN(3)))
		got := changes(t, a, b)
		slices.Sort(got)
		want := mountedChanges(t, dir, a, b)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d:\nwant %q\n got %q", round, want, got)
		}
	}
}

// randomLayers makes n layers of names that are likely to meet.
func randomLayers(t testing.TB, r *rand.Rand, dir, prefix string, n int) []Layer {
	t.Helper()
	names := []string{"a", "b", "c"}
	var out []Layer
	for i := range n {
		var files []file
		seen := map[string]bool{}
		add := func(f file) {
			if key := strings.TrimSuffix(strings.Replace(f.name, ".wh.", "", 1), "/"); !seen[key] {
				seen[key] = true
				files = append(files, f)
			}
		}
		for range 1 + r.IntN(6) {
			path := names[r.IntN(3)]
			parents := []string{}
			for r.IntN(2) == 0 && len(parents) < 3 {
				parents = append(parents, path)
				path += "/" + names[r.IntN(3)]
			}
			if slices.ContainsFunc(files, func(f file) bool {
				return slices.Contains(parents, f.name) || strings.Contains(f.name, ".wh.") && slices.Contains(parents, strings.Replace(f.name, ".wh.", "", 1))
			}) {
				continue // a parent is a file or gone in this layer
			}
			for _, p := range parents {
				add(file{name: p + "/"})
			}
			parent, base := filepath.Split(path)
			if slices.ContainsFunc(files, func(f file) bool { return strings.HasPrefix(f.name, path+"/") }) {
				continue
			}
			switch r.IntN(6) {
			case 0:
				add(file{name: path + "/"})
			case 1:
				add(file{name: path, typ: tar.TypeSymlink, data: names[r.IntN(3)]})
			case 2:
				add(file{name: parent + ".wh." + base})
			case 3:
				if !seen[path] {
					add(file{name: path + "/"})
					add(file{name: path + "/.wh..wh..opq"})
				}
			default:
				add(file{name: path, data: names[r.IntN(3)], mode: []int64{0o755, 0o600}[r.IntN(2)], uid: r.IntN(2)})
			}
		}
		out = append(out, unpack(t, dir, fmt.Sprint(prefix, i), files...))
	}
	return out
}

// mountedChanges compares two mounts by walking them.
func mountedChanges(t testing.TB, dir string, a, b []Layer) []string {
	t.Helper()
	list := func(name string, layers []Layer) map[string]string {
		at := filepath.Join(dir, name)
		empty := filepath.Join(dir, name+"-empty") // a single lower directory needs a second
		for _, d := range []string{at, empty} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var dirs []string
		for _, l := range slices.Backward(layers) {
			dirs = append(dirs, l.Dir)
		}
		if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(append(dirs, empty), ":")); err != nil {
			t.Skip("cannot mount overlayfs: ", err)
		}
		defer unix.Unmount(at, unix.MNT_DETACH)
		all := map[string]string{}
		err := filepath.WalkDir(at, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == at {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err == unix.ENOENT {
				return nil // overlayfs lists the whiteouts of a directory that is in one layer only
			} else if err != nil {
				return err
			}
			data := ""
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				data = string(b)
			case unix.S_IFLNK:
				data, _ = os.Readlink(path)
			}
			all[strings.TrimPrefix(path, at)] = fmt.Sprintf("%o\n%s\n%o\n%d", st.Mode&unix.S_IFMT, data, st.Mode&0o7777, st.Uid)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	old, young := list("old", a), list("young", b)
	var out []string
	for path, x := range old {
		y, ok := young[path]
		if !ok {
			out = append(out, "-"+path)
			continue
		}
		if x == y {
			continue
		}
		p, q := strings.Split(x, "\n"), strings.Split(y, "\n")
		var what []string
		if p[0] != q[0] {
			what = append(what, "type")
		} else if p[1] != q[1] {
			what = append(what, map[string]string{"100000": "content", "120000": "target"}[p[0]])
		}
		if p[2] != q[2] {
			what = append(what, "mode")
		}
		if p[3] != q[3] {
			what = append(what, "owner")
		}
		out = append(out, "~"+path+" "+strings.Join(what, ","))
	}
	for path := range young {
		if _, ok := old[path]; !ok {
			out = append(out, "+"+path)
		}
	}
	slices.Sort(out)
	return out
}

func TestOpen(t *testing.T) {
	top := scratch(t)
	low := unpack(t, top, "low", file{name: "usr/"}, file{name: "usr/lib/"}, file{name: "usr/lib/os-release", data: "old"}, file{name: "etc/"},
		file{name: "etc/os-release", typ: tar.TypeSymlink, data: "../usr/lib/os-release"}, file{name: "abs", typ: tar.TypeSymlink, data: "/lib/os-release"},
		file{name: "lib", typ: tar.TypeSymlink, data: "usr/lib"}, file{name: "loop", typ: tar.TypeSymlink, data: "loop"},
		file{name: "out", typ: tar.TypeSymlink, data: "../../../../etc/passwd"}, file{name: "gone", data: "x"})
	high := unpack(t, top, "high", file{name: "usr/lib/os-release", data: "new"}, file{name: ".wh.gone"})
	tr := New([]Layer{low, high})
	for path, want := range map[string]string{
		"/usr/lib/os-release": "new", "etc/os-release": "new", "/abs": "new", "/lib/os-release": "new", "/etc/../lib/./os-release": "new",
		"/loop": "!too many levels", "/out": "!not exist", "/gone": "!not exist", "/usr/lib/os-release/x": "!not a directory", "/nosuch/x": "!not exist",
		"/usr/lib": "dir", "/": "dir", "/usr/lib/.": "dir", "/usr/lib/..": "dir", strings.Repeat("a/", 500): "!too long",
	} {
		f, e, err := tr.Open(path)
		got := ""
		switch {
		case err != nil:
			got = "!" + err.Error()
		case f == nil && e.Type.IsDir():
			got = "dir"
		default:
			data, _ := io.ReadAll(f)
			got = string(data)
		}
		if f != nil {
			f.Close()
		}
		if !strings.HasPrefix(got, want[:1]) || !strings.Contains(got, strings.TrimPrefix(want, "!")) {
			t.Errorf("%.40s: want %s, got %s", path, want, got)
		}
	}
}

func TestText(t *testing.T) {
	top := scratch(t)
	l := unpack(t, top, "l", file{name: "text", data: "a\n"}, file{name: "binary", data: "a\x00"}, file{name: "latin", data: "\xe9"}, file{name: "d/"})
	for path, want := range map[string]string{"text": "", "binary": "is not text", "latin": "is not text", "d": "is not a regular file"} {
		f, e, err := New([]Layer{l}).Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Text(f, e)
		if want == "" && err != nil || want != "" && (!errors.Is(err, errdef.ErrInvalid) || err.Error() != want) {
			t.Errorf("%s: got %v", path, err)
		}
		if f != nil {
			f.Close()
		}
	}
	if _, err := Text(os.Stdin, &Entry{Size: MaxText + 1}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
