package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// debian is the root file system that the large image is made of. It is fetched once, by the stage that still has the
// machine's network.
const debian = ".cache/bench-debian.tar"

// fetchDebian makes debian with mmdebstrap, from the mirrors this machine is set up with.
func fetchDebian(ctx context.Context) error {
	if _, err := os.Stat(debian); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(debian), 0o755); err != nil {
		return err
	}
	tmp := debian + ".new.tar"
	out, err := exec.CommandContext(ctx, "mmdebstrap", "--variant=apt", "--mode=root", "--include=bash,python3-minimal", "bookworm", tmp).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return os.Rename(tmp, debian)
}

// bigLayers are the parts of the file system that become layers of their own, as those of an image with several steps.
var bigLayers = [...]string{"usr/share", "usr/lib", "usr/bin usr/sbin", "."}

// bigImage makes the image big:1 of several gzip layers: its archive, as docker load and hull load take it, and the
// layers alone, as gzip -d takes them.
func (l *lab) bigImage(ctx context.Context) (archive string, layers []string, err error) {
	dir := l.dir + "/big"
	if archive = dir + "/big.tar"; exists(archive) { // images and delivery share it
		for i := range bigLayers {
			layers = append(layers, fmt.Sprintf("%s/%d.tar.gz", dir, i))
		}
		return archive, layers, nil
	}
	if err := os.MkdirAll(dir+"/files", 0o755); err != nil {
		return "", nil, err
	}
	if err := l.must(ctx, nil, []string{"tar", "-C", dir + "/files", "-xf", debian}); err != nil {
		return "", nil, err
	}
	var diffIDs, names []string
	for i, parts := range bigLayers {
		name := fmt.Sprintf("%s/%d.tar", dir, i)
		args := append([]string{"tar", "-C", dir + "/files", "--sort=name", "--remove-files", "-cf", name}, strings.Fields(parts)...)
		_ = l.must(ctx, nil, args) // it cannot remove the directory it works in
		sum, err := sumFile(name)
		if err != nil {
			return "", nil, err
		}
		diffIDs = append(diffIDs, "sha256:"+sum)
		if err := l.must(ctx, nil, []string{"gzip", "-n", name}); err != nil {
			return "", nil, err
		}
		layers = append(layers, name+".gz")
		names = append(names, filepath.Base(name)+".gz")
	}
	config := imageConfig(diffIDs, "big")
	return dir + "/big.tar", layers, writeTar(dir+"/big.tar", append(layers, config.add(dir)), []any{config.entry("big:1", names)})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// config is an image configuration that becomes a file by its digest.
type config []byte

func imageConfig(diffIDs []string, mark string) config {
	c, _ := json.Marshal(map[string]any{"architecture": runtime.GOARCH, "os": "linux", "created": "2026-01-02T03:04:05Z",
		"config": map[string]any{"Cmd": []string{"bash"}, "Labels": map[string]string{"mark": mark}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	return c
}

func (c config) name() string { return fmt.Sprintf("%x.json", sha256.Sum256(c)) }

func (c config) add(dir string) string {
	path := filepath.Join(dir, c.name())
	_ = os.WriteFile(path, c, 0o644) // writeTar says if it is not there
	return path
}

func (c config) entry(tag string, layers []string) any {
	return map[string]any{"Config": c.name(), "RepoTags": []string{tag}, "Layers": layers}
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// writeTar writes files and the manifest.json of entries.
func writeTar(path string, files []string, entries []any) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	manifest, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	err = errors.Join(w.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(manifest))}), write(w, manifest))
	for _, name := range files {
		data, rerr := os.ReadFile(name)
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		err = errors.Join(w.WriteHeader(&tar.Header{Name: filepath.Base(name), Mode: 0o644, Size: int64(len(data))}), write(w, data))
	}
	return errors.Join(err, w.Close())
}

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

// images measures what moves images without a registry, beside docker and beside the tools that do the least.
func (l *lab) images(ctx context.Context, o options) (err error) {
	archive, layers, err := l.bigImage(ctx)
	if err != nil {
		return err
	}
	docker, err := l.docker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, docker.stop()) }()
	hull := l.ours()
	l.facts = append(l.facts, imageFact(archive, layers))

	floor := command{nil, append([]string{"sh", "-c", `cd "$0" && rm -rf out && mkdir out && for f; do (mkdir out/$(basename $f) && gzip -dc $f | tar -x --numeric-owner -C out/$(basename $f)) & done; wait; sync -f .`, l.dir + "/big"}, layers...)}
	type verb struct {
		what string
		args []string
		goal float64
	}
	took := map[string]map[string][]time.Duration{}
	note := func(verb, who string, c command) error {
		// The writes of one must not be waited for by the next.
		if err := l.must(ctx, nil, []string{"sync"}); err != nil {
			return err
		}
		d, err := once(ctx, c.env, c.args)
		if took[verb] == nil {
			took[verb] = map[string][]time.Duration{}
		}
		took[verb][who] = append(took[verb][who], d)
		return err
	}
	verbs := []verb{
		{"load", []string{"load", "-q", "-i", archive}, 1.5},
		{"save", []string{"save", "-o", l.dir + "/saved.tar", "big:1"}, 1.5},
		{"rmi", []string{"rmi", "big:1"}, 0},
		{"commit", []string{"commit", "changed", "committed"}, 1.5},
	}
	change := []string{"run", "--name", "changed", "--network", "none", "floor", "/bin/busybox", "dd", "if=/dev/urandom", "of=/change", "bs=1M", "count=100"}
	for _, p := range []*peer{hull, docker} {
		if err := l.must(ctx, p.env, p.cmd(change...).args); err != nil {
			return err
		}
	}
	for range o.big {
		if err := note("load", "floor", floor); err != nil {
			return err
		}
		for _, p := range []*peer{hull, docker} {
			for _, v := range verbs {
				if err := note(v.what, p.name, p.cmd(v.args...)); err != nil {
					return err
				}
			}
			if err := l.must(ctx, p.env, p.cmd("rmi", "committed").args); err != nil {
				return err
			}
		}
	}
	for _, v := range verbs {
		t := took[v.what]
		what := "hull: `" + v.what + "` of the Debian image"
		if v.what == "commit" {
			what = "hull: `commit` of a change of 100 MB"
		}
		l.rows = append(l.rows, row{what: what, against: "docker", a: median(t["hull"]), b: median(t["docker"]), faster: v.goal})
		if v.what == "load" {
			l.rows = append(l.rows, row{what: "the same, with the disk synced", against: "`gzip -d` and `tar -x` of its layers at once, and a sync", a: median(t["hull"]), b: median(t["floor"]), bound: 1.3})
		}
	}
	for _, p := range []*peer{hull, docker} {
		if err := l.must(ctx, p.env, p.cmd("rm", "-f", "changed").args); err != nil {
			return err
		}
	}
	return l.thousand(ctx, o)
}

