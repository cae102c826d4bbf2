package integration

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hull/image"
	"hull/state"
	"hull/test/rig"
)

// TestTrees takes one image of everything that layers have in the wild to Hull, Docker, Podman and umoci, and compares what
// a container sees: path, type, mode, owner, device, times, attributes, links and content. What the four make of it is
// the same.
func TestTrees(t *testing.T) {
	h := rig.Engine(t)
	// Of a sparse file in GNU tar's own type, as in TestSparse of image/layer, the others know nothing.
	archive := wildImage(t, "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0")
	h.Load(t, archive)
	h.Mark(t)
	ours := hullTree(t, h, "wild:1")
	if len(ours) < 50 {
		t.Fatalf("only %d files: %q", len(ours), slices.Sorted(maps.Keys(ours)))
	}
	saved := filepath.Join(h.Dir, "saved.tar")
	h.Must(t, "save", "-o", saved, "wild:1")
	// Nobody said when these directories were made; Podman makes the root 0555; it and Docker know no time before 1970.
	t.Run("podman", func(t *testing.T) {
		compareTrees(t, ours, podmanTree(t, h, saved), "/implicit", "/implicit/dirs", "", "/old")
	})
	t.Run("docker", func(t *testing.T) {
		compareTrees(t, ours, dockerTree(t, h, saved), "/implicit", "/implicit/dirs", "/old")
	})
	t.Run("umoci", func(t *testing.T) { compareTrees(t, ours, umociTree(t, h), "/implicit", "/implicit/dirs") })
}

// TestSaveElsewhere: what Hull saves is read by skopeo with the digests it has here, and comes back as it was.
func TestSaveElsewhere(t *testing.T) {
	skopeo := rig.Tool(t, "skopeo")
	h := rig.Engine(t)
	h.Load(t, rig.Layered(t).OCI(t))
	h.Mark(t)
	const facts = "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}"
	before := h.Must(t, "images", "--digests", "--no-trunc", "--format", facts)
	_, digest, _ := strings.Cut(before, " ")
	_, digest, _ = strings.Cut(digest, " ")
	copied := func(from, to string) {
		t.Helper()
		if out, err := exec.Command(skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", from, to).CombinedOutput(); err != nil {
			t.Fatalf("skopeo copy %s %s: %v\n%s", from, to, err, out)
		}
	}
	for format, transport := range map[string]string{"": "oci-archive:", "oci-archive": "oci-archive:", "oci-dir": "oci:", "docker-dir": "dir:"} {
		path := filepath.Join(h.Dir, "saved-"+format)
		h.Must(t, "save", "--format="+format, "-o", path, "layered:3")
		manifest, err := exec.Command(skopeo, "inspect", "--format", "{{.Digest}}", transport+path).Output()
		if got := strings.TrimSpace(string(manifest)); err != nil || got != digest {
			t.Errorf("skopeo on %q: want %s, got %s, %v", format, digest, got, err)
		}
		back := filepath.Join(h.Dir, "back-"+format)
		copied(transport+path, "oci-archive:"+back+":layered:3")
		h.Must(t, "rmi", "layered:3")
		h.Load(t, back)
		if got := h.Must(t, "images", "--digests", "--no-trunc", "--format", facts); got != before {
			t.Errorf("%q there and back:\nwant %s\ngot  %s", format, before, got)
		}
	}
	old := filepath.Join(h.Dir, "old")
	h.Must(t, "save", "--format=docker-archive", "-o", old, "layered:3")
	if out, err := exec.Command(skopeo, "inspect", "--config", "docker-archive:"+old).Output(); err != nil || !strings.Contains(string(out), "GREETING=hello") {
		t.Errorf("skopeo on docker-archive: %s, %v", out, err)
	}
	// And the layout of the store itself.
	copied("oci:"+h.Root+":docker.io/library/layered:3", "dir:"+filepath.Join(h.Dir, "copy"))
}

