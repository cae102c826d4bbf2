package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/cli"
	"hull/engine"
)

func TestDirectories(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/4711")
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("HOME", "/home/somebody")
	wantRoot, wantRun := "/home/somebody/.local/share/hull", "/run/user/4711/hull"
	if os.Geteuid() == 0 {
		wantRoot, wantRun = engine.DefaultRoot, engine.DefaultRun
	}
	if root, run, err := directories(cli.Store{}); err != nil || root != wantRoot || run != wantRun {
		t.Errorf("want %s and %s, got %s and %s, %v", wantRoot, wantRun, root, run, err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if root, run, err := directories(cli.Store{Root: "a", Run: "/b/../c"}); err != nil || root != filepath.Join(here, "a") || run != "/c" {
		t.Errorf("chosen: got %s and %s, %v", root, run, err)
	}
}

// TestPrivate: what another user, or a link, could have put there is not taken.
func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	uid := os.Geteuid()
	made := filepath.Join(dir, "made")
	if err := os.Mkdir(made, 0o700); err != nil {
		t.Fatal(err)
	}
	if !private(made, uid) {
		t.Error("a directory of 0700 of our own is not taken")
	}
	if private(made, uid+1) {
		t.Error("a directory of another user is taken")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(made, link); err != nil {
		t.Fatal(err)
	}
	if private(link, uid) {
		t.Error("a link is taken")
	}
	if err := os.Chmod(made, 0o770); err != nil {
		t.Fatal(err)
	}
	if private(made, uid) {
		t.Error("a directory of the group is taken")
	}
}

func TestBuild(t *testing.T) {
	defer func(v, c string) { version, commit = v, c }(version, commit)
	version, commit = "", ""
	if v, _ := build(); v != "dev" {
		t.Errorf("without the linker's word: want dev, got %s", v)
	}
	version, commit = "1.2", "abc"
	if v, c := build(); strings.Join([]string{v, c}, " ") != "1.2 abc" {
		t.Errorf("got %s %s", v, c)
	}
}
