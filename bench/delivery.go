package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// The registries of delivery: what is pulled is in the first, and the second is emptied before each push.
const (
	shelf = "127.0.0.1:5601"
	ramp  = "127.0.0.1:5602"
)

// registry starts Debian's registry at an address and returns where its data are.
func (l *lab) registry(ctx context.Context, addr string) (data string, stop func() error, err error) {
	dir := l.dir + "/registry-" + addr
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", dir+"/data", addr)
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o644); err != nil {
		return "", nil, err
	}
	listens := command{nil, []string{"bash", "-c", "exec 3<>/dev/tcp/${0/://}", addr}}
	stop, err = daemon(ctx, os.Environ(), dir+"/log", []string{"docker-registry", "serve", dir + "/config.yml"}, listens)
	return dir + "/data", stop, err
}

// delivery measures pull and push of the Debian image beside docker and podman, through registries on loopback.
func (l *lab) delivery(ctx context.Context, o options) (err error) {
	archive, layers, err := l.bigImage(ctx)
	if err != nil {
		return err
	}
	docker, err := l.docker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, docker.stop()) }()
	podman, err := l.podman(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, podman.stop()) }()
	_, stop, err := l.registry(ctx, shelf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	sent, stopRamp, err := l.registry(ctx, ramp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopRamp()) }()

	hull := l.ours()
	l.facts = append(l.facts, imageFact(archive, layers))
	from, to := shelf+"/big:1", ramp+"/big:1"
	for _, args := range [][]string{{"load", "-q", "-i", archive}, {"tag", "big:1", from}, {"push", "-q", from}, {"rmi", "big:1", from}} {
		if err := l.must(ctx, hull.env, hull.cmd(args...).args); err != nil {
			return err
		}
	}
	took := map[string][]time.Duration{}
	note := func(what string, c command) error {
		if err := l.must(ctx, nil, []string{"sync"}); err != nil { // the writes of one must not be waited for by the next
			return err
		}
		d, err := once(ctx, c.env, c.args)
		took[what] = append(took[what], d)
		return err
	}
	floor := command{nil, append([]string{"sh", "-c", `cd "$0" && mkdir out && for f; do (mkdir out/$(basename $f) && gzip -dc $f | tar -x --numeric-owner -C out/$(basename $f)) & done; wait`, l.dir + "/big"}, layers...)}
	insecure := map[*peer][]string{podman: {"--tls-verify=false"}}
	for range o.big {
		if err := errors.Join(l.must(ctx, nil, []string{"rm", "-rf", l.dir + "/big/out"}), note("floor", floor)); err != nil {
			return err
		}
		for _, p := range []*peer{hull, docker, podman} {
			if err := note("pull "+p.name, p.cmd(slices.Concat([]string{"pull", "-q"}, insecure[p], []string{from})...)); err != nil {
				return err
			}
			if err := errors.Join(os.RemoveAll(sent), l.must(ctx, p.env, p.cmd("tag", from, to).args)); err != nil {
				return err
			}
			if err := note("push "+p.name, p.cmd(slices.Concat([]string{"push", "-q"}, insecure[p], []string{to})...)); err != nil {
				return err
			}
			if p == hull {
				for range 5 {
					d, err := ask(ctx, "http://"+shelf+"/v2/big/manifests/1")
					took["trip"] = append(took["trip"], d)
					if err := errors.Join(err, note("again", p.cmd("pull", "-q", from)), note("version", p.cmd("version"))); err != nil {
						return err
					}
				}
			}
			if err := l.must(ctx, p.env, p.cmd("rmi", from, to).args); err != nil {
				return err
			}
		}
	}
	t := func(what string) time.Duration { return median(took[what]) }
	l.rows = append(l.rows,
		row{what: "hull: `pull` of the Debian image, nothing of it here, the disk synced", against: "docker", a: t("pull hull"), b: t("pull docker"), faster: 2},
		row{what: "the same", against: "podman", a: t("pull hull"), b: t("pull podman"), faster: 2},
		row{what: "the same", against: "`gzip -d` and `tar -x` of its layers at once, without a sync", a: t("pull hull"), b: t("floor"), bound: 1.3},
		row{what: "hull: `pull` when all is here, less the round trip", against: "`hull version`", a: t("again") - t("trip"), b: t("version"), bound: 3},
		row{what: "hull: `push` of the Debian image to an empty registry", against: "docker", a: t("push hull"), b: t("push docker"), faster: 1.5},
		row{what: "the same", against: "podman", a: t("push hull"), b: t("push podman")})
	return l.pullMemory(ctx, hull, from)
}

// ask is how long a registry takes to answer on a connection of its own.
func ask(ctx context.Context, url string) (time.Duration, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	q.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	begin := time.Now()
	resp, err := client.Do(q)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return time.Since(begin), errors.Join(err, resp.Body.Close())
}

// pullMemory is the most that a pull holds.
func (l *lab) pullMemory(ctx context.Context, p *peer, name string) error {
	c := p.cmd("pull", "-q", name)
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", c.args, err, out)
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	verdict := "reached"
	if peak > 100<<10 {
		verdict = "**not reached**"
	}
	l.facts = append(l.facts, fmt.Sprintf("Memory of that pull at its peak: %.0f MiB (at most 100: %s).", float64(peak)/1024, verdict))
	return l.must(ctx, p.env, p.cmd("rmi", name).args)
}
