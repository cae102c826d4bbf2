package attack

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/test/rig"
)

// target is an engine with the image "target": busybox, the attacker, and what files adds.
func target(t *testing.T, files ...rig.File) *rig.Hull {
	t.Helper()
	h := rig.Engine(t)
	load(t, h, "target", nil, files...)
	return h
}

// load makes the image name; change, if any, gives it a hostile configuration.
func load(t *testing.T, h *rig.Hull, name string, change func(*rig.Image), files ...rig.File) {
	t.Helper()
	b, err := os.ReadFile(attacker(t))
	if err != nil {
		t.Fatal(err)
	}
	base := rig.Layered(t).Layers[0]
	image := &rig.Image{Tag: name + ":latest", Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}, Layers: [][]rig.File{base,
		append([]rig.File{{Name: "bin/attacker", Mode: 0o755, Data: string(b)}, {Name: "vol/", Mode: 0o755}}, files...)}}
	if change != nil {
		change(image)
	}
	h.Load(t, image.Docker(t))
}

// outputOf is what the command wrote, to both streams.
func outputOf(r rig.Result) string { return r.Stdout + r.Stderr }

// detached starts a container that stays and returns its name; it is removed when t ends.
func detached(t *testing.T, h *rig.Hull, args ...string) string {
	t.Helper()
	name := "c" + strconv.FormatInt(time.Now().UnixNano(), 36)
	h.Must(t, append([]string{"run", "-d", "--network", "none", "--name", name}, args...)...)
	t.Cleanup(func() {
		cmd := exec.Command(h.Program, "rm", "-f", name) // h.Run ends with the context of t, which is over
		cmd.Env = h.Env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("rm %s: %v: %s", name, err, out)
		}
	})
	return name
}

// report ends the attacker in the container and returns what it wrote.
func report(t *testing.T, h *rig.Hull, container string) string {
	t.Helper()
	h.Must(t, "kill", "-s", "TERM", container)
	h.Must(t, "wait", container)
	return outputOf(h.Run(t, "logs", container))
}

// often is how many times to try an attack that needs luck: fewer in the emulated guest and with -short.
func often(n int) int {
	if rig.Guest() || testing.Short() {
		return max(n/8, 2)
	}
	return n
}

// A01: the program of the runtime is overwritten through /proc/PID/exe (CVE-2019-5736).
// Must: its content stays, also without a user namespace.
func TestA01RuntimeBinary(t *testing.T) {
	for _, userns := range []string{"", "host"} {
		t.Run("userns="+userns, func(t *testing.T) {
			h := target(t,
				rig.File{Name: "self", Type: tar.TypeSymlink, Link: "/proc/self/exe"},
				rig.File{Name: "script", Mode: 0o755, Data: "#!/proc/self/exe\n"})
			h.Must(t, "run", "--rm", "--network", "none", "target", "true") // extracts the runtime
			before := programs(t, h)
			if len(before) < 2 {
				t.Fatalf("programs %q: want hull and the extracted runtime", before)
			}
			args := []string{"target", "attacker", "exe"}
			if userns != "" {
				args = append([]string{"--userns", userns}, args...)
			}
			c := detached(t, h, args...)
			for i := range often(60) {
				h.Run(t, "exec", c, []string{"/self", "/script", "true"}[i%3])
			}
			h.Run(t, "run", "--rm", "--network", "none", "--entrypoint", "/self", "target")
			h.Run(t, "run", "--rm", "--network", "none", "--entrypoint", "/script", "target")
			out := report(t, h, c)
			t.Log(out)
			held(t, out)
			if after := programs(t, h); !slices.Equal(before, after) {
				t.Errorf("programs are %q, were %q", after, before)
			}
		})
	}
	t.Log("control: runc since 1.0 executes a sealed copy of itself; it has nothing to show here")
}

// programs are the checksums of everything of ours that is executed.
func programs(t *testing.T, h *rig.Hull) []string {
	t.Helper()
	var list []string
	paths := []string{h.Program}
	filepath.WalkDir(h.Root+"/bin", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return nil
	})
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s %x", path, sha256.Sum256(b)))
	}
	return list
}

