package faults

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/registry/registrytest"
	"hull/test/rig"
)

// TestEveryCallOfRepair kills or fails `system check --repair`, of a store that is whole and of one with damage of each kind.
// What is whole is never put aside; after each, one repair makes all good, and nothing of ours is left.
func TestEveryCallOfRepair(t *testing.T) {
	rig.Root(t)
	image := rig.Layered(t)
	image.Tag = registrytest.New(t, registrytest.Options{}).Addr + "/team/app:1"
	archive := image.OCI(t)
	other := rig.Engine(t)
	other.Load(t, archive)
	other.Must(t, "push", "-q", "--compress", "none", image.Tag)
	for _, harm := range []func(*testing.T, *rig.Hull){nil, spoil} {
		name := "whole"
		if harm != nil {
			name = "damaged"
		}
		t.Run(name, func(t *testing.T) {
			h := rig.Engine(t)
			h.Env = append(h.Env, "HULL_TEST_NETWORK="+os.Getenv("HULL_TEST_NETWORK")) // the stage stays where the registry is
			h.Must(t, "pull", "-q", image.Tag)
			h.Must(t, "system", "check", "--repair") // makes the directory quarantine
			h.Mark(t)
			d := New(t, h)
			disturb(t, func(f *Fault) (int, *Call) {
				if harm != nil {
					harm(t, h)
				}
				r, calls, hit := d.Run(t, f, "system", "check", "--repair")
				if f == nil && r.Code != 0 {
					t.Fatalf("undisturbed: %+v", r)
				}
				if msg := wholeAfter(t, h, image.Tag, r, harm == nil); msg != "" {
					t.Errorf("%v: %v\n%s\nit had said: exit status %d\n%s%s", f, hit, msg, r.Code, r.Stdout, r.Stderr)
					h.Mark(t)
				}
				return len(calls), hit
			})
		})
	}
}

// spoil does harm of each kind that can be made good: a blob cut short and one that is gone, a file of a layer, a record, a
// name with its log and the index.
func spoil(t *testing.T, h *rig.Hull) {
	t.Helper()
	one := func(pattern string) string {
		list, err := filepath.Glob(filepath.Join(h.Root, pattern))
		if err != nil || len(list) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		return list[0]
	}
	record := one("images/[0-9a-f]*")
	config := filepath.Join(h.Root, "blobs/sha256", filepath.Base(record))
	err := errors.Join(
		os.Truncate(largest(t, filepath.Join(h.Root, "blobs/sha256")), 10),
		os.Remove(config),
		os.WriteFile(one("layers/[0-9a-f]*/fs")+"/evil", nil, 0o600),
		os.Truncate(record, 3),
		os.WriteFile(one("refs/*/team/app/:1"), []byte("garbage"), 0o600),
		os.WriteFile(filepath.Join(h.Root, "index.json"), []byte("garbage"), 0o600),
		appendLine(one("refs.log/*/team/app/:1"), "garbage"),
	)
	if err != nil {
		t.Fatal(err)
	}
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

// largest is the file of a directory that has the most bytes: of blobs, a layer.
func largest(t *testing.T, dir string) (path string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	most := int64(-1)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.Size() > most {
			path, most = filepath.Join(dir, e.Name()), fi.Size()
		}
	}
	return path
}

// wholeAfter does what a person would do next and says what is wrong, or nothing.
func wholeAfter(t *testing.T, h *rig.Hull, tag string, r rig.Result, untouched bool) string {
	t.Helper()
	aside, err := filepath.Glob(filepath.Join(h.Root, "quarantine/*"))
	if err != nil {
		t.Fatal(err)
	}
	if untouched {
		for line := range strings.Lines(r.Stdout) {
			if !strings.HasPrefix(line, "  ") && !strings.Contains(line, "could not be checked") && line != "The store is whole.\n" {
				return "of a store that is whole it says: " + line
			}
		}
		if len(aside) > 0 {
			return "what was whole was put aside: " + strings.Join(aside, " ")
		}
	}
	if r := h.Run(t, "system", "check", "--repair"); r.Code != 0 {
		return "the next repair does not make it good: " + r.Stdout + r.Stderr
	}
	if r := h.Run(t, "system", "check"); r.Code != 0 || r.Stdout != "The store is whole.\n" {
		return "after it: " + r.Stdout + r.Stderr
	}
	run := h.Run(t, "run", "--rm", "--network", "none", "--pull", "never", tag, "cat /srv/a /opt/new; ls /srv")
	if run.Code != 0 || run.Stdout != "second\nnew\na\nb\nc\n" {
		return "the image is not as it was: " + run.Stdout + run.Stderr
	}
	if aside, err = filepath.Glob(filepath.Join(h.Root, "quarantine/*")); err != nil {
		t.Fatal(err)
	}
	for _, path := range aside {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(h.Difference(), "\n")
}
