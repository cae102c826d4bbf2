package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hull/state"

	"golang.org/x/sys/unix"
)

// lab is where the measuring happens: two engines, one of them crowded, and the floor.
type lab struct {
	top       string   // holds the disk
	dir       string   // a file system of our own: see mountDisk
	runDir    string   // on a tmpfs, as run directories are; the rest is on the disk
	env       []string // of the engine with few containers
	crowded   []string // of the engine with many
	limit     []string // the floor's command line without net
	rows      []row
	facts     []string
	trace     string
	programs  string
	container string
	load      string // average, before anything was measured
}

func bench(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root: the floor makes the namespaces of a container of root")
	}
	l, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()

	steps := []struct {
		name string
		do   func(context.Context, options) error
	}{{"run", l.run}, {"exec", l.exec}, {"crowd", l.crowd}, {"ps", l.ps}, {"start", l.start}, {"pss", l.pss}, {"peers", l.peers}, {"images", l.images}, {"delivery", l.delivery}, {"running", l.running}}
	for _, s := range steps {
		if !slices.Contains(o.only, s.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring", s.name)
		if err := s.do(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return l.report(o)
}

// open makes the engines, loads the image and compiles the floor.
func open(ctx context.Context) (*lab, error) {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return nil, err
	}
	top, err := os.MkdirTemp("/var/tmp", "hull-bench-")
	if err != nil {
		return nil, err
	}
	dir := top + "/disk"
	l := &lab{top: top, dir: dir, runDir: filepath.Join("/run", filepath.Base(top)), programs: bin}
	if err := mountDisk(ctx, top+"/disk.img", dir); err != nil {
		return nil, errors.Join(err, state.Remove(top))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		l.load, _, _ = strings.Cut(string(b), " ")
	}
	l.env = append(os.Environ(), "HULL_ROOT="+dir+"/a/root", "HULL_RUN="+l.runDir+"/a")
	l.crowded = append(os.Environ(), "HULL_ROOT="+dir+"/b/root", "HULL_RUN="+l.runDir+"/b")
	rootfs := dir + "/rootfs"
	for _, d := range []string{rootfs + "/bin", rootfs + "/proc", rootfs + "/sys", rootfs + "/dev", dir + "/scratch", dir + "/a", dir + "/b", l.runDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	l.limit = []string{dir + "/limit", rootfs, dir + "/scratch"}
	setup := [][]string{
		{"cc", "-O2", "-static", "-o", dir + "/limit", "bench/limit/limit.c"},
		{"cp", "/bin/busybox", rootfs + "/bin/busybox"},
		{"ln", "-s", "busybox", rootfs + "/bin/true"},
		{"ln", "-s", "busybox", rootfs + "/bin/sleep"},
		{"tar", "-C", rootfs, "-cf", dir + "/rootfs.tar", "."},
		l.hull("import", dir+"/rootfs.tar", "floor"),
	}
	for _, c := range setup {
		if err := l.must(ctx, l.env, c); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	// The very same files as the floor's: the ratio is about the engines.
	return l, l.must(ctx, l.crowded, l.hull("import", dir+"/rootfs.tar", "floor"))
}

func (l *lab) close() error {
	var errs []error
	for _, env := range [][]string{l.env, l.crowded} {
		out, err := l.output(context.Background(), env, l.hull("ps", "-aq"))
		if err != nil {
			errs = append(errs, err)
		}
		if ids := strings.Fields(out); len(ids) > 0 {
			errs = append(errs, l.must(context.Background(), env, append(l.hull("rm", "-f"), ids...)))
		}
	}
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := unix.Unmount(l.dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", l.dir, err)
	}
	return errors.Join(state.Remove(l.runDir), state.Remove(l.top))
}

// diskSize bounds the image, which is a sparse file: bytes.
const diskSize = 16 << 30

// mountDisk makes what is measured independent of the machine's disk: stores, and the floor's directories, are on a fresh
// ext4 with a journal, as mkfs makes it for most machines. An ext4 without one does not give out an inode again for
// minutes after its deletion and steps over all of these at each new file: there a start takes the longer the more
// containers were removed lately.
func mountDisk(ctx context.Context, image, dir string) error {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close(), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

func (l *lab) hull(args ...string) []string { return append([]string{l.programs + "/hull"}, args...) }

func (l *lab) output(ctx context.Context, env, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

func (l *lab) must(ctx context.Context, env, args []string) error {
	_, err := l.output(ctx, env, args)
	return err
}

// once runs a command with no standard streams and says how long it took.
func once(ctx context.Context, env, args []string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return took, nil
}

type command struct{ env, args []string }

// alternate runs the commands in turn, n times each, and returns the median of each.
func alternate(ctx context.Context, n int, gap time.Duration, commands ...command) ([]time.Duration, error) {
	took := make([][]time.Duration, len(commands))
	for i := range n + 1 {
		for j, c := range commands {
			time.Sleep(gap)
			d, err := once(ctx, c.env, c.args)
			if err != nil {
				return nil, err
			}
			if i > 0 { // the first round warms caches
				took[j] = append(took[j], d)
			}
		}
	}
	out := make([]time.Duration, len(commands))
	for j := range took {
		out[j] = median(took[j])
	}
	return out, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// both measures commands in a tight loop and with gaps.
func (l *lab) both(ctx context.Context, o options, f func(kind string, m []time.Duration), commands ...command) error {
	m, err := alternate(ctx, o.loop, 0, commands...)
	if err != nil {
		return err
	}
	f("tight loop", m)
	if m, err = alternate(ctx, o.gaps, pause, commands...); err != nil {
		return err
	}
	f("0.5 s gaps", m)
	return nil
}

func (l *lab) run(ctx context.Context, o options) error {
	run := l.hull("run", "--rm", "--network", "none", "floor", "true")
	if _, err := once(ctx, l.env, run); err != nil {
		return err
	}
	err := l.both(ctx, o, func(kind string, m []time.Duration) {
		l.rows = append(l.rows,
			row{what: "`hull run --rm --network none IMG true`, " + kind, against: "limit", a: m[0], b: m[1], bound: 4},
			row{what: "the same", against: "limit net", a: m[0], b: m[2], bound: 4, note: "the container has a network namespace, as limit net has"})
	}, command{l.env, run}, command{nil, l.limit}, command{nil, append(slices.Clone(l.limit), "net")})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, run[0], run[1:]...)
	cmd.Env = append(slices.Clone(l.env), "HULL_TRACE=1")
	out, err := cmd.CombinedOutput()
	l.trace = string(out)
	return err
}

func (l *lab) exec(ctx context.Context, o options) error {
	if err := l.must(ctx, l.env, l.hull("run", "-d", "--name", "target", "--network", "none", "floor", "sleep", "100000")); err != nil {
		return err
	}
	err := l.both(ctx, o, func(kind string, m []time.Duration) {
		l.rows = append(l.rows, row{what: "`hull exec C true`, " + kind, against: "`hull version`", a: m[0], b: m[1], bound: 3})
	}, command{l.env, l.hull("exec", "target", "true")}, command{l.env, l.hull("version")})
	return errors.Join(err, l.must(ctx, l.env, l.hull("rm", "-f", "target")))
}

// atOnce starts n commands together and returns the time until the last has ended.
func atOnce(ctx context.Context, n int, env []string, args func(i int) []string) (time.Duration, error) {
	errs := make([]error, n)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range n {
		wg.Go(func() { _, errs[i] = once(ctx, env, args(i)) })
	}
	wg.Wait()
	return time.Since(begin), errors.Join(errs...)
}

func (l *lab) crowd(ctx context.Context, o options) error {
	var started, oneShot, floor []time.Duration
	for range 5 {
		begin := time.Now()
		if _, err := atOnce(ctx, o.crowd, l.env, func(i int) []string {
			return l.hull("run", "-d", "--network", "none", "--name", "crowd"+strconv.Itoa(i), "floor", "sleep", "100000")
		}); err != nil {
			return err
		}
		rm := l.hull("rm", "-f")
		for i := range o.crowd {
			rm = append(rm, "crowd"+strconv.Itoa(i))
		}
		if err := l.must(ctx, l.env, rm); err != nil {
			return err
		}
		started = append(started, time.Since(begin))
		d, err := atOnce(ctx, o.crowd, l.env, func(int) []string { return l.hull("run", "--rm", "--network", "none", "floor", "true") })
		if err != nil {
			return err
		}
		oneShot = append(oneShot, d)
		if d, err = atOnce(ctx, o.crowd, nil, func(i int) []string {
			scratch := fmt.Sprintf("%s/scratch/%d", l.dir, i)
			os.Mkdir(scratch, 0o755)
			return []string{l.limit[0], l.limit[1], scratch, "net"}
		}); err != nil {
			return err
		}
		floor = append(floor, d)
	}
	f := median(floor)
	l.rows = append(l.rows,
		row{what: fmt.Sprintf("%d × `hull run -d` at once, then `rm -f` of all", o.crowd), against: fmt.Sprintf("%d × limit net at once", o.crowd), a: median(started), b: f, bound: 2, note: "throughput at least half"},
		row{what: fmt.Sprintf("%d × `hull run --rm` at once", o.crowd), against: "the same", a: median(oneShot), b: f, bound: 2})
	return nil
}

// fill makes the crowded engine crowded, once.
func (l *lab) fill(ctx context.Context, o options) error {
	if l.container != "" {
		return nil
	}
	for i := range o.stopped - 1 {
		if err := l.must(ctx, l.crowded, l.hull("create", "--network", "none", "--name", "stopped"+strconv.Itoa(i), "floor", "true")); err != nil {
			return err
		}
		if i%10 == 0 { // exited ones among the created ones
			if err := l.must(ctx, l.crowded, l.hull("start", "-a", "stopped"+strconv.Itoa(i))); err != nil {
				return err
			}
		}
	}
	l.container = "last"
	for _, env := range [][]string{l.env, l.crowded} {
		if err := l.must(ctx, env, l.hull("create", "--network", "none", "--name", l.container, "floor", "true")); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) ps(ctx context.Context, o options) error {
	if err := l.fill(ctx, o); err != nil {
		return err
	}
	return l.both(ctx, o, func(kind string, m []time.Duration) {
		l.rows = append(l.rows,
			row{what: fmt.Sprintf("`hull ps` with %d stopped containers, %s", o.stopped, kind), against: "`hull version`", a: m[0], b: m[2], bound: 4},
			row{what: "`hull ps -a` with the same", against: "`hull version`", a: m[1], b: m[2], bound: 4, note: "reads and prints every one of them"})
	}, command{l.crowded, l.hull("ps")}, command{l.crowded, l.hull("ps", "-a")}, command{l.crowded, l.hull("version")})
}

func (l *lab) start(ctx context.Context, o options) error {
	if err := l.fill(ctx, o); err != nil {
		return err
	}
	return l.both(ctx, o, func(kind string, m []time.Duration) {
		l.rows = append(l.rows, row{what: fmt.Sprintf("`hull start -a` of the %dth container, %s", o.stopped, kind), against: "of the first", a: m[1], b: m[0], bound: 1.2})
	}, command{l.env, l.hull("start", "-a", l.container)}, command{l.crowded, l.hull("start", "-a", l.container)})
}

// pss adds up the proportional memory of monitors that have nothing to do.
func (l *lab) pss(ctx context.Context, o options) error {
	if _, err := atOnce(ctx, o.crowd, l.env, func(i int) []string {
		return l.hull("run", "-d", "--network", "none", "--name", "idle"+strconv.Itoa(i), "floor", "sleep", "100000")
	}); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	var kib, monitors int
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if !l.isMonitor(p) {
			continue
		}
		n, err := pss(p)
		if err != nil {
			return err
		}
		kib += n
		monitors++
	}
	if monitors != o.crowd {
		return fmt.Errorf("found %d monitors of %d containers", monitors, o.crowd)
	}
	verdict := "reached"
	if kib/monitors > 2048 {
		verdict = "**not reached**"
	}
	l.facts = append(l.facts, fmt.Sprintf("Average PSS over %d idle monitors: %.2f MiB (at most 2 MiB: %s).", monitors, float64(kib)/float64(monitors)/1024, verdict))
	rm := l.hull("rm", "-f")
	for i := range o.crowd {
		rm = append(rm, "idle"+strconv.Itoa(i))
	}
	if err := l.must(ctx, l.env, rm); err != nil {
		return err
	}
	left := 0
	for _, p := range procs {
		if l.isMonitor(p) {
			left++
		}
	}
	l.facts = append(l.facts, fmt.Sprintf("Processes of Hull after the last container was removed: %d.", left))
	return nil
}

// pss is the proportional set size of the process whose directory in /proc is p, in KiB.
func pss(p string) (int, error) {
	b, err := os.ReadFile(p + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("%s/smaps_rollup has no Pss", p)
}

// isMonitor says whether the process whose directory in /proc is p is a monitor of ours, by its command line: what
// /proc/PID/exe says of it depends on the mount that it was executed from and on what became of the file since.
func (l *lab) isMonitor(p string) bool {
	args, _ := os.ReadFile(p + "/cmdline")
	return bytes.Contains(args, []byte("/hull-runtime\x00monitor\x00"+l.runDir+"/"))
}
