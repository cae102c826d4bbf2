package image

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestChangelog(t *testing.T) {
	s := newStore(t)
	status := func(pairs ...string) string {
		var b strings.Builder
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nVersion: %s\n\n", pairs[i], pairs[i+1])
		}
		return b.String()
	}
	make := func(tag string, mark string, layers [][]byte, steps ...string) {
		t.Helper()
		smp := newSample(t, mark)
		smp.layers, smp.config.RootFS.DiffIDs, smp.config.History = layers, nil, nil
		for i, l := range layers {
			smp.config.RootFS.DiffIDs = append(smp.config.RootFS.DiffIDs, sumOf(l))
			smp.config.History = append(smp.config.History, History{CreatedBy: steps[i]}, History{CreatedBy: "ENV x", EmptyLayer: true})
		}
		load(t, s, smp.docker(t, tag))
	}
	base := tarOf(t, "var/lib/dpkg/status", status("libc6", "2.36-9", "curl", "7.88-1", "tool", "2.0"), "etc/hosts", "x")
	moved := tarOf(t, "moved", "m")
	make("old", "1", [][]byte{base, tarOf(t, "opt/gone", "12345"), moved}, "ADD rootfs.tar /", "RUN make gone", "COPY moved /")
	make("new", "2", [][]byte{base, moved, tarOf(t, "var/lib/dpkg/status", status("libc6", "2.36-10", "tool", "1.9", "jq", "1.6"), "app/node_modules/left/package.json", `{"name":"left","version":"1"}`,
		"var/lib/dpkg/status.d/bad", "", "app/node_modules/bad/package.json", "{", "etc/.wh.hosts", "")},
		"ADD rootfs.tar /", "COPY moved /", "RUN /bin/sh -c apt-get install jq # buildkit")
	c, err := s.Compare(t.Context(), "old", "new")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Changelog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range l.Packages {
		got = append(got, fmt.Sprint(p.Kind, " ", p.Name, " ", p.How, " ", p.Old, " ", p.Version))
	}
	want := []string{"deb curl removed 7.88-1 7.88-1", "deb jq added  1.6", "deb libc6 up 2.36-9 2.36-10", "deb tool down 2.0 1.9", "npm left added  1"}
	if !slices.Equal(got, want) {
		t.Errorf("want %q\n got %q", want, got)
	}
	got = nil
	for _, x := range l.Layers {
		got = append(got, fmt.Sprint(x.Removed, " ", x.Step, " ", x.Added, x.Changed, x.Deleted))
	}
	if want := []string{"false RUN apt-get install jq 8 1 1", "true RUN make gone 0 0 0"}; !slices.Equal(got, want) {
		t.Errorf("want %q\n got %q", want, got)
	}
	if l.Layers[1].Size != 5 {
		t.Errorf("got %+v", l.Layers[1])
	}
	if len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "/app/node_modules/bad/package.json") {
		t.Errorf("got %q", l.Notes)
	}
	if !slices.ContainsFunc(l.Files.Findings, func(f Finding) bool { return f.Rule == RuleDowngrade && f.Text == "deb tool was 2.0 and is 1.9" }) {
		t.Errorf("got %+v", l.Files.Findings)
	}
	if len(l.Config) != 1 || l.Config[0].Key != "mark" {
		t.Errorf("got %+v", l.Config)
	}
}

func TestStepText(t *testing.T) {
	for in, want := range map[string]string{
		"/bin/sh -c #(nop)  CMD [\"sh\"]":          `CMD ["sh"]`,
		"/bin/sh -c apt-get update":                "RUN apt-get update",
		"RUN /bin/sh -c apt-get update # buildkit": "RUN apt-get update",
		"": "comment",
	} {
		if got := stepText(History{CreatedBy: in, Comment: "comment"}); got != want {
			t.Errorf("%q: want %q, got %q", in, want, got)
		}
	}
}
