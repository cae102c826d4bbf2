package rig

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// File is an entry of a test image's layer: Mode's type bits follow tar's Type.
type File struct {
	Name string
	Type byte // tar.TypeReg when 0
	Mode int64
	Data string
	Link string
	UID  int
}

// Image describes a test image; the zero value of what is not needed will do.
type Image struct {
	Tag     string
	Layers  [][]File
	Tars    [][]byte // layers above those, ready-made
	Cmd     []string
	Entry   []string
	Env     []string
	User    string
	Dir     string
	Labels  map[string]string
	Volumes map[string]struct{}
}

// busybox finds a statically linked one.
func busybox(t testing.TB) string {
	t.Helper()
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if b, err := os.ReadFile(p); err == nil {
			return string(b)
		}
	}
	t.Skip("needs busybox-static, which make test installs as root")
	return ""
}

// Busybox writes the archive of image busybox (docker save's format) and returns its path. All applets are there;
// /bin/sh is the command; user nobody exists.
func Busybox(t testing.TB) string {
	t.Helper()
	return busyboxImage(t).Docker(t)
}

func busyboxImage(t testing.TB) *Image {
	t.Helper()
	files := []File{
		{Name: "bin/", Mode: 0o755}, {Name: "etc/", Mode: 0o755}, {Name: "root/", Mode: 0o700}, {Name: "tmp/", Mode: 0o1777},
		{Name: "proc/", Mode: 0o555}, {Name: "sys/", Mode: 0o555}, {Name: "dev/", Mode: 0o755}, {Name: "home/", Mode: 0o755},
		{Name: "bin/busybox", Mode: 0o755, Data: busybox(t)},
		{Name: "etc/passwd", Mode: 0o644, Data: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\napp:x:1000:1000:app:/home:/bin/sh\n"},
		{Name: "etc/group", Mode: 0o644, Data: "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n"},
		{Name: "etc/not-executable", Mode: 0o644, Data: "text\n"},
		{Name: "home/owned", Mode: 0o600, UID: 1000, Data: "app's\n"},
	}
	for _, applet := range []string{"sh", "ash", "ls", "cat", "echo", "true", "false", "sleep", "id", "ps", "mount", "umount", "env", "printenv",
		"touch", "mkdir", "rm", "mv", "cp", "ln", "chmod", "chown", "head", "tail", "grep", "sed", "awk", "wc", "sort", "tr", "cut", "dd", "stat",
		"hostname", "uname", "date", "kill", "test", "[", "expr", "seq", "yes", "tee", "find", "xargs", "nproc", "stty", "tty", "timeout", "mknod",
		"ip", "nc", "wget", "httpd", "top", "free", "df", "od", "md5sum", "sha256sum", "readlink", "realpath", "sync", "usleep", "setsid", "nohup"} {
		files = append(files, File{Name: "bin/" + applet, Type: tar.TypeSymlink, Link: "busybox"})
	}
	return &Image{Tag: "busybox:latest", Layers: [][]File{files}, Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}
}

// Layered is an image as builds make them: three layers over busybox's with a replaced file, a whiteout, an opaque
// directory, a hard link, a sticky directory and an owner; user, directory, environment, entry point and label set.
func Layered(t testing.TB) *Image {
	t.Helper()
	i := busyboxImage(t)
	i.Tag = "layered:3"
	i.Layers = append(i.Layers,
		[]File{{Name: "srv/", Mode: 0o755}, {Name: "srv/a", Mode: 0o644, Data: "first\n"}, {Name: "srv/gone", Mode: 0o644, Data: "x"},
			{Name: "opt/", Mode: 0o755}, {Name: "opt/old", Mode: 0o644, Data: "x"}},
		[]File{{Name: "srv/", Mode: 0o755}, {Name: "srv/a", Mode: 0o640, Data: "second\n", UID: 1000}, {Name: "srv/.wh.gone"},
			{Name: "opt/", Mode: 0o755}, {Name: "opt/.wh..wh..opq"}, {Name: "opt/new", Mode: 0o644, Data: "new\n"}},
		[]File{{Name: "srv/c", Mode: 0o644, Data: "third\n"}, {Name: "srv/b", Type: tar.TypeLink, Link: "srv/c"}, {Name: "work/", Mode: 0o1777, UID: 1000}})
	i.User, i.Dir, i.Env = "app", "/work", append(i.Env, "GREETING=hello")
	i.Entry, i.Cmd = []string{"/bin/sh", "-c"}, []string{"echo $GREETING from $(id -un) in $PWD"}
	i.Labels = map[string]string{"test": "layered"}
	return i
}

// Docker writes i as docker save does, into a directory of t, and returns the path.
func (i *Image) Docker(t testing.TB) string {
	t.Helper()
	b := newArchive(t, i.Tag+".tar")
	config, layers := i.config(t)
	var names []string
	for _, l := range layers {
		name := digest(l) + "/layer.tar"
		names = append(names, name)
		b.add(name, l)
	}
	b.add(digest(config)+".json", config)
	b.add("manifest.json", encode(t, []any{map[string]any{"Config": digest(config) + ".json", "RepoTags": []string{i.Tag}, "Layers": names}}))
	return b.close()
}

// OCI writes i as an OCI image layout in a tar archive and returns its path.
func (i *Image) OCI(t testing.TB) string {
	t.Helper()
	b := newArchive(t, i.Tag+".oci.tar")
	config, layers := i.config(t)
	blob := func(kind string, data []byte) map[string]any {
		b.add("blobs/sha256/"+digest(data), data)
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest(data), "size": len(data)}
	}
	b.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	var ls []any
	for _, l := range layers {
		ls = append(ls, blob("layer.v1.tar", l))
	}
	manifest := blob("manifest.v1+json", encode(t, map[string]any{"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": blob("config.v1+json", config), "layers": ls}))
	manifest["annotations"] = map[string]string{"io.containerd.image.name": i.Tag, "org.opencontainers.image.ref.name": i.Tag}
	b.add("index.json", encode(t, map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	return b.close()
}

// Rootfs writes the first layer alone, as hull import takes it.
func (i *Image) Rootfs(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(name, layer(t, i.Layers[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func (i *Image) config(t testing.TB) (config []byte, layers [][]byte) {
	var ids []string
	for _, files := range i.Layers {
		l := layer(t, files)
		layers = append(layers, l)
	}
	layers = append(layers, i.Tars...)
	for _, l := range layers {
		ids = append(ids, "sha256:"+digest(l))
	}
	return encode(t, map[string]any{"architecture": runtime.GOARCH, "os": "linux", "created": "2026-01-02T03:04:05Z",
		"config": map[string]any{"Cmd": i.Cmd, "Entrypoint": i.Entry, "Env": i.Env, "User": i.User, "WorkingDir": i.Dir, "Labels": i.Labels, "Volumes": i.Volumes},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}}), layers
}

func layer(t testing.TB, files []File) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		hdr := &tar.Header{Name: f.Name, Typeflag: f.Type, Mode: f.Mode, Size: int64(len(f.Data)), Linkname: f.Link,
			Uid: f.UID, Gid: f.UID, ModTime: time.Unix(1700000000, 0), Format: tar.FormatPAX}
		switch {
		case strings.HasSuffix(f.Name, "/"):
			hdr.Typeflag = tar.TypeDir
		case f.Type == 0:
			hdr.Typeflag = tar.TypeReg
		case f.Type == tar.TypeSymlink:
			hdr.Mode = 0o777
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(f.Data))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// archive is a tar file being written.
type archive struct {
	t    testing.TB
	file *os.File
	tar  *tar.Writer
	has  []string
}

func newArchive(t testing.TB, name string) *archive {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), path.Base(strings.ReplaceAll(name, ":", "_"))))
	if err != nil {
		t.Fatal(err)
	}
	return &archive{t: t, file: f, tar: tar.NewWriter(f)}
}

func (a *archive) add(name string, data []byte) {
	if slices.Contains(a.has, name) {
		return
	}
	a.has = append(a.has, name)
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.tar.Write(data); err != nil {
		a.t.Fatal(err)
	}
}

func (a *archive) close() string {
	if err := a.tar.Close(); err != nil {
		a.t.Fatal(err)
	}
	if err := a.file.Close(); err != nil {
		a.t.Fatal(err)
	}
	return a.file.Name()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func encode(t testing.TB, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
