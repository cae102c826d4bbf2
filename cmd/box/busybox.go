package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

const pkg = "busybox-static"

// busybox is the program and the licence it comes under.
type busybox struct {
	program   []byte
	copyright []byte
	origin    string   // where it was found, for the person
	version   string   // "BusyBox v1.35.0 (Debian ...)"
	applets   []string // sorted
}

// find looks for a busybox of arch where it costs least: in the cache, on this machine, on the mirror.
func find(ctx context.Context, arch, cache string) (*busybox, error) {
	bb, cacheErr := fromCache(ctx, arch, cache)
	if cacheErr == nil {
		return bb, nil
	}
	localErr := fmt.Errorf("this machine is not %s", arch)
	if arch == runtime.GOARCH {
		if bb, localErr = installed(arch); localErr == nil {
			return bb, nil
		}
	}
	if err := download(ctx, arch, cache); err != nil {
		return nil, fmt.Errorf("no %s for %s: installed: %w; mirror: %w", pkg, arch, localErr, err)
	}
	return fromCache(ctx, arch, cache)
}

// installed takes the package installed here.
func installed(arch string) (*busybox, error) {
	copyright, err := os.ReadFile("/usr/share/doc/" + pkg + "/copyright")
	if err != nil {
		return nil, fmt.Errorf("package %s is not installed", pkg)
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, err
	}
	return inspect(program, copyright, "/bin/busybox", arch)
}

// download puts the package of arch into dir. The machine's own package lists serve when they know it;
// otherwise lists of our own are fetched, which needs no root and no foreign architecture configured.
func download(ctx context.Context, arch, dir string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("this machine has no apt-get")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	apt := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root",
			"-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=1", "-o", "Acquire::Languages=none"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[len(cmd.Args)-2:], " "), err, bytes.TrimSpace(out))
		}
		return nil
	}
	if arch == runtime.GOARCH && apt("download", pkg) == nil {
		return nil
	}
	lists, err := os.MkdirTemp(dir, "apt")
	if err != nil {
		return err
	}
	defer os.RemoveAll(lists)
	for _, d := range []string{lists + "/lists/partial", lists + "/archives/partial"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	own := []string{"-o", "APT::Architecture=" + arch, "-o", "APT::Architectures=" + arch,
		"-o", "Dir::State=" + lists, "-o", "Dir::State::Lists=" + lists + "/lists", "-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache=" + lists, "-o", "Dir::Cache::archives=" + lists + "/archives"}
	// One of several configured mirrors may be missing: what counts is whether the download works.
	updateErr := apt(append(own, "update")...)
	if err := apt(append(own, "download", pkg)...); err != nil {
		return errors.Join(updateErr, err)
	}
	return nil
}

// fromCache takes the newest package of arch in dir.
func fromCache(ctx context.Context, arch, dir string) (*busybox, error) {
	debs, _ := filepath.Glob(filepath.Join(dir, pkg+"_*_"+arch+".deb"))
	if len(debs) == 0 {
		return nil, fmt.Errorf("no package of %s in %s", arch, dir)
	}
	deb := debs[len(debs)-1]
	content, err := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", deb, err)
	}
	var program, copyright []byte
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", deb, err)
		}
		switch path.Clean("/" + h.Name) {
		case "/bin/busybox", "/usr/bin/busybox":
			program, err = io.ReadAll(r)
		case "/usr/share/doc/" + pkg + "/copyright":
			copyright, err = io.ReadAll(r)
		}
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", deb, err)
		}
	}
	if program == nil || copyright == nil {
		return nil, fmt.Errorf("%s holds no busybox with its licence", deb)
	}
	return inspect(program, copyright, filepath.Base(deb), arch)
}

// inspect reads from the program itself what running it would tell: it may be of another architecture.
func inspect(program, copyright []byte, origin, arch string) (*busybox, error) {
	if err := static(program, arch); err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	names, err := applets(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	version := regexp.MustCompile(`BusyBox v[0-9.]+ \([^)]*\)`).Find(program)
	if version == nil {
		return nil, fmt.Errorf("%s: no version found", origin)
	}
	return &busybox{program, copyright, origin, string(version), names}, nil
}

func static(program []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	want, known := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if !known || f.Machine != want {
		return fmt.Errorf("built for %v, not for %s", f.Machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("not statically linked")
		}
	}
	return nil
}

// applets reads busybox's own sorted table of names: NUL-terminated strings that begin with "[" and "[[".
func applets(program []byte) ([]string, error) {
	_, table, found := bytes.Cut(program, []byte("\x00[\x00[[\x00"))
	if !found {
		return nil, errors.New("no table of applets found")
	}
	table, _, _ = bytes.Cut(table, []byte("\x00\x00"))
	names := []string{"[", "[["}
	for name := range strings.SplitSeq(string(table), "\x00") {
		if name <= names[len(names)-1] || strings.ContainsAny(name, "/ ") {
			return nil, fmt.Errorf("the table of applets is not what was expected near %q", name)
		}
		names = append(names, name)
	}
	return names, nil
}
