package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	all := files()
	for path, wants := range map[string][]string{
		"man/man1/hull.1":              {".SH SYNOPSIS", `\fBhull\-run(1)\fR`, ".SH EXIT\\-STATUS", `HULL_ROOT`},
		"man/man1/hull-run.1":          {`hull\-run \- Create and run`, `\-\-name`, `\-d, \-\-detach`},
		"man/man1/hull-container-ls.1": {`hull container ls [OPTIONS]`},
		"man/man7/hull-format.7":       {`{{json .}}`, `\et{{.Status}}`},
		"completions/hull.bash":        {"__complete"},
		"completions/_hull":            {"#compdef hull"},
		"completions/hull.fish":        {"complete -c hull"},
	} {
		for _, want := range wants {
			if !bytes.Contains(all[path], []byte(strings.ReplaceAll(want, "EXIT\\-", "EXIT-"))) {
				t.Errorf("%s has no %q:\n%.600s", path, want, all[path])
			}
		}
	}
	for path, content := range all {
		if bytes.Contains(content, []byte("\n'")) || strings.HasPrefix(path, "man/") && len(content) < 200 {
			t.Errorf("%s looks wrong:\n%s", path, content)
		}
		if strings.Contains(path, "event-") {
			t.Errorf("%s is of a hidden command", path)
		}
	}
}

// man itself, where there is one, has nothing to complain of.
func TestRoff(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff")
	}
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(dir + "/man/man?/*")
	for _, page := range pages {
		if out, err := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z", page).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", page, err, out)
		}
	}
}