// wildImage writes an archive of three layers and, for each of these formats of GNU tar, one with a sparse file.
func wildImage(t *testing.T, sparse ...string) string {
	t.Helper()
	if out, err := exec.Command(rig.Tool(t, "tar"), "--version").Output(); err != nil || !strings.Contains(string(out), "GNU tar") {
		t.Skip("needs GNU tar, for its kinds of sparse files")
	}
	when := time.Unix(1_700_000_000, 123_456_789)
	long := strings.Repeat("long-", 45)
	add := func(name string, typ byte, f func(*tar.Header)) tar.Header {
		h := tar.Header{Name: name, Typeflag: typ, Mode: 0o644, ModTime: when, Format: tar.FormatPAX}
		if typ == tar.TypeDir {
			h.Mode = 0o755
		}
		if f != nil {
			f(&h)
		}
		return h
	}
	file := func(name string) tar.Header { return add(name, tar.TypeReg, nil) }
	dir := func(name string) tar.Header { return add(name, tar.TypeDir, nil) }
	to := func(name string, typ byte, link string) tar.Header {
		return add(name, typ, func(h *tar.Header) { h.Linkname = link })
	}
	xattr := func(name, key, value string) tar.Header {
		return add(name, tar.TypeReg, func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr." + key: value} })
	}
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service+ep
	first := []tar.Header{
		dir("./"), dir("bin"), add("bin/su", tar.TypeReg, func(h *tar.Header) { h.Mode = 0o4755 }),
		add("bin/sg", tar.TypeReg, func(h *tar.Header) { h.Mode, h.Gid = 0o2755, 42 }),
		add("tmp", tar.TypeDir, func(h *tar.Header) { h.Mode = 0o1777 }),
		add("closed", tar.TypeDir, func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o500, 1000, 1001 }), file("closed/f"),
		add("big-ids", tar.TypeReg, func(h *tar.Header) {
			h.Uid, h.Gid = 3_000_000, 4_000_000_000
			h.Format = tar.FormatGNU
			h.ModTime = when.Truncate(time.Second)
		}),
		add("old", tar.TypeReg, func(h *tar.Header) { h.ModTime = time.Unix(-86400, 0) }),
		add("future", tar.TypeReg, func(h *tar.Header) { h.ModTime = time.Unix(4_500_000_000, 0) }),
		xattr("bin/ping", "security.capability", capability), xattr("bin/attr", "user.comment", "a\x00b"),
		add("null", tar.TypeChar, func(h *tar.Header) { h.Devmajor, h.Devminor, h.Mode = 1, 3, 0o666 }),
		add("disk", tar.TypeBlock, func(h *tar.Header) { h.Devmajor, h.Devminor, h.Mode = 8, 17, 0o660 }),
		add("pipe", tar.TypeFifo, nil),
		dir(long), file(long + "/" + long + "-file"), to("link-"+long, tar.TypeSymlink, long+"/"+long+"-file"),
		file("with space and \u00e4\u4e16"), to("absolute", tar.TypeSymlink, "/bin/su"), to("dangling", tar.TypeSymlink, "../../nowhere"),
		dir("links"), file("links/a"), to("links/b", tar.TypeLink, "links/a"), to("links/c", tar.TypeLink, "links/b"), to("links/s", tar.TypeSymlink, "a"), to("links/t", tar.TypeLink, "links/s"),
		dir("gone"), file("gone/a"), file("gone-file"), dir("opaque"), file("opaque/old"), dir("opaque/sub"), file("opaque/sub/old"),
		dir("kept"), file("kept/stays"), file("kept/goes"),
		dir("flip"), file("flip/file-dir"), dir("flip/dir-file"), file("flip/dir-file/f"), file("flip/file-link"), to("flip/link-file", tar.TypeSymlink, "file-link"),
		to("flip/link-dir", tar.TypeSymlink, "dir-file"), dir("flip/dir-link"), file("flip/dir-link/f"), add("flip/pipe-file", tar.TypeFifo, nil),
		file("implicit/dirs/here"), dir("usrmerge"), to("lib", tar.TypeSymlink, "usrmerge"), file("lib/through-a-link"),
	}
	second := []tar.Header{
		file(".wh.gone"), file(".wh.gone-file"), dir("opaque"), file("opaque/.wh..wh..opq"), file("opaque/new"),
		dir("kept"), file("kept/.wh.goes"), file("kept/comes"), dir("links"), file("links/.wh.a"),
		dir("flip"), dir("flip/file-dir"), file("flip/file-dir/f"), file("flip/dir-file"), to("flip/file-link", tar.TypeSymlink, "dir-file"), file("flip/link-file"),
		dir("flip/link-dir"), file("flip/link-dir/f"), file("flip/.wh.dir-link"), file("flip/pipe-file"),
		add("bin", tar.TypeDir, func(h *tar.Header) { h.Mode, h.Uid = 0o751, 7 }),
	}
	third := []tar.Header{dir("gone"), file("gone/again"), dir("flip"), to("flip/dir-link", tar.TypeSymlink, "file-dir"), dir("opaque"), dir("opaque/sub"), file("opaque/sub/new")}
	layers := [][]byte{packed(t, first), packed(t, second), packed(t, third)}
	return (&rig.Image{Tag: "wild:1", Tars: append(layers, sparseLayers(t, sparse)...), Cmd: []string{"/bin/true"}}).OCI(t)
}

