package arch

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hull/test/rig"
)

var update = flag.Bool("update", false, "write testdata/*.deps from what is linked now")

// heavy are packages of the standard library that the lean program does without: each costs package
// initialisation, memory of every idle monitor, or both.
var heavy = []string{"net/http", "net", "crypto/tls", "crypto/x509", "text/template", "html/template", "regexp", "go/ast", "log/slog"}

// TestLinked compares what each program links of others with the reviewed list.
func TestLinked(t *testing.T) {
	for _, program := range []string{"hull-runtime", "hull"} {
		var got []string
		for _, p := range list(t, "-deps", "./cmd/"+program) {
			if _, ours := part(p.ImportPath); !p.Standard && !ours {
				got = append(got, p.ImportPath)
			}
			if program == "hull-runtime" && slices.Contains(heavy, p.ImportPath) {
				t.Errorf("hull-runtime links %s: go list -deps ./cmd/hull-runtime, then cut the import that brings it", p.ImportPath)
			}
		}
		slices.Sort(got)
		file := filepath.Join("testdata", program+".deps")
		if *update {
			if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Fields(string(data))
		for _, dep := range got {
			if !slices.Contains(want, dep) {
				t.Errorf("%s now links %s: is it worth it? measure its initialisation, then run with -update", program, dep)
			}
		}
		for _, dep := range want {
			if !slices.Contains(got, dep) {
				t.Errorf("%s no longer links %s: run with -update", program, dep)
			}
		}
	}
}

// TestInit bounds what runs before main. Allocations, not time: they are the same on every machine.
func TestInit(t *testing.T) {
	for program, bound := range map[string]struct{ one, all int }{
		"hull-runtime": {one: 60, all: 250},
		"hull":         {one: 60, all: 600},
	} {
		cmd := exec.Command(rig.Bin(t, program), "--version")
		cmd.Env = []string{"GODEBUG=inittrace=1"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s --version: %v\n%s", program, err, out)
		}
		all := 0
		for line := range strings.Lines(string(out)) {
			// init net/http @1.1 ms, 0.01 ms clock, 1234 bytes, 5 allocs
			f := strings.Fields(line)
			if len(f) < 10 || f[0] != "init" {
				continue
			}
			allocs, err := strconv.Atoi(f[len(f)-2])
			if err != nil {
				t.Fatalf("cannot read %q", line)
			}
			all += allocs
			if allocs > bound.one {
				t.Errorf("%s: package %s makes %d allocations before main, more than %d", program, f[1], allocs, bound.one)
			}
		}
		if all == 0 || all > bound.all {
			t.Errorf("%s: %d allocations before main, want 1 to %d", program, all, bound.all)
		}
		t.Logf("%s: %d allocations before main", program, all)
	}
}
