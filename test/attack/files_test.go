package attack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hull/test/rig"
)

// A31: while files are copied, the container exchanges a directory and a symbolic link to the host's
// (CVE-2018-15664).
// Must: nothing of the host is read or written, whichever of the two a copy meets.
func TestA31CopyRace(t *testing.T) {
	for _, userns := range []string{"private", "host"} {
		t.Run("userns="+userns, func(t *testing.T) {
			dir, secret := canaries(t)
			h := target(t,
				rig.File{Name: "x/", Mode: 0o777},
				rig.File{Name: "x/a/", Mode: 0o777}, rig.File{Name: "x/a/secret", Mode: 0o666, Data: "inside\n"},
				rig.File{Name: "x/b", Type: tar.TypeSymlink, Link: dir},
				rig.File{Name: "x/up", Type: tar.TypeSymlink, Link: strings.Repeat("../", 40) + dir})
			args := []string{"target", "attacker", "swap", "/x"}
			if userns == "host" {
				args = append([]string{"--userns", "host"}, args...)
			}
			c := detached(t, h, args...)
			in := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(in, []byte("from outside\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			met := map[bool]int{}
			for range often(100) {
				r := h.Run(t, "cp", in, c+":/x/a/secret")
				met[r.Code == 0]++
				out := h.Run(t, "cp", c+":/x/a/secret", "-")
				if strings.Contains(out.Stdout, canaryText) {
					t.Fatal("read the canary")
				}
				h.Run(t, "cp", in, c+":/x/a/")
				h.Run(t, "cp", in, c+":/x/up/secret")
			}
			t.Logf("copied %d times, refused %d times", met[true], met[false])
			if met[true] == 0 {
				t.Error("no copy succeeded: the attack was not tried")
			}
			if data, err := os.ReadFile(secret); err != nil || string(data) != canaryText {
				t.Errorf("the canary says %q, %v", data, err)
			}
		})
	}
}

// A32, A33: the image brings decompressors, a dynamic loader and name service libraries of its own
// (CVE-2026-41567, CVE-2019-14271).
// Must: a copy runs none of them.
func TestA32CopyRunsNothing(t *testing.T) {
	script := "#!/bin/sh\necho ran >>/marker\n"
	var files []rig.File
	for _, name := range []string{"bin/xz", "bin/unxz", "bin/gzip", "bin/unpigz", "bin/zstd", "bin/tar", "lib64/ld-linux-x86-64.so.2", "lib/libnss_files.so.2"} {
		files = append(files, rig.File{Name: name, Mode: 0o755, Data: script})
	}
	files = append(files,
		rig.File{Name: "etc/ld.so.preload", Mode: 0o644, Data: "/lib/libnss_files.so.2\n"},
		rig.File{Name: "etc/nsswitch.conf", Mode: 0o644, Data: "passwd: files\n"})
	h := target(t, files...)
	c := detached(t, h, "target", "sleep", "1000")
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 2, Mode: 0o644, Uname: "root", Gname: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	z := gzip.NewWriter(&packed)
	z.Write(plain.Bytes())
	z.Close()
	if r := h.RunStdin(t, &packed, "cp", "-", c+":/"); r.Code != 0 {
		t.Errorf("a tar in gzip: %+v", r)
	}
	if r := h.RunStdin(t, strings.NewReader("\xfd7zXZ\x00rest"), "cp", "-", c+":/"); r.Code == 0 || !strings.Contains(r.Stderr, "xz") {
		t.Errorf("a tar in xz: want a refusal that says so, got %+v", r)
	}
	h.Must(t, "cp", c+":/f", filepath.Join(t.TempDir(), "out"))
	h.Must(t, "export", "-o", filepath.Join(t.TempDir(), "all"), c)
	if got := h.Must(t, "diff", c); strings.TrimSpace(got) != "A /f" {
		t.Errorf("want no trace but the file, got %q", got)
	}
}

// What a container puts in the way of a copy: named pipes, links into /proc, files of the kernel.
// Must: a copy ends, and the kernel is told nothing.
func TestCopyMeetsTraps(t *testing.T) {
	h := target(t, rig.File{Name: "x/", Mode: 0o777},
		rig.File{Name: "x/proc", Type: tar.TypeSymlink, Link: "/proc"},
		rig.File{Name: "x/core", Type: tar.TypeSymlink, Link: "/proc/sys/kernel/core_pattern"})
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--privileged"}} {
		c := detached(t, h, append(args, "target", "sh", "-c", "mkfifo /x/fifo; echo y >/x/zz; touch /ready; exec sleep 1000")...)
		for deadline := time.Now().Add(rig.Patience(20 * time.Second)); h.Run(t, "exec", c, "test", "-e", "/ready").Code != 0; {
			if time.Now().After(deadline) {
				t.Fatal("the container does not get ready")
			}
			time.Sleep(10 * time.Millisecond)
		}
		out := h.Must(t, "cp", c+":/x", "-")
		if !strings.Contains(out, "x/zz") {
			t.Error("the copy ended before the named pipe")
		}
		for _, path := range []string{"/x/proc/", "/x/proc/self/environ", "/proc/kmsg", "/sys/kernel/"} {
			if r := h.Run(t, "cp", c+":"+path, "-"); r.Code == 0 && len(r.Stdout) > 4096 {
				t.Errorf("cp of %s gave %d bytes", path, len(r.Stdout))
			}
		}
		in := filepath.Join(t.TempDir(), "in")
		if err := os.WriteFile(in, []byte("|/evil\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/x/core", "/x/proc/sys/kernel/core_pattern", "/proc/sys/kernel/core_pattern"} {
			if r := h.Run(t, "cp", in, c+":"+path); r.Code == 0 {
				if now, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); !bytes.Equal(now, before) {
					t.Fatalf("cp to %s wrote to the kernel: %q", path, now)
				}
			}
		}
	}
}