// A02 as users meet it: -w, the image's WORKDIR, exec -w.
func TestA02WorkingDirectoryOfImage(t *testing.T) {
	_, file := canaries(t)
	h := target(t, rig.File{Name: "link", Type: tar.TypeSymlink, Link: "/proc/self/fd/7/../../.."})
	load(t, h, "cwd", func(i *rig.Image) { i.Dir = "/proc/self/fd/8" })
	c := detached(t, h, "target", "sleep", "1000")
	attack := []string{"attacker", "leak", file}
	tries := [][]string{{"run", "--rm", "--network", "none", "cwd"}}
	for fd := 14 - often(11); fd < 14; fd++ {
		for _, tail := range []string{"", "/../../.."} {
			cwd := fmt.Sprintf("/proc/self/fd/%d%s", fd, tail)
			tries = append(tries, []string{"run", "--rm", "--network", "none", "-w", cwd, "target"}, []string{"exec", "-w", cwd, c})
		}
	}
	for _, cwd := range []string{"/link", "/proc/1/cwd", "/proc/1/root"} {
		tries = append(tries, []string{"run", "--rm", "--network", "none", "-w", cwd, "target"}, []string{"exec", "-w", cwd, c})
	}
	for _, args := range tries {
		if r := h.Run(t, append(args, attack...)...); r.Code == 0 {
			held(t, outputOf(r))
		} else if len(successes(outputOf(r))) > 0 || r.Stderr == "" {
			t.Errorf("%q: exit status %d: %s", args, r.Code, outputOf(r))
		}
	}
}

// A03: descriptors of the engine leak into the container, or can be taken from who enters it (CVE-2016-9962).
// Must: a process has 0, 1 and 2; whoever enters cannot be looked into before it executes.
func TestA03Descriptors(t *testing.T) {
	_, file := canaries(t)
	h := target(t)
	list := `for f in /proc/self/fd/*; do case $f in */0|*/1|*/2) ;; *) readlink $f;; esac; done; echo "# listed"`
	c := detached(t, h, "--cap-add", "SYS_PTRACE", "target", "attacker", "watch", file)
	for _, args := range [][]string{
		{"run", "--rm", "--network", "none", "target"}, {"run", "--rm", "-i", "--network", "none", "target"}, {"exec", c}, {"exec", "-i", c},
	} {
		r := h.Run(t, append(args, "sh", "-c", list)...)
		if r.Code != 0 || !strings.Contains(r.Stdout, "# listed") {
			t.Fatalf("%q: %d %s", args, r.Code, outputOf(r))
		}
		for line := range strings.Lines(r.Stdout) {
			// The shell's own, of the expansion of the pattern and of the script, is gone when readlink looks.
			if line = strings.TrimSpace(line); line != "" && line != "# listed" && !strings.HasPrefix(line, "/proc/") {
				t.Errorf("%q: a descriptor is %s", args, line)
			}
		}
	}
	for range often(40) {
		h.Run(t, "exec", c, "true")
	}
	out := report(t, h, c)
	t.Log(out)
	held(t, out)
}

// A09: the destination of a mount is exchanged for a symlink while a container starts (CVE-2021-30465).
// Must: the mount is inside the container, or the start fails; never is the host's root in it.
func TestA09DestinationExchange(t *testing.T) {
	host, file := canaries(t)
	h := target(t)
	shared, source := t.TempDir(), t.TempDir()
	for _, dir := range []string{shared, source} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(shared+"/a/x", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("../", 12)+host[1:], shared+"/b"); err != nil {
		t.Fatal(err)
	}
	detached(t, h, "-v", shared+":/vol", "target", "attacker", "swap", "/vol")
	before := inventory(t, host)
	starts := often(60)
	started := 0
	for range starts {
		r := h.Run(t, "run", "--rm", "--network", "none", "-v", shared+":/vol", "-v", source+":/vol/a/x", "target", "attacker", "leak", file)
		if r.Code == 0 {
			started++
			held(t, outputOf(r))
		}
	}
	t.Logf("%d of %d starts succeeded", started, starts)
	for _, line := range changes(before, inventory(t, host)) {
		t.Errorf("canary: %s", line)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), host) {
		t.Errorf("something is mounted in %s: %v", host, err)
	}
}

