package engine

import (
	"runtime"
	"strings"
	"testing"

	"hull/image"
	"hull/network"
	"hull/ref"
	"hull/registry/registrytest"
)

func TestAMD64Level(t *testing.T) {
	const v2 = "fpu pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
	const v3 = v2 + " fma movbe xsave avx f16c abm bmi1 avx2 bmi2"
	for flags, want := range map[string]string{
		"": "v1", "fpu sse sse2": "v1", v2: "v2", v2 + " avx2": "v2", v3: "v3", v3 + " avx512f": "v3",
		v3 + " avx512f avx512dq avx512cd avx512bw avx512vl": "v4",
		strings.Replace(v3, "pni ", "", 1):                  "v1",
	} {
		if got := amd64Level(strings.Fields(flags)); got != want {
			t.Errorf("%q: want %s, got %s", flags, want, got)
		}
	}
}

func TestForeign(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the expectations are those of amd64")
	}
	const host = ") does not match the detected host platform (linux/amd64/v2) and no specific platform was requested"
	for c, want := range map[[2]string]string{
		{"amd64"}: "", {"amd64", "v1"}: "", {"amd64", "v2"}: "", {"386"}: "",
		{"amd64", "v3"}: "linux/amd64/v3", {"arm64"}: "linux/arm64", {"arm64", "v8"}: "linux/arm64/v8", {"arm", "v7"}: "linux/arm/v7",
	} {
		if want != "" {
			want = "The requested image's platform (" + want + host
		}
		cpu := func() []string { return strings.Fields("pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm") }
		if got := foreign(&image.Config{OS: "linux", Architecture: c[0], Variant: c[1]}, cpu); got != want {
			t.Errorf("%v: want %q, got %q", c, want, got)
		}
	}
}

// TestForeignCreate: an image of another platform that is alone here makes a container, with a warning unless it was asked for.
func TestForeignCreate(t *testing.T) {
	s, layers := shelf(t, registrytest.Options{})
	mine := s.AddImage("app", "", registrytest.Platform{}, nil, layers...)
	risc := s.AddImage("app", "", registrytest.Platform{OS: "linux", Architecture: "riscv64"}, map[string]any{"author": "risc"}, layers...)
	s.AddIndex("app", "all", mine, risc)
	name := s.Addr + "/app:all"
	e := fresh(t)
	create := func(platform string) []string {
		t.Helper()
		_, warnings, err := e.Create(t.Context(), "", &Config{Image: name, Platform: platform, Cmd: []string{"true"}}, &Host{Network: network.None}, false)
		if err != nil {
			t.Fatal(err)
		}
		return warnings
	}
	pull := func(platform string, fresh bool) {
		t.Helper()
		err := e.PullImage(t.Context(), s.Addr+"/app", "all", PullOptions{Platform: platform, Done: func(p image.Pulled, _ ref.Ref) {
			if p.New != fresh {
				t.Errorf("a pull for %q: want new %v", platform, fresh)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	pull("linux/riscv64", true)
	if w := create(""); len(w) != 1 || !strings.HasPrefix(w[0], "The requested image's platform (linux/riscv64) does not match the detected host platform (linux/"+runtime.GOARCH) {
		t.Errorf("%q", w)
	}
	if w := create("linux/riscv64"); len(w) > 0 {
		t.Errorf("asked for, and warned: %q", w)
	}
	// All its layers are here, and still it is another image.
	pull("", true)
	pull("", false)
	pull("linux/riscv64", false)
	if w := create(""); len(w) > 0 {
		t.Errorf("for this machine, and warned: %q", w)
	}
}
