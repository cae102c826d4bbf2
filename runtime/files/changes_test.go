package files

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// mounted returns an overlay in a mount namespace of the calling thread's own, with its lower and upper directories.
func mounted(t *testing.T, options string, fill func(lower string)) (merged string, job *Job) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root") // package rig says this better, but imports us
	}
	top, err := os.MkdirTemp("/var/tmp", "changes-") // not on an overlay, as /tmp may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	dir := func(name string) string {
		p := filepath.Join(top, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	lower, upper, work, merged := dir("lower"), dir("upper"), dir("work"), dir("merged")
	fill(lower)
	opts := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work + options
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	return merged, &Job{Lower: []string{lower}, Upper: upper}
}

func run(t *testing.T, job *Job, op string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	job.Op = op
	s := &server{job: job, out: bufio.NewWriter(&out)}
	if err := errors.Join(s.run(t.Context()), s.out.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.ReadBytes('\n'); err != nil { // the reply
		t.Fatal(err)
	}
	return &out
}

// write makes files below dir: "name" with its own name as content, "name/" a directory.
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, n)
		var err error
		if strings.HasSuffix(n, "/") {
			err = os.Mkdir(p, 0o755)
		} else {
			err = os.WriteFile(p, []byte(n), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestChanges compares what is listed, and the layer that is written, with what was done to the tree.
func TestChanges(t *testing.T) {
	for _, options := range []string{"", ",redirect_dir=on,metacopy=on"} {
		t.Run("options"+options, func(t *testing.T) {
			merged, job := mounted(t, options, func(lower string) {
				write(t, lower, "dir/", "dir/kept", "dir/gone", "dir/sub/", "dir/sub/deep", "opaque/", "opaque/old", "file", "mode", "todir", "tofile/", "tofile/in")
			})
			in := func(name string) string { return filepath.Join(merged, name) }
			err := errors.Join(
				os.Remove(in("dir/gone")), os.WriteFile(in("file"), []byte("new"), 0o644), os.Chmod(in("mode"), 0o600),
				os.RemoveAll(in("opaque")), os.Mkdir(in("opaque"), 0o755), os.WriteFile(in("opaque/new"), []byte("x"), 0o644),
				os.Remove(in("todir")), os.Mkdir(in("todir"), 0o755), os.WriteFile(in("todir/f"), []byte("x"), 0o644),
				os.RemoveAll(in("tofile")), os.WriteFile(in("tofile"), []byte("x"), 0o644),
			)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"C /dir", "D /dir/gone", "C /file", "C /mode", "C /opaque", "A /opaque/new", "D /opaque/old", "C /todir", "A /todir/f", "C /tofile"}
			if options != "" { // without, a directory of the image cannot be renamed
				if err := os.Rename(in("dir"), in("moved")); err != nil {
					t.Fatal(err)
				}
				want = []string{"D /dir", "C /file", "C /mode", "A /moved", "A /moved/kept", "A /moved/sub", "A /moved/sub/deep",
					"C /opaque", "A /opaque/new", "D /opaque/old", "C /todir", "A /todir/f", "C /tofile"}
			}
			var got []string
			for dec := json.NewDecoder(run(t, job, OpChanges)); ; {
				var c Change
				if err := dec.Decode(&c); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				got = append(got, string("CAD"[c.Kind])+" "+c.Path)
			}
			if !slices.Equal(got, want) {
				t.Errorf("want %q\n got %q", want, got)
			}
			content := map[string]string{}
			for tr := tar.NewReader(run(t, job, OpLayer)); ; {
				hdr, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(tr)
				if err != nil {
					t.Fatal(err)
				}
				content[hdr.Name] = string(b)
			}
			expect := map[string]string{"file": "new", "mode": "mode", "opaque/new": "x", "opaque/.wh.old": "", "todir/f": "x", "tofile": "x"}
			if options == "" {
				expect["dir/.wh.gone"] = ""
			} else {
				expect[".wh.dir"], expect["moved/kept"], expect["moved/sub/deep"] = "", "dir/kept", "dir/sub/deep"
			}
			for name, text := range expect {
				if got, ok := content[name]; !ok || got != text {
					t.Errorf("layer: %s: want %q, got %q (there: %v)", name, text, got, ok)
				}
			}
			for _, name := range []string{"moved/gone", "dir/kept", "opaque/old"} {
				if _, ok := content[name]; ok {
					t.Errorf("the layer has %s", name)
				}
			}
		})
	}
}

// TestChangesTooDeep: a tree deeper than any path is long is told so, and not by running out of descriptors.
func TestChangesTooDeep(t *testing.T) {
	merged, job := mounted(t, "", func(string) {})
	fd, err := unix.Open(merged, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	name := strings.Repeat("d", 200)
	for range 100 {
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, e := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd, err = next, e
	}
	unix.Close(fd)
	for _, op := range []string{OpChanges, OpLayer} {
		job.Op = op
		err := (&server{job: job, out: bufio.NewWriter(io.Discard)}).run(t.Context())
		if !errors.Is(err, errdef.ErrInvalid) || !strings.Contains(err.Error(), "too deep") {
			t.Errorf("%s: want that it is too deep, got %v", op, err)
		}
	}
}

// TestRedirectStays: what is in overlayfs' own attributes leads to no place that overlayfs would not go to.
func TestRedirectStays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, to := range []string{"../secret", "..", ".", "a/b", "/../secret", "/dir/../../secret", "//dir", "/dir/", "/", "\x00", strings.Repeat("x", 5000)} {
		top := t.TempDir()
		write(t, top, "lower/", "lower/dir/", "lower/dir/f", "upper/", "upper/moved/", "secret/", "secret/key")
		if err := unix.Setxattr(filepath.Join(top, "upper/moved"), "trusted.overlay.redirect", []byte(to), 0); err != nil {
			t.Skipf("no trusted attributes here: %v", err)
		}
		for _, op := range []string{OpChanges, OpLayer} {
			var out bytes.Buffer
			s := &server{job: &Job{Op: op, Lower: []string{filepath.Join(top, "lower")}, Upper: filepath.Join(top, "upper")}, out: bufio.NewWriter(&out)}
			err := s.run(t.Context())
			s.out.Flush()
			if strings.Contains(out.String(), "key") || err == nil {
				t.Errorf("%s with the redirect %.20q: %v\n%s", op, to, err, &out)
			}
		}
	}
	for _, to := range []string{"dir", "/dir", "/a/b/..c"} {
		if !validRedirect(to) {
			t.Errorf("%q is one that overlayfs writes", to)
		}
	}
}

// TestSwappedForDevice: a file that becomes a device after it was looked at is not opened.
func TestSwappedForDevice(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const nobodys = 240<<8 | 250 // a number for experiments: opening it is ENXIO
	if err := unix.Mknodat(fd, "f", unix.S_IFCHR|0o600, nobodys); err != nil {
		t.Skipf("no device can be made here: %v", err)
	}
	e := &entry{dir: fd, base: "f", data: -1}
	e.st.Mode = unix.S_IFREG | 0o600 // a moment ago
	if err := (&differ{attr: "trusted.overlay."}).metacopy(e, nil); err != unix.ENOENT {
		t.Errorf("want ENOENT, as for a file that is gone, got %v", err)
	}
}