// A12: inheritable capabilities (CVE-2022-24769). Must: CapInh and CapAmb are 0, whoever runs.
func TestA12Inheritable(t *testing.T) {
	h := target(t)
	c := detached(t, h, "target", "sleep", "1000")
	run := []string{"run", "--rm", "--network", "none"}
	for _, args := range [][]string{
		append(run, "target"), append(run, "--cap-add", "ALL", "target"), append(run, "--cap-add", "SYS_ADMIN", "--user", "1000", "target"),
		append(run, "--privileged", "target"), append(run, "--privileged", "--user", "1000", "target"), append(run, "--cap-drop", "ALL", "target"),
		{"exec", c}, {"exec", "--user", "1000", c}, {"exec", "--privileged", c}, {"exec", "--privileged", "--user", "1000", c},
	} {
		status := procStatus(t, h, args...)
		for _, set := range []string{"CapInh", "CapAmb"} {
			if status[set] != "0000000000000000" {
				t.Errorf("%q: %s %s, want none", args, set, status[set])
			}
		}
		if slices.Contains(args, "1000") && status["CapEff"] != "0000000000000000" {
			t.Errorf("%q: an ordinary user has CapEff %s", args, status["CapEff"])
		}
	}
	const docker = "00000000a80425fb"
	if got := procStatus(t, h, append(run, "target")...)["CapBnd"]; got != docker {
		t.Errorf("bounding set %s, want Docker's %s", got, docker)
	}
}

