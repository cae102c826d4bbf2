package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemonWait bounds how long a daemon may take to come up or to leave.
const daemonWait = time.Minute

// firstPort is the first of the ports that crowds publish.
const firstPort = 20000

// peer is another engine, with the same image as ours under the same name.
type peer struct {
	name string
	args []string // its command line up to the verb
	env  []string
	stop func() error
}

func (p *peer) cmd(args ...string) command {
	return command{p.env, append(slices.Clone(p.args), args...)}
}

// daemon starts a server and waits until probe succeeds.
func daemon(ctx context.Context, env []string, log string, args []string, probe command) (stop func() error, err error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-ended:
		case <-time.After(daemonWait):
			cmd.Process.Kill()
			return fmt.Errorf("%s did not end within %s", args[0], daemonWait)
		}
		return nil
	}
	for end := time.Now().Add(daemonWait); ; time.Sleep(50 * time.Millisecond) {
		if _, err = once(ctx, probe.env, probe.args); err == nil {
			return stop, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s ended: see %s", args[0], log)
		default:
		}
		if time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("%s does not answer within %s: see %s", args[0], daemonWait, log), stop())
		}
	}
}

// docker starts a dockerd of our own.
func (l *lab) docker(ctx context.Context) (*peer, error) {
	dir, run := l.dir+"/docker", l.runDir+"/docker"
	for _, d := range []string{dir, run} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	p := &peer{name: "docker", args: []string{"docker", "-H", "unix://" + run + "/sock"}, env: clean(os.Environ())}
	var err error
	if p.stop, err = daemon(ctx, p.env, dir+"/log", []string{"dockerd", "--data-root", dir + "/data", "--exec-root", run + "/exec",
		"--pidfile", run + "/pid", "-H", "unix://" + run + "/sock"}, p.cmd("version")); err != nil {
		return nil, err
	}
	return p, l.must(ctx, p.env, p.cmd("import", l.dir+"/rootfs.tar", "floor").args)
}

// podman has no daemon. It gets runc, for Debian's crun refuses cgroup v1 with a v2 mount beside it.
func (l *lab) podman(ctx context.Context) (*peer, error) {
	dir := l.dir + "/podman"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=4096:4096\"]\n[engine]\nevents_logger = \"file\"\n" +
		"[network]\nnetwork_backend = \"netavark\"\n"
	if err := os.WriteFile(dir+"/containers.conf", []byte(conf), 0o644); err != nil {
		return nil, err
	}
	p := &peer{name: "podman", args: []string{"podman", "--root", dir + "/root", "--runroot", l.runDir + "/podman", "--cgroup-manager", "cgroupfs", "--runtime", "runc"},
		env: append(clean(os.Environ()), "CONTAINERS_CONF="+dir+"/containers.conf"),
		stop: func() error { // it leaves its store mounted on itself
			err := syscall.Unmount(dir+"/root/overlay", syscall.MNT_DETACH)
			if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
				return nil
			}
			return err
		}}
	return p, l.must(ctx, p.env, p.cmd("import", l.dir+"/rootfs.tar", "floor").args)
}

// clean takes away what would send a client elsewhere.
func clean(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "DOCKER_") || strings.HasPrefix(name, "CONTAINER_")
	})
}

// ours is Hull as a peer, in the engine with few containers.
func (l *lab) ours() *peer { return &peer{name: "hull", args: l.hull(), env: l.env} }

// peers measures Hull beside docker and podman: the same image, the same flags, run alternately.
func (l *lab) peers(ctx context.Context, o options) (err error) {
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
	hull := l.ours()
	served, stop, err := l.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	l.facts = append(l.facts, fmt.Sprintf("Peers: %s; %s.", said("dockerd", "--version"), said("podman", "--version")))
	all := []*peer{hull, docker, podman}
	for _, p := range all {
		if err := l.must(ctx, p.env, p.cmd("run", "-d", "--name", "target", "--network", "none", "floor", "/bin/sleep", "100000").args); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		what           string
		args           []string
		docker, podman float64
	}{
		{"`run --rm IMG true` on the bridge", []string{"run", "--rm", "floor", "/bin/true"}, 20, 0},
		{"`run --rm --network none IMG true`", []string{"run", "--rm", "--network", "none", "floor", "/bin/true"}, 15, 0},
		{"`exec C true`", []string{"exec", "target", "/bin/true"}, 8, 0},
	} {
		var commands []command
		for _, p := range all {
			commands = append(commands, p.cmd(m.args...))
		}
		if m.args[0] == "run" && len(m.args) == 4 {
			commands = append(commands, command{nil, append(slices.Clone(l.limit), "net")}, served.cmd(m.args...))
		}
		t, err := alternate(ctx, o.peer, 0, commands...)
		if err != nil {
			return err
		}
		l.rows = append(l.rows,
			row{what: "hull: " + m.what, against: "docker", a: t[0], b: t[1], faster: m.docker},
			row{what: "the same", against: "podman", a: t[0], b: t[2], faster: m.podman})
		if len(t) > 3 {
			l.rows = append(l.rows,
				row{what: "the same", against: "limit net", a: t[0], b: t[3], bound: 5},
				row{what: "docker's client on `hull serve`: " + m.what, against: "the same client on dockerd", a: t[4], b: t[1], faster: 6})
		}
	}
	for _, p := range all {
		if err := l.must(ctx, p.env, p.cmd("rm", "-f", "target").args); err != nil {
			return err
		}
	}
	if err := l.published(ctx, o, hull, docker); err != nil {
		return err
	}
	return l.idle(ctx, o, hull, docker)
}

