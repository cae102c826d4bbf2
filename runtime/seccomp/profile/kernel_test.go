package profile

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"hull/runtime/seccomp"
	"hull/runtime/seccomp/seccomptest"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func nameOf(q seccomptest.Question) string {
	d := q.Data()
	name, _ := seccomp.Name(d.Arch, d.Nr)
	return name
}

func compiledFor(t *testing.T, s *specs.LinuxSeccomp) *seccomp.Program {
	t.Helper()
	p, _, err := seccomp.CompileFor(s, specs.ArchX86_64)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The kernel loads the default filters and says what our interpreter says. No privilege is needed.
func TestKernel(t *testing.T) {
	program := seccomptest.Sweep(t)
	m, err := host()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"default":   {Caps: dockerCaps},
		"compat32":  {Caps: dockerCaps, Compat32: true},
		"every cap": {Caps: relevant[:], Compat32: true},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := File(t.TempDir(), o)
			if err != nil {
				t.Fatal(err)
			}
			s, err := m.harden(moby.DefaultProfile(), o)
			if err != nil {
				t.Fatal(err)
			}
			p := compiledFor(t, s)
			for q, got := range seccomptest.Ask(t, exec.Command(program, path), seccomptest.Questions()) {
				if want := seccomptest.Answer(t, p.Filter, q); got != want {
					t.Errorf("%s: the kernel says %s, the interpreter %s", q, got, want)
				}
			}
		})
	}
}

// runc, with libseccomp, makes of Docker's profile what we make of it. Where it differs each difference has a reason.
func TestAsRunc(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("runc needs root")
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	program := seccomptest.Sweep(t)
	m, err := host()
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.resolve(moby.DefaultProfile(), dockerCaps)
	if err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	id := "hull-test-" + filepath.Base(filepath.Dir(bundle))
	writeBundle(t, bundle, program, s)
	t.Cleanup(func() { exec.Command(runc, "--root", bundle+"/state", "delete", "--force", id).Run() })
	answers := seccomptest.Ask(t, exec.Command(runc, "--root", bundle+"/state", "run", "--bundle", bundle, id), seccomptest.Questions())

	p := compiledFor(t, s)
	newest := newestOf(answers)
	differ := 0
	for _, q := range seccomptest.Questions() {
		got, theirs := seccomptest.Answer(t, p.Filter, q), answers[q]
		switch {
		case got == theirs:
		case theirs == "1" && got == "38" && nameOf(q) == "":
			differ++ // a number that is no call: runc says EPERM below the newest of the profile
		case q.Nr > newest && (theirs == "38" || q.ABI == "x32" && theirs == "1"):
			differ++ // its libseccomp does not know the call; x32's numbers go up to 547 of old
		default:
			t.Errorf("%s: ours %s, runc's %s", q, got, theirs)
		}
	}
	if differ > len(seccomptest.Questions())/5 {
		t.Errorf("%d of %d verdicts could not be compared", differ, len(seccomptest.Questions()))
	}
}

// newestOf is the highest native number that runc's filter does not take for newer than the profile.
func newestOf(answers map[seccomptest.Question]string) uint32 {
	var newest uint32
	for q, verdict := range answers {
		if q.ABI == "64" && verdict != "38" {
			newest = max(newest, q.Nr)
		}
	}
	return newest
}

func writeBundle(t *testing.T, bundle, program string, s *specs.LinuxSeccomp) {
	t.Helper()
	spec := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{Args: []string{"/sweep"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}},
			Seccomp:    s,
		},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"rootfs/proc", "state"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(program, filepath.Join(bundle, "rootfs/sweep")); err != nil {
		t.Fatal(err)
	}
}
