package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"hull/errdef"
	"hull/image/tree"
)

func TestCompare(t *testing.T) {
	s := newStore(t)
	newVersions(t, s, "1", "2")
	c, err := s.Compare(t.Context(), "app@{1}", "app")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []string
	for _, x := range c.Config {
		got = append(got, fmt.Sprint(x.Field, " ", x.Key, " ", x.Kind, " ", x.Old, " ", x.New))
	}
	if want := []string{"Labels mark changed 1 2", "Labels " + LabelRevision + " changed r1 r2"}; !slices.Equal(got, want) {
		t.Errorf("want %q, got %q", want, got)
	}
	got = nil
	sum, err := c.Files(t.Context(), func(f *tree.Change) error {
		got = append(got, fmt.Sprint(f.Kind, " ", f.Path, " ", f.What))
		return nil
	})
	if want := []string{"changed /bin/sh [content]", "changed /etc/new [content]"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("want %q, got %q, %v", want, got, err)
	}
	if sum.Changed != 2 || sum.Bytes != 0 || len(sum.Findings) != 1 || sum.Findings[0].Rule != RuleRootUser {
		t.Errorf("got %+v", sum)
	}
	text, err := c.Content("/etc/new")
	if err != nil || !strings.HasSuffix(text, "@@ -1 +1 @@\n-1\n\\ No newline at end of file\n+2\n\\ No newline at end of file\n") {
		t.Errorf("got %s, %v", text, err)
	}
	for path, want := range map[string]error{"/nosuch": errdef.ErrNotFound, "/etc": errdef.ErrInvalid, "/etc/new/x": errdef.ErrInvalid} {
		if _, err := c.Content(path); !errors.Is(err, want) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := s.Compare(t.Context(), "app", "nosuch"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	// Both leases are given back.
	c2, err := s.Compare(t.Context(), "app", "app")
	if err != nil {
		t.Fatal(err)
	}
	c2.Close()
}

func TestFindings(t *testing.T) {
	s := newStore(t)
	old := newSample(t, "x")
	old.config.Run.User, old.config.Run.ExposedPorts = "app", map[string]struct{}{"80/tcp": {}}
	load(t, s, old.docker(t, "old"))
	young := newSample(t, "x")
	young.layers = append(young.layers, tarWithModes(t, map[string]int64{"bin/su": 0o4755, "bin/open": 0o666, "tmp/": 0o1777, "share/": 0o777, "bin/mail": 0o2755, "bin/locked": 0o2644}))
	young.config.RootFS.DiffIDs = append(young.config.RootFS.DiffIDs, sumOf(young.layers[2]))
	young.config.History = append(young.config.History, History{CreatedBy: "COPY su"})
	young.config.Run.User, young.config.Run.Cmd = "0:0", []string{"su"}
	young.config.Run.ExposedPorts = map[string]struct{}{"80/tcp": {}, "22/tcp": {}}
	load(t, s, young.docker(t, "young"))
	c, err := s.Compare(t.Context(), "old", "young")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum, err := c.Files(t.Context(), func(*tree.Change) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range sum.Findings {
		got = append(got, f.Rule+" "+strings.Fields(f.Text)[0])
	}
	slices.Sort(got)
	want := []string{"command Cmd", "ports port", "root-user the", "setuid /bin/mail", "setuid /bin/su", "world-writable /bin/open", "world-writable /share"}
	if !slices.Equal(got, want) {
		t.Errorf("want %q\n got %q", want, got)
	}
}

func tarWithModes(t *testing.T, modes map[string]int64) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		h := &tar.Header{Name: name, Mode: modes[name], Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return buf.Bytes()
}
