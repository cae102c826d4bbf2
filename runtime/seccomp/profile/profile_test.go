package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hull/errdef"
	"hull/runtime/seccomp"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// dockerCaps are the capabilities a container has when nobody says anything.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// Whoever changes what is compiled must change version, or machines keep using the old files.
func TestVersion(t *testing.T) {
	const want = "ee5d201e95d539f4"
	sum := sha256.New()
	for _, o := range []Options{
		{Caps: dockerCaps},
		{Caps: dockerCaps, Compat32: true},
		{Caps: relevant[:], Added: []string{"ALL"}},
	} {
		b, err := machine{specs.ArchX86_64, [2]uint64{6, 18}}.compiled(o)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(b)
	}
	if got := hex.EncodeToString(sum.Sum(nil))[:16]; got != want {
		t.Errorf("the compiled profile of version %s changed: raise version and set want to %q", version, got)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/moby/profiles/seccomp").Output()
	if err != nil {
		t.Fatal(err)
	}
	if docker := strings.TrimPrefix(strings.TrimSpace(string(out)), "v"); !strings.HasPrefix(version, docker+"-") {
		t.Errorf("version %s is not of Docker's profile %s", version, docker)
	}
}

// The name of a file covers every capability the profile asks about.
func TestRelevant(t *testing.T) {
	var want []string
	for _, call := range moby.DefaultProfile().Syscalls {
		for _, f := range []*moby.Filter{call.Includes, call.Excludes} {
			if f != nil {
				want = append(want, f.Caps...)
			}
		}
	}
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(want, relevant[:]) {
		t.Errorf("relevant is %q, the profile asks about %q", relevant, want)
	}
}

// Our resolver agrees with Docker's own on this machine.
func TestResolveAsDocker(t *testing.T) {
	m, err := host()
	if err != nil {
		t.Fatal(err)
	}
	for _, caps := range [][]string{nil, dockerCaps, {"CAP_SYS_ADMIN"}, relevant[:]} {
		want, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.resolve(moby.DefaultProfile(), caps)
		if err != nil {
			t.Fatal(err)
		}
		if g, w := marshal(t, got), marshal(t, want); g != w {
			t.Errorf("with %q:\ngot  %s\nwant %s", caps, g, w)
		}
	}
}

func TestFile(t *testing.T) {
	root := t.TempDir()
	o := Options{Caps: dockerCaps}
	path, err := File(root, o)
	if err != nil {
		t.Fatal(err)
	}
	first, err := seccomp.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if before.Size()%8 != 0 || before.Size() > 8<<10 {
		t.Errorf("%d bytes, want a multiple of 8 and at most 8 KiB", before.Size())
	}
	if again, err := File(root, o); err != nil || again != path {
		t.Fatalf("second call: %q, %v", again, err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("an intact file was written again")
	}

	paths := map[string]bool{path: true}
	for _, o := range []Options{
		{Caps: append(slices.Clone(dockerCaps), "CAP_SYS_ADMIN")},
		{Caps: dockerCaps, Added: []string{"CAP_NET_RAW"}},
		{Caps: dockerCaps, Compat32: true},
	} {
		other, err := File(root, o)
		if err != nil {
			t.Fatal(err)
		}
		if paths[other] {
			t.Errorf("%+v shares %s", o, other)
		}
		paths[other] = true
		if b, _ := seccomp.ReadFile(other); string(b) == string(first) {
			t.Errorf("%+v compiled to the same filter", o)
		}
	}

	for what, damage := range map[string]func() error{
		"truncated": func() error { return os.Truncate(path, 800) },
		"empty":     func() error { return os.Truncate(path, 0) },
		"gone":      func() error { return os.Remove(path) },
		"one bit": func() error {
			b := slices.Clone(first)
			b[len(b)/2] ^= 4
			return os.WriteFile(path, b, 0o600)
		},
		"longer": func() error { return os.WriteFile(path, append(slices.Clone(first), make([]byte, 8)...), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := seccomp.ReadFile(path); what != "gone" && !errors.Is(err, errdef.ErrCorrupt) {
			t.Errorf("%s: ReadFile says %v, want damaged", what, err)
		}
		if _, err := File(root, o); err != nil {
			t.Fatal(err)
		}
		if b, err := seccomp.ReadFile(path); err != nil || string(b) != string(first) {
			t.Errorf("%s: not repaired: %v", what, err)
		}
	}
}

func TestFileAtOnce(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			path, err := File(root, Options{Caps: dockerCaps})
			if err == nil {
				_, err = seccomp.ReadFile(path)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	left, err := filepath.Glob(filepath.Join(root, "seccomp", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

func TestParseRelease(t *testing.T) {
	for release, want := range map[string][2]uint64{
		"6.18.44-fc-v657": {6, 18}, "5.10-rc1": {5, 10}, "6.1+": {6, 1}, "4.8.0": {4, 8}, "6.": {}, "x": {}, "6": {}, "": {},
	} {
		got, err := parseRelease(release)
		if ok := want != [2]uint64{}; ok != (err == nil) || ok && got != want {
			t.Errorf("%q: %v, %v", release, got, err)
		}
	}
}

func TestParseRefused(t *testing.T) {
	for _, text := range []string{
		`{`,
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[null]}`,
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"}]}`,
		`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`,
	} {
		if _, err := Parse([]byte(text), Options{}); !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%s: %v, want an invalid argument", text, err)
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
