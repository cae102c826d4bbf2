package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

type entry struct {
	name string
	kind byte
	data string // content, or where a link leads
	mode int64
}

func pack(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		hdr := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, ModTime: time.Unix(1e9, 0)}
		if e.mode == 0 {
			hdr.Mode = 0o644
		}
		if e.kind == tar.TypeReg {
			hdr.Size = int64(len(e.data))
		} else {
			hdr.Linkname = e.data
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			if _, err := w.Write([]byte(e.data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func open(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// A34: TestEvil extracts what a hostile server or container would send. Nothing may change outside of the directory.
func TestEvil(t *testing.T) {
	for name, entries := range map[string][]entry{
		"dot dot":           {{"../canary", tar.TypeReg, "evil", 0}},
		"dot dot inside":    {{"a/../../canary", tar.TypeReg, "evil", 0}},
		"link to file":      {{"l", tar.TypeSymlink, "../canary", 0}, {"l", tar.TypeReg, "fine", 0}},
		"link to directory": {{"l", tar.TypeSymlink, "..", 0}, {"l/canary", tar.TypeReg, "evil", 0}},
		"absolute link":     {{"l", tar.TypeSymlink, "/", 0}, {"l/canary", tar.TypeReg, "evil", 0}},
		"two links":         {{"a", tar.TypeSymlink, ".", 0}, {"a/b", tar.TypeSymlink, "..", 0}, {"b/canary", tar.TypeReg, "evil", 0}},
		"hard link out":     {{"h", tar.TypeLink, "../canary", 0}, {"h", tar.TypeReg, "evil", 0}},
		"hard link to link": {{"l", tar.TypeSymlink, "../canary", 0}, {"h", tar.TypeLink, "l", 0}, {"h", tar.TypeReg, "fine", 0}},
		"into an old link":  {{"old/canary", tar.TypeReg, "evil", 0}},
		"proc":              {{"l", tar.TypeSymlink, "/proc/self/cwd", 0}, {"l/canary", tar.TypeReg, "evil", 0}},
		"no name":           {{"", tar.TypeReg, "evil", 0}},
		"long name":         {{strings.Repeat("x/", 5000) + "f", tar.TypeReg, "evil", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			canary, dir := filepath.Join(top, "canary"), filepath.Join(top, "dir")
			if err := errors.Join(os.WriteFile(canary, []byte("canary"), 0o644), os.Mkdir(dir, 0o755), os.Symlink("..", dir+"/old")); err != nil {
				t.Fatal(err)
			}
			err := Extract(t.Context(), open(t, dir), pack(t, entries...), Extraction{Beneath: true})
			t.Log(err)
			if got, err := os.ReadFile(canary); err != nil || string(got) != "canary" {
				t.Errorf("the canary says %q, %v", got, err)
			}
			if names, _ := filepath.Glob(top + "/*"); len(names) != 2 {
				t.Errorf("outside of the directory there is %v", names)
			}
			if strings.Contains(name, "dot dot") && !errors.Is(err, errdef.ErrInvalid) {
				t.Errorf("want it refused, got %v", err)
			}
		})
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	in := pack(t, entry{"from/", tar.TypeDir, "", 0o755}, entry{"from/f", tar.TypeReg, "x", 0}, entry{"from/h", tar.TypeLink, "from/f", 0})
	if err := Extract(t.Context(), open(t, dir), in, Extraction{Beneath: true, From: "from", To: "to"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/to/h"); err != nil || string(got) != "x" {
		t.Errorf("want x, got %q, %v", got, err)
	}
	err := Extract(t.Context(), open(t, dir), pack(t, entry{"fromage", tar.TypeReg, "x", 0}), Extraction{Beneath: true, From: "from", To: "to"})
	if !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("want an entry of another name refused, got %v", err)
	}
}

func TestKinds(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/f", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{{"d", tar.TypeReg, "x", 0}, {"f", tar.TypeDir, "", 0o755}} {
		if err := Extract(t.Context(), open(t, dir), pack(t, e), Extraction{SameKind: true}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: want a refusal, got %v", e.name, err)
		}
		if err := Extract(t.Context(), open(t, dir), pack(t, e), Extraction{}); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
	}
	if err := Extract(t.Context(), open(t, dir), pack(t, entry{"s", tar.TypeReg, "x", 0o6755}), Extraction{}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir + "/s"); err != nil || fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		t.Errorf("a file of the caller became setuid: %v, %v", fi.Mode(), err)
	}
}

// TestRoundTrip writes a tree twice and extracts it: the bytes are the same, and so is the tree.
func TestRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.Mkdir(from+"/d", 0o700), os.WriteFile(from+"/d/big", bytes.Repeat([]byte("z"), 300<<10), 0o640),
		os.Link(from+"/d/big", from+"/hard"), os.Symlink("/nowhere", from+"/sym"), unix.Mkfifo(from+"/fifo", 0o600),
		os.WriteFile(from+"/sparse", make([]byte, 1<<20), 0o600), os.Chtimes(from+"/d", time.Unix(1e9, 0), time.Unix(1e9, 0)),
		unix.Setxattr(from+"/hard", "user.note", []byte("value\x00"), 0),
	); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		w := NewWriter(b)
		if err := errors.Join(w.Add(t.Context(), open(t, from), ".", "."), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same tree gave other bytes")
	}
	if err := Extract(t.Context(), open(t, to), &first, Extraction{Beneath: true, KeepOwner: os.Geteuid() == 0}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/big", "hard", "sym", "fifo", "sparse"} {
		var a, b unix.Stat_t
		if err := errors.Join(unix.Lstat(from+"/"+name, &a), unix.Lstat(to+"/"+name, &b)); err != nil {
			t.Fatal(err)
		}
		describe := func(st *unix.Stat_t) string {
			return fmt.Sprintf("%o %d %d %d", st.Mode, st.Nlink, st.Mtim.Sec, st.Uid)
		}
		if describe(&a) != describe(&b) || a.Mode&unix.S_IFMT == unix.S_IFREG && a.Size != b.Size {
			t.Errorf("%s: want %s, got %s", name, describe(&a), describe(&b))
		}
	}
	if os.Geteuid() == 0 {
		var buf [16]byte
		if n, err := unix.Getxattr(to+"/hard", "user.note", buf[:]); err != nil || string(buf[:n]) != "value\x00" {
			t.Errorf("want the attribute, got %q, %v", buf[:max(n, 0)], err)
		}
	}
}

// FuzzExtract: whatever the bytes, nothing changes outside of the directory.
func FuzzExtract(f *testing.F) {
	f.Add(pack(f, entry{"l", tar.TypeSymlink, "..", 0}, entry{"l/canary", tar.TypeReg, "evil", 0}).Bytes())
	f.Add(pack(f, entry{"a/b", tar.TypeReg, "x", 0}, entry{"a", tar.TypeLink, "a/b", 0}).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		top := t.TempDir()
		if err := os.Mkdir(top+"/dir", 0o755); err != nil {
			t.Fatal(err)
		}
		_ = Extract(t.Context(), open(t, top+"/dir"), bytes.NewReader(b), Extraction{Beneath: true})
		if names, _ := filepath.Glob(top + "/*"); len(names) != 1 {
			t.Errorf("outside of the directory there is %v", names)
		}
	})
}