// serve starts `hull serve` and returns docker's client on it.
func (l *lab) serve(ctx context.Context) (*peer, func() error, error) {
	sock := l.dir + "/hull.sock"
	p := &peer{name: "docker on hull", args: []string{"docker", "-H", "unix://" + sock}, env: clean(os.Environ())}
	stop, err := daemon(ctx, l.env, l.dir+"/serve.log", l.hull("serve", "--host", "unix://"+sock), p.cmd("version"))
	return p, stop, err
}

// published starts a crowd on the bridge, each with a port of the host, and removes it.
func (l *lab) published(ctx context.Context, o options, hull, docker *peer) error {
	took := map[*peer][]time.Duration{}
	for range 3 {
		for _, p := range []*peer{hull, docker} {
			begin := time.Now()
			if _, err := atOnce(ctx, o.crowd, p.env, func(i int) []string {
				return p.cmd("run", "-d", "--name", "crowd"+strconv.Itoa(i), "-p", strconv.Itoa(firstPort+i)+":80", "floor", "/bin/sleep", "100000").args
			}); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if err := l.removeAll(ctx, p, "crowd", o.crowd); err != nil {
				return err
			}
			took[p] = append(took[p], time.Since(begin))
		}
	}
	l.rows = append(l.rows, row{what: fmt.Sprintf("hull: %d × `run -d -p` on the bridge at once, then `rm -f` of all", o.crowd), against: "docker",
		a: median(took[hull]), b: median(took[docker]), faster: 8})
	return nil
}

func (l *lab) removeAll(ctx context.Context, p *peer, name string, n int) error {
	rm := p.cmd("rm", "-f")
	for i := range n {
		rm.args = append(rm.args, name+strconv.Itoa(i))
	}
	return l.must(ctx, rm.env, rm.args)
}

// idle adds up the memory of everything an engine keeps beside containers that do nothing.
func (l *lab) idle(ctx context.Context, o options, hull, docker *peer) error {
	total := map[*peer]int{}
	for _, p := range []*peer{hull, docker} {
		if _, err := atOnce(ctx, o.crowd, p.env, func(i int) []string {
			return p.cmd("run", "-d", "--name", "idle"+strconv.Itoa(i), "-p", strconv.Itoa(firstPort+i)+":80", "floor", "/bin/sleep", "100000").args
		}); err != nil {
			return err
		}
		time.Sleep(5 * time.Second) // they settle
		names := []string{"dockerd", "containerd", "containerd-shim", "docker-proxy"}
		if p == hull {
			names = []string{"hull", "hulld", "hull-runtime"}
		}
		n := 0
		var err error
		if total[p], n, err = memory(names); err != nil {
			return err
		}
		if n < o.crowd {
			return fmt.Errorf("%s: found %d processes beside %d containers", p.name, n, o.crowd)
		}
		if err := l.removeAll(ctx, p, "idle", o.crowd); err != nil {
			return err
		}
	}
	part := float64(total[hull]) / float64(total[docker])
	verdict := "reached"
	if part > 0.2 {
		verdict = "**not reached**"
	}
	l.facts = append(l.facts, fmt.Sprintf("PSS of everything beside %d idle containers with one port each: Hull (serving too) %.0f MiB, docker %.0f MiB, a ratio of %.2f (at most 0.20: %s).",
		o.crowd, float64(total[hull])/1024, float64(total[docker])/1024, part, verdict))
	return nil
}

// memory is the sum of the proportional set sizes, in KiB, of the processes of these names in our network namespace.
func memory(names []string) (kib, n int, err error) {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, 0, err
	}
	for _, p := range procs {
		comm, _ := os.ReadFile(p + "/comm")
		// comm holds 15 bytes.
		if !slices.ContainsFunc(names, func(name string) bool { return strings.TrimSpace(string(comm)) == name[:min(len(name), 15)] }) {
			continue
		}
		mine, _ := os.Readlink("/proc/self/ns/net")
		if theirs, _ := os.Readlink(p + "/ns/net"); theirs != mine {
			continue
		}
		k, err := pss(p)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		kib += k
		n++
	}
	return kib, n, nil
}

// running starts containers until there are many, and compares the last starts with the first.
func (l *lab) running(ctx context.Context, o options) error {
	const sample = 10
	var first, last []time.Duration
	for i := range o.alive {
		d, err := once(ctx, l.env, l.hull("run", "-d", "--name", "run"+strconv.Itoa(i), "floor", "sleep", "100000"))
		if err != nil {
			return err
		}
		switch {
		case i >= o.alive-sample:
			last = append(last, d)
		case i > 0 && i <= sample: // the very first makes the bridge
			first = append(first, d)
		}
	}
	l.rows = append(l.rows, row{what: fmt.Sprintf("`hull run -d` on the bridge with %d containers running", o.alive-sample), against: "with none", a: median(last), b: median(first), bound: 1.3})
	return l.removeAll(ctx, l.ours(), "run", o.alive)
}
