package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func fake() *busybox {
	return &busybox{program: []byte("program"), copyright: []byte("GPL-2"), version: "BusyBox v0 (test)", applets: []string{"[", "busybox", "ls", "sh"}}
}

func TestArchiveDeterministic(t *testing.T) {
	a, err := archive(fake(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	b, err := archive(fake(), "amd64")
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("two archives of one busybox differ (%v)", err)
	}
}

// Every blob is what its name says, and manifest.json and index.json lead to the same layer.
func TestArchiveLayout(t *testing.T) {
	img, err := archive(fake(), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := untar(t, z)
	for name, data := range files {
		if hash, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hash {
				t.Errorf("%s holds other bytes", name)
			}
		}
	}
	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, files["manifest.json"], &docker)
	if len(docker) != 1 || !slices.Equal(docker[0].RepoTags, []string{"box:latest"}) || len(docker[0].Layers) != 1 {
		t.Fatalf("manifest.json: %+v", docker)
	}
	var config struct {
		Architecture string
		Rootfs       struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, files[docker[0].Config], &config)
	if config.Architecture != "arm64" || len(config.Rootfs.DiffIDs) != 1 || "blobs/sha256/"+strings.TrimPrefix(config.Rootfs.DiffIDs[0], "sha256:") != docker[0].Layers[0] {
		t.Errorf("config %+v does not describe layer %s", config, docker[0].Layers[0])
	}
	var index struct{ Manifests []struct{ Digest string } }
	decode(t, files["index.json"], &index)
	var manifest struct{ Layers []struct{ Digest string } }
	decode(t, files["blobs/sha256/"+strings.TrimPrefix(index.Manifests[0].Digest, "sha256:")], &manifest)
	if got := "blobs/sha256/" + strings.TrimPrefix(manifest.Layers[0].Digest, "sha256:"); got != docker[0].Layers[0] {
		t.Errorf("index.json leads to %s, manifest.json to %s", got, docker[0].Layers[0])
	}
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// Directories come before what is in them, and every link of the layer leads to something in it.
func TestLayer(t *testing.T) {
	data, err := layer(tree(fake()))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	links := map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if parent := filepath.Dir(name); parent != "." && !seen[parent] {
			t.Errorf("%s comes before its directory", name)
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch()) {
			t.Errorf("%s: owner %d:%d, time %v", name, h.Uid, h.Gid, h.ModTime)
		}
		if seen[name] = true; h.Typeflag == tar.TypeSymlink {
			links[name] = filepath.Join(filepath.Dir(name), h.Linkname)
		}
	}
	for name, target := range links {
		if !seen[target] {
			t.Errorf("%s leads to %s, which is not there", name, target)
		}
	}
	for _, name := range []string{"bin/ls", "bin/sh", "etc/passwd", "usr/share/doc/busybox/copyright"} {
		if !seen[name] {
			t.Errorf("no %s", name)
		}
	}
}

// The table read from the program is what the program itself lists, and the image keeps its size.
func TestInstalled(t *testing.T) {
	bb, err := installed(runtime.GOARCH)
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields(string(out)); !slices.Equal(bb.applets, want) {
		t.Errorf("applets: want %q, got %q", want, bb.applets)
	}
	for _, name := range []string{"ash", "sh", "ls", "ps", "ip", "httpd", "wget", "vi", "top", "id", "mount"} {
		if !slices.Contains(bb.applets, name) {
			t.Errorf("no applet %s", name)
		}
	}
	img, err := archive(bb, runtime.GOARCH)
	if err != nil || len(img) > maxSize {
		t.Errorf("archive: %d bytes, %v", len(img), err)
	}
}

func TestInspectRefuses(t *testing.T) {
	shell, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Skip(err)
	}
	if _, err := inspect(shell, nil, "ls", runtime.GOARCH); err == nil {
		t.Error("a dynamically linked program passed")
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if _, err := inspect(shell, nil, "ls", other); err == nil {
		t.Error("a program of another architecture passed")
	}
	if _, err := applets([]byte("\x00[\x00[[\x00zcat\x00ash\x00\x00")); err == nil {
		t.Error("an unsorted table passed")
	}
}

// Nothing reachable: a message, no image, and no failure unless asked for; a stale image does not stay.
func TestLeftOut(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	out := filepath.Join(t.TempDir(), "box.tar.zst")
	if err := os.WriteFile(out, []byte("stale"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-arch", "s390x", "-cache", t.TempDir(), "-o", out}
	if err := run(t.Context(), args); err != nil {
		t.Errorf("want no error, got %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want no image, got %v", err)
	}
	if err := run(t.Context(), append(args, "-require")); err == nil || !strings.Contains(err.Error(), "apt-get") {
		t.Errorf("want an error naming apt-get, got %v", err)
	}
}
