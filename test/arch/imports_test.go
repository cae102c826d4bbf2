package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"hull/test/rig"
)

// The floors of the house, by the first part of a package's path. Dependencies point down and never back up.
var (
	ground = []string{"archive", "kernel", "state", "ref", "errdef", "trace", "payload", "config"}
	lean   = []string{"monitor", "runtime"}
	nouns  = []string{"image", "registry", "network", "volume", "trash", "builds"}
	faces  = []string{"cli", "client", "api", "cri", "app", "web"}
)

// may says what a part may import of ours beside the ground and itself.
func may(part string) []string {
	switch {
	case part == "cli":
		return []string{"client"}
	case part == "client":
		return nil
	case part == "api":
		return append(slices.Clone(nouns), "engine") // the engine's answers hold their types
	case part == "app":
		return []string{"client"}
	case part == "cri":
		return []string{"engine"}
	case part == "engine":
		return append(slices.Clone(nouns), lean...)
	case part == "build":
		return append(slices.Clone(nouns), append(lean, "engine")...)
	case slices.Contains(nouns, part), slices.Contains(ground, part):
		return nil
	case slices.Contains(lean, part):
		return lean
	}
	return nil
}

// only says which parts may import a library of others, for those that would carry one layer's words into another.
var only = map[string][]string{
	"github.com/moby/moby/api":       {"cli", "client", "api"}, // wire types stay in the faces
	"github.com/spf13/cobra":         {"cli"},
	"github.com/pelletier/go-toml":   {"config"},
	"github.com/opencontainers/runc": {},
	"github.com/docker/docker":       {},
	"github.com/sirupsen/logrus":     {},
}

type pkg struct {
	ImportPath string
	Standard   bool
	Name, Dir  string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// list asks go for packages as the product builds them.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Name,Dir,Imports,Deps,GoFiles"}, args...)...)
	cmd.Dir = rig.Source(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// part is the first element of one of our import paths.
func part(importPath string) (string, bool) {
	rel, ours := strings.CutPrefix(importPath, "hull/")
	first, _, _ := strings.Cut(rel, "/")
	return first, ours
}

func TestImports(t *testing.T) {
	for _, p := range list(t, "./...") {
		from, _ := part(p.ImportPath)
		// Mains wire, tests look everywhere.
		if from == "cmd" || from == "test" || from == "bench" || from == "docs" {
			continue
		}
		if !slices.Contains(slices.Concat(ground, lean, nouns, faces, []string{"engine", "build"}), from) {
			t.Errorf("%s is in no part of the house: add it to this test and to the architecture, or move it", p.ImportPath)
		}
		for _, imp := range p.Imports {
			if to, ours := part(imp); ours {
				if to != from && !slices.Contains(ground, to) && !slices.Contains(may(from), to) {
					t.Errorf("%s imports %s: %s may import %v and the ground %v", p.ImportPath, imp, from, may(from), ground)
				}
				continue
			}
			for lib, parts := range only {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(parts, from) {
					t.Errorf("%s imports %s, which only %v may", p.ImportPath, imp, parts)
				}
			}
		}
	}
}