// procStatus is /proc/self/status of the process that args start.
func procStatus(t *testing.T, h *rig.Hull, args ...string) map[string]string {
	t.Helper()
	fields := map[string]string{}
	s := bufio.NewScanner(strings.NewReader(h.Must(t, append(args, "cat", "/proc/self/status")...)))
	for s.Scan() {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok {
			fields[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return fields
}

// A13: supplementary groups (CVE-2022-36109, CVE-2023-25173). Must: those of the image's /etc/group, and the
// effective group is always among them, or a file that denies a group is open to its members.
func TestA13Groups(t *testing.T) {
	h := target(t, rig.File{Name: "denied", Mode: 0o604, Data: "not for group 1000\n"})
	load(t, h, "denied", nil, rig.File{Name: "denied", Mode: 0o707, UID: 1000, Data: "x"})
	c := detached(t, h, "target", "sleep", "1000")
	for _, c := range []struct {
		args []string
		uid  string
		gid  string
		want []string
	}{
		{[]string{"run", "--rm", "--network", "none", "-u", "app", "target"}, "1000", "1000", []string{"1000", "2000"}},
		{[]string{"run", "--rm", "--network", "none", "-u", "1000", "target"}, "1000", "1000", []string{"1000", "2000"}},
		{[]string{"run", "--rm", "--network", "none", "-u", "1000:1000", "target"}, "1000", "1000", []string{"1000"}},
		{[]string{"run", "--rm", "--network", "none", "-u", "app:extra", "target"}, "1000", "2000", []string{"2000"}},
		{[]string{"run", "--rm", "--network", "none", "-u", "4242", "target"}, "4242", "0", []string{"0"}},
		{[]string{"run", "--rm", "--network", "none", "--group-add", "3000", "-u", "4242:7", "target"}, "4242", "7", []string{"3000", "7"}},
		{[]string{"exec", "-u", "app", c}, "1000", "1000", []string{"1000", "2000"}},
		{[]string{"exec", "-u", "1000:1000", c}, "1000", "1000", []string{"1000"}},
	} {
		status := procStatus(t, h, c.args...)
		same := func(list, id string) bool { return list == strings.Join([]string{id, id, id, id}, " ") }
		if !same(status["Uid"], c.uid) || !same(status["Gid"], c.gid) {
			t.Errorf("%q: uid %s gid %s, want %s and %s", c.args, status["Uid"], status["Gid"], c.uid, c.gid)
		}
		got := strings.Fields(status["Groups"])
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: groups %q, want %q", c.args, got, c.want)
		}
	}
}

// A14: users that are no users (CVE-2024-40635, CVE-2016-3697). Must: all digits is never a name, the range is
// 0 to 2^32-2, and nothing else becomes root.
func TestA14Users(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/sh\n1001:x:0:0:a number for a name:/:/bin/sh\n4294967297:x:0:0::/:/bin/sh\n"
	files := []rig.File{{Name: "etc/passwd", Mode: 0o644, Data: passwd}, {Name: "etc/group", Mode: 0o644, Data: "root:x:0:\n77:x:0:\n"}}
	bad := []string{"4294967296", "4294967295", "4294967297", "18446744073709551616", "2147483648:4294967296", "1 ", " 1", "1000000000000:0", "1:2:3",
		"nobody-there", "1:nothing-there", "root\n", "root:x:0:0", ":", "0:", "-1", "0x0"}
	if rig.Guest() {
		bad = bad[:4] // each is an image, a run and an exec
	}
	good := map[string]string{"1001": "1001", "1": "1", "0": "0", "1001:77": "1001"}
	h := target(t, files...)
	image := func(user string) string { return fmt.Sprintf("user-%x", user) }
	for _, user := range append(slices.Collect(maps.Keys(good)), bad...) {
		load(t, h, image(user), func(i *rig.Image) { i.User = user }, files...)
	}
	c := detached(t, h, "target", "sleep", "1000")
	ways := map[string]func(user string) rig.Result{
		"run": func(u string) rig.Result {
			return h.Run(t, "run", "--rm", "--network", "none", "-u", u, "target", "id", "-u")
		},
		"exec": func(u string) rig.Result { return h.Run(t, "exec", "-u", u, c, "id", "-u") },
		"image": func(u string) rig.Result {
			return h.Run(t, "run", "--rm", "--network", "none", image(u), "id", "-u")
		},
	}
	for way, run := range ways {
		for _, user := range bad {
			if r := run(user); r.Code == 0 {
				t.Errorf("%s: user %q is uid %s", way, user, strings.TrimSpace(r.Stdout))
			}
		}
		for user, want := range good {
			if r := run(user); r.Code != 0 || strings.TrimSpace(r.Stdout) != want {
				t.Errorf("%s: user %q: %d %q %s, want uid %s", way, user, r.Code, r.Stdout, r.Stderr, want)
			}
		}
	}
	if got := h.Must(t, "run", "--rm", "--network", "none", "-u", "1001:77", "target", "id", "-g"); got != "77" {
		t.Errorf("group 77 is %s: it was looked up as a name", got)
	}
}

// A16: control groups as a way out (CVE-2022-0492). Must: read-only, no hierarchy of one's own, no new user
// namespace, and the container does not see its place on the host.
func TestA16Cgroups(t *testing.T) {
	h := target(t)
	for _, args := range [][]string{{"target"}, {"--userns", "host", "target"}} {
		out := h.Must(t, append(append([]string{"run", "--rm", "--network", "none"}, args...), "attacker", "cgroup")...)
		held(t, out)
	}
	b, _ := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	for _, agent := range b {
		if text, err := os.ReadFile(agent); err == nil && strings.TrimSpace(string(text)) != "" {
			t.Errorf("%s holds %q", agent, text)
		}
	}
	t.Log("control: runc mounts what the configuration says; the defaults under test are the engine's")
}

// A17: device nodes of the host. Must: the image's nodes do not open, nor do those made inside, nor more of a granted
// device than was granted.
func TestA17DevicesOfEngine(t *testing.T) {
	files := []rig.File{{Name: "dev-evil/", Mode: 0o755}}
	h := target(t, files...)
	for _, args := range [][]string{{"target"}, {"--userns", "host", "target"}, {"--userns", "host", "--cap-add", "MKNOD", "--cap-add", "SYS_RAWIO", "target"}} {
		out := h.Must(t, append(append(append([]string{"run", "--rm", "--network", "none"}, args...), "attacker", "devices"), hostDevices(t)...)...)
		held(t, out)
	}
	script := `head -c1 /dev/given >/dev/null && echo read; (echo x >/dev/given) 2>/dev/null && echo wrote; true`
	if got := h.Must(t, "run", "--rm", "--network", "none", "--device", "/dev/zero:/dev/given:r", "--userns", "host", "target", "sh", "-c", script); !strings.Contains(got, "read") {
		t.Errorf("--device with r: %q, want a readable device", got)
	}
	grant := hostDevices(t)
	t.Logf("devices of this host: %v", grant)
}

// A18: a process enters a container that is going, and its pid is reused. Must: what enters is inside, or there is
// an error; never does the command run on the host.
func TestA18ExecRace(t *testing.T) {
	_, file := canaries(t)
	h := target(t)
	ran := 0
	for i := range often(12) {
		c := detached(t, h, "target", "sleep", "1000")
		done := make(chan rig.Result, 3)
		for range 3 {
			go func() { done <- h.Run(t, "exec", c, "attacker", "leak", file) }()
		}
		time.Sleep(time.Duration(i) * 4 * time.Millisecond)
		h.Run(t, "kill", c)
		for range 3 {
			r := <-done
			for _, line := range successes(outputOf(r)) {
				t.Error(line)
			}
			if r.Code == 0 {
				ran++
			} else if r.Stderr == "" && r.Code != 137 { // 137: it ran, and ended with the container
				t.Errorf("exec failed with status %d and not a word", r.Code)
			}
		}
		if r := h.Run(t, "exec", c, "true"); r.Code == 0 {
			t.Error("exec into a container that has ended succeeded")
		}
	}
	t.Logf("%d execs were in time", ran)
}

// A19: the environment of the image steers helpers of the engine (CVE-2025-23266). Must: no process of ours has it.
func TestA19Environment(t *testing.T) {
	h := rig.Engine(t)
	const mark = "attacked-by-the-image"
	load(t, h, "env", func(i *rig.Image) {
		i.Env = []string{"PATH=/evil:/bin", "LD_PRELOAD=/" + mark, "GODEBUG=" + mark, "HULL_TRACE=" + mark, "HULL_ROOT=/" + mark, "HOME=/" + mark}
	}, rig.File{Name: "evil/", Mode: 0o755}, rig.File{Name: "evil/newuidmap", Mode: 0o755, Data: "#!/bin/sh\ntouch /" + mark + "\n"})
	c := detached(t, h, "env", "sleep", "1000")
	h.Must(t, "exec", c, "true")
	ours := 0
	for _, pid := range h.Pids() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if !strings.Contains(exe, "hull") {
			continue
		}
		ours++
		if strings.Contains(string(environ), mark) {
			t.Errorf("process %d, %s, has the image's environment", pid, exe)
		}
		if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); cwd != "/" && !strings.HasPrefix(cwd, h.Dir) {
			t.Errorf("process %d, %s, sits in %s", pid, exe, cwd)
		}
	}
	if ours == 0 {
		t.Error("no process of ours to look at: where is the monitor?")
	}
}