// TestHolesAreNotRead: a sparse file comes as it reads, but its holes cost no reading.
func TestHolesAreNotRead(t *testing.T) {
	const size = 2 << 30
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, data := range map[int64]string{0: "begin", 1<<30 + 1: "middle"} {
		if _, err := f.WriteAt([]byte(data), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	fd := open(t, dir)
	defer unix.Close(fd)
	r, w := io.Pipe()
	defer r.Close()
	before := bytesRead(t)
	go func() {
		out := NewWriter(w)
		w.CloseWithError(errors.Join(out.Add(t.Context(), fd, "sparse", "sparse"), out.Close()))
	}()
	tr := tar.NewReader(r)
	hdr, err := tr.Next()
	if err != nil || hdr.Size != size {
		t.Fatalf("header %+v, %v", hdr, err)
	}
	found := map[int64]string{}
	buf := make([]byte, 1<<20)
	zeros := make([]byte, len(buf))
	for at := int64(0); at < size; at += int64(len(buf)) {
		if _, err := io.ReadFull(tr, buf); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, zeros) {
			found[at] = string(bytes.Trim(buf, "\x00"))
		}
	}
	if len(found) != 2 || found[0] != "begin" || found[1<<30] != "middle" {
		t.Errorf("found %v", found)
	}
	if read := bytesRead(t) - before; read > 64<<20 {
		t.Errorf("%d bytes were read of a file with two blocks", read)
	}
}

// bytesRead is how many bytes this process has got from reads of all kinds.
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRoom: a file for which there is no room is named before anything of it is written.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int64{"a": 1000, "huge": 1 << 40} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	fd := open(t, dir)
	defer unix.Close(fd)
	var out bytes.Buffer
	w := NewWriter(&out)
	w.Room = 1 << 30
	err := w.Add(t.Context(), fd, ".", "top")
	if !errors.Is(err, errdef.ErrUnavailable) || !strings.Contains(err.Error(), "top/huge") || !strings.Contains(err.Error(), "holes") {
		t.Errorf("want that there is no room for top/huge, got %v", err)
	}
}

