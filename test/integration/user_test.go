package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hull/test/rig"
)

// nobodys is a user id that no Debian gives out.
const nobodys = 23456

// unprivileged is an engine of a user without any right, an empty home and no login session; setup runs as root in
// a mount namespace of the command's own before.
func unprivileged(t *testing.T, setup string) *rig.Hull {
	t.Helper()
	rig.Root(t) // to become somebody else
	if rig.Guest() {
		t.Skip("busybox's setpriv becomes nobody else")
	}
	setpriv, unshare := rig.Tool(t, "setpriv"), rig.Tool(t, "unshare")
	h := rig.Engine(t)
	for _, dir := range []string{h.Dir, h.Dir + "/home"} {
		if err := os.Chown(dir, nobodys, nobodys); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The tree may lie where only root can go.
	if err := copyFile(h.Program, h.Dir+"/hull"); err != nil {
		t.Fatal(err)
	}
	h.Program = h.Dir + "/hull"
	h.Through = []string{unshare, "-m", "sh", "-c", setup + "\nexec " + setpriv + ` --reuid 23456 --regid 23456 --clear-groups "$@"`, "sh"}
	return h
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// public makes an archive readable for everybody.
func public(t *testing.T, h *rig.Hull, archive string) string {
	t.Helper()
	to := filepath.Join(h.Dir, "archive.tar")
	if err := copyFile(archive, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// basics is what every user may do.
func basics(t *testing.T, h *rig.Hull) {
	t.Helper()
	if got := h.Must(t, "run", "--rm", "--network", "none", "busybox", "id", "-u"); got != "0" {
		t.Errorf("want to be root inside, got uid %q", got)
	}
	if r := h.Run(t, "run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo x >/f && cat /f && exit 9"); r.Code != 9 || r.Stdout != "x\n" {
		t.Errorf("write and exit status: %+v", r)
	}
	if r := h.Run(t, "run", "--rm", "--network", "host", "busybox", "true"); r.Code != 0 {
		t.Errorf("--network host: %+v", r)
	}
	h.Must(t, "run", "-d", "--name", "mine", "--network", "none", "busybox", "sleep", "1000")
	if got := h.Must(t, "exec", "mine", "cat", "/proc/1/comm"); got != "sleep" {
		t.Errorf("exec: %q", got)
	}
	if got := h.Must(t, "ps", "--format", "{{.Names}} {{.State}}"); got != "mine running" {
		t.Errorf("ps: %q", got)
	}
	h.Must(t, "exec", "mine", "touch", "/made")
	if got := h.Must(t, "diff", "mine"); got != "A /made" {
		t.Errorf("diff: %q", got)
	}
	h.Must(t, "commit", "mine", "kept:1")
	h.Must(t, "run", "--rm", "--network", "none", "kept:1", "test", "-e", "/made")
	h.Must(t, "rmi", "kept:1")
	if got := h.Must(t, "run", "--rm", "--network", "none", "--pid", "host", "busybox", "cat", "/proc/1/comm"); got == "cat" {
		t.Errorf("--pid host: it is process 1")
	}
	for want, args := range map[string][]string{
		"no right to join the namespaces of another": {"--network", "container:mine"},
		"under their own names only":                 {"--device", "/dev/null:/dev/other"},
		"no bridge network":                          {"--network", "bridge"},
		"only root can run":                          {"--network", "none", "--runtime", "runc"},
		"this user has too few ids":                  {"--network", "none", "--user", "4000000000"},
	} {
		r := h.Run(t, slices.Concat([]string{"run", "--rm"}, args, []string{"busybox", "true"})...)
		if r.Code != 125 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%v: want %q, got %+v", args, want, r)
		}
	}
	h.Must(t, "stop", "-t", "0", "mine")
	h.Must(t, "rm", "mine")
}

// TestUserSingleID runs containers for a user who has one id and nothing else.
func TestUserSingleID(t *testing.T) {
	h := unprivileged(t, ":")
	h.Load(t, public(t, h, rig.Busybox(t)))
	basics(t, h)
	got := strings.Fields(h.Must(t, "run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/uid_map"))
	if want := fmt.Sprint([]string{"0", fmt.Sprint(nobodys), "1"}); fmt.Sprint(got) != want {
		t.Errorf("want one id mapped %s, got %v", want, got)
	}
	if r := h.Run(t, "doctor"); !strings.Contains(r.Stdout, "subuid") {
		t.Errorf("doctor does not say how to get more ids: %+v", r)
	}
}

// TestUserSubids runs containers for a user with a range in /etc/subuid.
func TestUserSubids(t *testing.T) {
	rig.Tool(t, "newuidmap")
	h := unprivileged(t, `set -e
d=$(mktemp -d) && mount -t tmpfs none "$d" && mkdir "$d/upper" "$d/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$d/upper,workdir=$d/work" none /etc
umount -l "$d" && rmdir "$d"
echo hulluser:x:23456:23456::/:/bin/sh >>/etc/passwd
echo hulluser:x:23456: >>/etc/group
echo hulluser:700000:65536 | tee /etc/subuid >/etc/subgid
set +e`)
	h.Load(t, public(t, h, rig.Busybox(t)))
	basics(t, h)
	if got := h.Must(t, "run", "--rm", "--network", "none", "-u", "app", "busybox", "id", "-u"); got != "1000" {
		t.Errorf("another user of the image: %q", got)
	}
	if got := h.Must(t, "run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/uid_map"); !strings.Contains(got, "700000") {
		t.Errorf("the range of /etc/subuid is not used: %q", got)
	}
	// What belongs to a sub-id is out of the user's own reach.
	h.Must(t, "run", "--name", "giver", "--network", "none", "busybox", "sh", "-c", "mkdir -m 700 /d && touch /d/x && chown -R app /d")
	h.Must(t, "rm", "giver")
	h.Must(t, "run", "--rm", "--network", "none", "busybox", "sh", "-c", "mkdir -m 700 /d && touch /d/x && chown -R app /d")
}