// A26: abstract sockets are everybody's who shares the network (CVE-2020-15257). Must: the engine has none.
func TestA26AbstractSockets(t *testing.T) {
	h := target(t)
	before := abstractSockets(t)
	c := detached(t, h, "target", "sleep", "1000")
	h.Must(t, "exec", c, "true")
	for _, name := range abstractSockets(t) {
		if !slices.Contains(before, name) {
			t.Errorf("there is a new abstract socket %s", name)
		}
	}
	out := h.Must(t, "run", "--rm", "--network", "host", "target", "cat", "/proc/net/unix")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "@") && strings.Contains(line, "hull") {
			t.Errorf("a container on the host's network sees %s", strings.TrimSpace(line))
		}
	}
	// The sockets there are have a directory of their own that nobody else enters.
	dirs, err := filepath.Glob(h.RunDir + "/containers/*")
	if err != nil || len(dirs) == 0 {
		t.Errorf("no directory of a running container: %v", err)
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v %v, want it closed to others", dir, info.Mode(), err)
		}
	}
}

func abstractSockets(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		if i := strings.Index(line, "@"); i >= 0 {
			list = append(list, strings.TrimSpace(line[i:]))
		}
	}
	return list
}

// A27: what /proc and /sys tell of the host, and what can be switched there. Must: covered or read-only, and the
// covers stay on.
func TestA27Paths(t *testing.T) {
	h := target(t)
	for _, args := range [][]string{{"target"}, {"--userns", "host", "target"}} {
		r := h.Run(t, append(append([]string{"run", "--rm", "--network", "none"}, args...), "sh", "-c", "attacker paths; echo '# done'")...)
		if !strings.Contains(r.Stdout, "# done") {
			t.Errorf("%q: %d %s", args, r.Code, outputOf(r))
		}
		held(t, outputOf(r))
	}
}
