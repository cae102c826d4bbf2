package image

import (
	"strings"
	"testing"

	"hull/image/tree"
)

// treeWith is the tree of an image with these files, as in tarOf.
func treeWith(t *testing.T, files ...string) *tree.Tree {
	t.Helper()
	s := newStore(t)
	smp := newSample(t, "x")
	smp.layers = append(smp.layers, tarOf(t, files...))
	smp.config.RootFS.DiffIDs = append(smp.config.RootFS.DiffIDs, sumOf(smp.layers[2]))
	smp.config.History = append(smp.config.History, History{CreatedBy: "COPY"})
	load(t, s, smp.docker(t, "app"))
	return treeOf(resolve(t, s, "app"))
}

func TestRunsAsRoot(t *testing.T) {
	none := treeWith(t)
	passwd := treeWith(t, "etc/passwd", "daemon:x:1:1::/:\ntoor:x:0:0::/:\nzeros:x:00:5::/:\nshort\nbroken:x:x:1::/:\n"+
		"twice:x:7:7::/:\ntwice:x:0:0::/:\nlast:x:0:0::/:")
	other := treeWith(t, "etc/passwd", "root:x:1000:1000::/:\n")
	// What a link leads to is the image's own, not this machine's, whose passwd has a root.
	link := treeWith(t, "etc/passwd->../../../usr/users", "", "usr/", "", "usr/users", "alias:x:0:0::/:\n")
	away := treeWith(t, "etc/passwd->/proc/self/root/etc/passwd", "")
	dir := treeWith(t, "etc/passwd/", "")
	loop := treeWith(t, "etc/passwd->passwd", "")
	long := treeWith(t, "etc/passwd", strings.Repeat("x", maxPasswd+1))
	for _, tt := range []struct {
		in   *tree.Tree
		user string
		want string // part of the reason; "" if it is not root
	}{
		{none, "", "not set"},
		{none, "0", "user is 0"},
		{none, "00:7", "user is 00:7"},
		{none, "0:1000", "user is 0:1000"},
		{none, ":5", "user is :5"},
		{none, "root:root", "user is root:root"},
		{none, "1000:0", ""},
		{none, "app", ""},
		{passwd, "toor", "toor, who is root in /etc/passwd"},
		{passwd, "toor:1000", "who is root"},
		{passwd, "zeros", "who is root"},
		{passwd, "short", "who is root"},
		{passwd, "broken", "who is root"},
		{passwd, "twice", "who is root"},
		{passwd, "last", "who is root"},
		{passwd, "daemon", ""},
		{passwd, "toorx", ""},
		{passwd, "root", "user is root"},
		{passwd, "1", ""},
		{other, "root", ""},
		{other, "0", "user is 0"},
		{link, "alias", "who is root"},
		{link, "root", "user is root"},
		{away, "bin", ""},
		{dir, "app", "no regular file"},
		{loop, "app", "too many levels"},
		{long, "app", "too long"},
	} {
		got := runsAsRoot(tt.in, tt.user)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("user %q: want %q, got %q", tt.user, tt.want, got)
		}
	}
}