func imageFact(archive string, layers []string) string {
	size := func(path string) int64 {
		st, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return st.Size() >> 20
	}
	plain := int64(0)
	if st, err := os.Stat(debian); err == nil {
		plain = st.Size() >> 20
	}
	return fmt.Sprintf("The Debian image: %d MiB in %d layers, %d MiB as gzip.", plain, len(layers), size(archive))
}

// thousand lists a thousand images.
func (l *lab) thousand(ctx context.Context, o options) error {
	dir := l.dir + "/thousand"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := l.must(ctx, nil, []string{"cp", l.dir + "/rootfs.tar", dir + "/layer.tar"}); err != nil {
		return err
	}
	sum, err := sumFile(dir + "/layer.tar")
	if err != nil {
		return err
	}
	files := []string{dir + "/layer.tar"}
	var entries []any
	for i := range 1000 {
		c := imageConfig([]string{"sha256:" + sum}, fmt.Sprint(i))
		files = append(files, c.add(dir))
		entries = append(entries, c.entry(fmt.Sprintf("many/image%d:1", i), []string{"layer.tar"}))
	}
	if err := writeTar(dir+"/all.tar", files, entries); err != nil {
		return err
	}
	if err := l.must(ctx, l.crowded, l.hull("load", "-q", "-i", dir+"/all.tar")); err != nil {
		return err
	}
	return l.both(ctx, o, func(kind string, m []time.Duration) {
		l.rows = append(l.rows, row{what: "`hull images` with 1,000 images, " + kind, against: "`hull version`", a: m[0], b: m[1], bound: 4})
	}, command{l.crowded, l.hull("images")}, command{l.crowded, l.hull("version")})
}
