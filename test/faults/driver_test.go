package faults

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hull/test/rig"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Stage()
	Beside()
	os.Exit(m.Run())
}

// shell is an engine whose hull is a shell, to try the driver itself.
func shell(t *testing.T) *rig.Hull {
	t.Helper()
	rig.Root(t)
	dir := t.TempDir()
	from, err := os.Open(rig.Tool(t, "bash"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(dir+"/hull", os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return &rig.Hull{Dir: dir, Root: dir + "/root", RunDir: dir + "/run", Program: dir + "/hull", Env: []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "D=" + dir + "/x"}}
}

func names(calls []Call) string {
	var b strings.Builder
	for _, c := range calls {
		b.WriteString(c.Name + "\n")
	}
	return b.String()
}

func TestDriverCounts(t *testing.T) {
	h := shell(t)
	d := New(t, h)
	const script = `umask 022; echo a >$D.a; setsid -f hull -c 'echo b >$D.b'; cp $D.a $D.c; while ! [ -s $D.b ]; do :; done`
	r, calls, hit := d.Run(t, nil, "-c", script)
	if r.Code != 0 || hit != nil {
		t.Fatalf("%+v, hit %v", r, hit)
	}
	got := names(calls)
	for _, want := range []string{"openat " + h.Dir + "/x.a", "write " + h.Dir + "/x.a", "clone", "openat " + h.Dir + "/x.b"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q counted, also across setsid; got\n%s", want, got)
		}
	}
	if strings.Contains(got, "x.c") {
		t.Errorf("a program that is not ours was counted:\n%s", got)
	}
}

func TestDriverKillsAndFails(t *testing.T) {
	h := shell(t)
	d := New(t, h)
	const script = `echo a >$D.a && echo b >$D.b && echo c >$D.c`
	_, calls, _ := d.Run(t, nil, "-c", script)
	for at := range len(calls) {
		for _, f := range []*Fault{{At: at + 1, Do: KillCaller}, {At: at + 1, Do: KillAll}} {
			left, _ := filepath.Glob(h.Dir + "/x.*")
			for _, name := range left {
				os.Remove(name)
			}
			r, _, hit := d.Run(t, f, "-c", script)
			if hit == nil || r.Code != 137 {
				t.Errorf("%v: hit %v, exit status %d", f, hit, r.Code)
			}
			if _, err := os.Stat(h.Dir + "/x.c"); at < len(calls)-2 && err == nil {
				t.Errorf("%v: the last file was made nevertheless", f)
			}
		}
	}
	r, _, hit := d.Run(t, &Fault{At: 1, Do: Fail, Errno: unix.ENOSPC}, "-c", script)
	if hit == nil || r.Code == 0 || !strings.Contains(r.Stderr, "No space left") {
		t.Errorf("hit %v, %+v", hit, r)
	}
}

// A process that starts another program is not left behind by the driver's own end.
func TestDriverEnds(t *testing.T) {
	h := shell(t)
	t.Run("inner", func(t *testing.T) {
		d := New(t, h)
		d.Run(t, nil, "-c", "setsid -f hull -c 'sleep 1000; : $D/' >/dev/null 2>&1")
	})
	if left := h.Pids(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