// packed makes a tar whose regular files hold their own name.
func packed(t *testing.T, entries []tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		body := ""
		if h.Typeflag == tar.TypeReg && !strings.Contains(h.Name, ".wh.") {
			body = "content of " + h.Name
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(body))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sparseLayers are a file with holes in each of the formats.
func sparseLayers(t *testing.T, formats []string) (layers [][]byte) {
	t.Helper()
	for _, format := range formats {
		dir := t.TempDir()
		name := "sparse-" + strings.ReplaceAll(strings.ReplaceAll(format, " ", ""), "--", "-")
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < 40<<20; off += 8 << 20 {
			f.WriteAt([]byte(fmt.Sprint("data at ", off)), off)
		}
		if err := errors.Join(f.Truncate(50<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"-C", dir, "-S", "--numeric-owner", "--mtime=@1700000000", "-cf", "-"}, strings.Fields("--format="+format)...)
		out, err := exec.Command("tar", append(args, name)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, out)
	}
	return layers
}

// hullTree mounts the layers of an image as a container has them.
func hullTree(t *testing.T, h *rig.Hull, name string) map[string]string {
	t.Helper()
	img, err := image.Open(h.Root).Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	lower := make([]string, len(img.Layers))
	for i, l := range img.Layers {
		lower[len(lower)-1-i] = l.Dir
	}
	return merged(t, filepath.Join(h.Dir, "merged"), lower)
}

// merged is the tree of the unpacked layers, the highest first, as overlayfs shows them at the new directory at.
func merged(t *testing.T, at string, layers []string) map[string]string {
	t.Helper()
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(layers, ":")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	return treeOf(t, at)
}

// dockerTree is made of the directories of Docker's store, without a container: its own files are not the image's.
func dockerTree(t *testing.T, h *rig.Hull, archive string) map[string]string {
	docker := ownDocker(t, h)
	docker("load", "-q", "-i", archive)
	var data struct{ UpperDir, LowerDir string }
	if err := json.Unmarshal([]byte(docker("image", "inspect", "-f", "{{json .GraphDriver.Data}}", "wild:1")), &data); err != nil {
		t.Fatal(err)
	}
	if data.UpperDir == "" {
		t.Fatalf("Docker keeps its layers in another way than overlay2: %s", docker("info", "-f", "{{.Driver}}"))
	}
	return merged(t, filepath.Join(h.Dir, "merged-docker"), append([]string{data.UpperDir}, strings.Split(data.LowerDir, ":")...))
}

func podmanTree(t *testing.T, h *rig.Hull, archive string) map[string]string {
	podman := rig.Tool(t, "podman")
	dir := filepath.Join(h.Dir, "podman")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(podman, append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "overlay"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("podman %q: %v\n%s", args, err, &stderr)
		}
		return strings.TrimSpace(string(out))
	}
	t.Cleanup(func() {
		// It leaves its store mounted on itself.
		unix.Unmount(dir+"/root/overlay", unix.MNT_DETACH)
		if err := state.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	run("load", "-q", "-i", archive)
	at := run("image", "mount", "wild:1")
	defer run("image", "unmount", "wild:1")
	return treeOf(t, at)
}

func umociTree(t *testing.T, h *rig.Hull) map[string]string {
	umoci := rig.Tool(t, "umoci")
	h.Must(t, "save", "--format", "oci-dir", "-o", filepath.Join(h.Dir, "oci"), "wild:1")
	bundle := filepath.Join(h.Dir, "bundle")
	if out, err := exec.Command(umoci, "unpack", "--image", filepath.Join(h.Dir, "oci")+":1", bundle).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	return treeOf(t, bundle+"/rootfs")
}

// treeOf describes every file below dir by a line.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	first := map[uint64]string{} // the first name of an inode
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		line := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if name == "" {
			line = fmt.Sprintf("mode %o owner %d:%d", st.Mode, st.Uid, st.Gid)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d sha256 %.8x", st.Size, sha256.Sum256(data))
		case unix.S_IFLNK:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + link
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			line += " same as " + cmp.Or(first[st.Ino], "itself")
			first[st.Ino] = cmp.Or(first[st.Ino], name)
		}
		tree[name] = line + attributes(path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func attributes(path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil && !errors.Is(err, syscall.ENOTSUP) {
		return " " + err.Error()
	}
	names := strings.FieldsFunc(string(buf[:max(0, n)]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	line := ""
	for _, name := range names {
		// Of overlayfs and umoci, for themselves.
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.rootlesscontainers") {
			continue
		}
		n, _ := unix.Lgetxattr(path, name, buf)
		line += fmt.Sprintf(" %s=%q", name, buf[:max(0, n)])
	}
	return line
}

func compareTrees(t *testing.T, ours, theirs map[string]string, but ...string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if ours[name] != theirs[name] && !slices.Contains(but, name) {
			t.Errorf("%s:\nours:   %s\ntheirs: %s", name, ours[name], theirs[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if _, ok := ours[name]; !ok {
			t.Errorf("%s is only theirs: %s", name, theirs[name])
		}
	}
}