// TestTooDeep: a tree may be deeper than any path is long; that is said, and no descriptor is held for each level.
func TestTooDeep(t *testing.T) {
	top := t.TempDir()
	fd := open(t, top)
	defer state.RemoveAt(unix.AT_FDCWD, top)
	name := strings.Repeat("d", 200)
	for range 100 {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
	fd = open(t, top)
	defer unix.Close(fd)
	err := NewWriter(io.Discard).Add(t.Context(), fd, ".", "top")
	if !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), "too deep") {
		t.Errorf("want that it is too deep, got %v", err)
	}
}

// TestManyDirectories: of a tar without end of directories not all are remembered, and each gets its time.
func TestManyDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "early"), 0o755); err != nil {
		t.Fatal(err)
	}
	fd := open(t, dir)
	defer unix.Close(fd)
	x := &extractor{root: fd, dirs: map[string]time.Time{}}
	want := time.Unix(1e9, 0)
	if err := x.remember("early", want); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxNames / 2000 {
		if err := x.remember(fmt.Sprintf("%02000d", i), want); err != nil {
			t.Fatal(err)
		}
	}
	if len(x.dirs) > maxNames/2000 {
		t.Errorf("%d names of 2000 bytes are remembered", len(x.dirs))
	}
	if fi, err := os.Stat(filepath.Join(dir, "early")); err != nil || !fi.ModTime().Equal(want) {
		t.Errorf("the time of the first one is %v, %v", fi.ModTime(), err)
	}
}

// TestManyLinks: when too many names are remembered a hard link comes as a file.
func TestManyLinks(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "a"), []byte("data"), 0o600), os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b"))); err != nil {
		t.Fatal(err)
	}
	fd := open(t, dir)
	defer unix.Close(fd)
	for _, named := range []int{0, maxNames} {
		var out bytes.Buffer
		w := NewWriter(&out)
		w.named = named
		if err := errors.Join(w.Add(t.Context(), fd, ".", "."), w.Close()); err != nil {
			t.Fatal(err)
		}
		want := "a file, b link"
		if named > 0 {
			want = "a file, b file"
		}
		var got []string
		for tr := tar.NewReader(&out); ; {
			hdr, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch hdr.Typeflag {
			case tar.TypeReg:
				got = append(got, filepath.Base(hdr.Name)+" file")
			case tar.TypeLink:
				got = append(got, filepath.Base(hdr.Name)+" link")
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("with %d bytes of names: want %s, got %v", named, want, got)
		}
	}
}
