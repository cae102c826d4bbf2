package attack

import (
	"archive/tar"
	"os"
	"slices"
	"strings"
	"testing"

	"hull/runtime/seccomp"
	"hull/runtime/seccomp/profile"
	"hull/runtime/seccomp/seccomptest"
	"hull/test/rig"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A21, A22: sockets of families that lead into rarely used parts of the kernel, asked for in every way a processor
// offers. Must: EPERM or ENOSYS for all but UNIX, INET, INET6 and NETLINK. A22's AF_ALG is not in every kernel, but
// the refusal comes before the kernel looks for it.
func TestA21Sockets(t *testing.T) {
	h := target(t)
	for _, args := range [][]string{{"target"}, {"--userns", "host", "target"}, {"--cap-add", "SYS_ADMIN", "target"}} {
		held(t, h.Must(t, append(append([]string{"run", "--rm", "--network", "none"}, args...), "attacker", "sockets")...))
	}
	c := detached(t, h, "target", "sleep", "1000")
	held(t, h.Must(t, "exec", c, "attacker", "sockets"))

	// The control: Docker's own profile in runc leaves forty families open, and all of them through socketcall.
	b := newBundle(t, "/bin/attacker", "sockets")
	s, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: b.spec.Process.Capabilities}})
	if err != nil {
		t.Fatal(err)
	}
	b.spec.Linux.Seccomp = s
	if out, ok := b.runc(t); ok && (!strings.Contains(out, "family 40 through another interface") || !strings.Contains(out, "socket family 3 ")) {
		t.Error("control: Docker's profile with runc let nothing through: the test cannot fail")
	}
}

// A21 in an image with 32-bit programs: their system calls work, and still no family comes in through socketcall.
func TestA21Loader(t *testing.T) {
	h := rig.Engine(t)
	program, err := os.ReadFile(seccomptest.Sweep(t))
	if err != nil {
		t.Fatal(err)
	}
	load(t, h, "loader", nil, rig.File{Name: "lib/", Mode: 0o755}, rig.File{Name: "lib/ld-linux.so.2", Type: tar.TypeSymlink, Link: "i386-linux-gnu/ld-linux.so.2"},
		rig.File{Name: "bin/sweep", Mode: 0o755, Data: string(program)})
	compareVerdicts(t, h, profile.Options{Caps: dockerCaps, Compat32: true}, "loader")
	for _, line := range successes(h.Must(t, "run", "--rm", "--network", "none", "loader", "attacker", "sockets")) {
		// i386's own socket(2) is filtered as x86_64's is, and makes the sockets everybody may have.
		if !slices.Contains([]string{"1", "2", "10", "16"}, strings.Fields(line)[3]) {
			t.Error(line)
		}
	}
}

// --cap-add NET_RAW, by name, opens AF_PACKET and nothing else.
func TestA21Packet(t *testing.T) {
	h := target(t)
	out := h.Must(t, "run", "--rm", "--network", "none", "--cap-add", "NET_RAW", "target", "attacker", "sockets")
	packet := 0
	for _, line := range successes(out) {
		if strings.Contains(line, "socket family 17 kind") {
			packet++
		} else {
			t.Error(line)
		}
	}
	if packet == 0 {
		t.Error("AF_PACKET stays closed although NET_RAW was added by name")
	}
}

// A23, A24: every system call, on all interfaces, in containers as hull run starts them. Must: the verdicts of the
// reviewed default profile (runtime/seccomp/profile/testdata/verdicts.txt), unless privileged.
func TestA24EverySystemCall(t *testing.T) {
	rig.Root(t)
	program, err := os.ReadFile(seccomptest.Sweep(t))
	if err != nil {
		t.Fatal(err)
	}
	h := target(t, rig.File{Name: "bin/sweep", Mode: 0o755, Data: string(program)})
	for _, c := range []struct {
		name string
		args []string
		o    profile.Options
	}{
		{"default", nil, profile.Options{Caps: dockerCaps}},
		{"userns=host", []string{"--userns", "host"}, profile.Options{Caps: dockerCaps}},
		{"SYS_ADMIN", []string{"--cap-add", "SYS_ADMIN"}, profile.Options{Caps: append(dockerCaps[:len(dockerCaps):len(dockerCaps)], "CAP_SYS_ADMIN"), Added: []string{"CAP_SYS_ADMIN"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compareVerdicts(t, h, c.o, append(c.args, "target")...)
		})
	}
	t.Run("privileged", func(t *testing.T) {
		cmd := h.Cmd(t, "run", "--rm", "-i", "--network", "none", "--privileged", "target", "sweep")
		for q, got := range seccomptest.Ask(t, cmd, seccomptest.Questions()) {
			if got != "allow" {
				t.Errorf("%s: %s, want no filter at all", q, got)
				break
			}
		}
	})
}

// compareVerdicts sweeps the system calls in a container started with args, the last of which is the image.
func compareVerdicts(t *testing.T, h *rig.Hull, o profile.Options, args ...string) {
	t.Helper()
	s, err := profile.Default(o)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := seccomp.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Cmd(t, append(append([]string{"run", "--rm", "-i", "--network", "none"}, args...), "sweep")...)
	wrong := 0
	for q, got := range seccomptest.Ask(t, cmd, seccomptest.Questions()) {
		if want := seccomptest.Answer(t, p.Filter, q); got != want {
			if wrong++; wrong < 20 {
				t.Errorf("%s: %s, want %s", q, got, want)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d verdicts differ", wrong)
	}
}
