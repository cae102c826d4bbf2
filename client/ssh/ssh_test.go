package ssh

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"hull/errdef"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Address
		rest string
	}{
		{"ssh://box/app:1", Address{Host: "box"}, "app:1"},
		{"ssh://ann@box.example/team/app", Address{User: "ann", Host: "box.example"}, "team/app"},
		{"ssh://box:2222/app", Address{Host: "box", Port: "2222"}, "app"},
		{"ssh://ann@corp.example@box/app", Address{User: "ann@corp.example", Host: "box"}, "app"},
		{"ssh://[::1]:22/app", Address{Host: "::1", Port: "22"}, "app"},
		{"ssh://[fe80::1%eth0]/app", Address{Host: "fe80::1%eth0"}, "app"},
		{"ssh://box/reg.example:5000/app:1", Address{Host: "box"}, "reg.example:5000/app:1"},
		{"ssh://box", Address{Host: "box"}, ""},
		{"ssh://My_Alias/app", Address{Host: "My_Alias"}, "app"},
	} {
		got, rest, err := Parse(c.in)
		if err != nil || got != c.want || rest != c.rest {
			t.Errorf("%s: want %+v and %q, got %+v and %q, %v", c.in, c.want, c.rest, got, rest, err)
			continue
		}
		if again, _, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s becomes %s, which is %+v, %v", c.in, got, again, err)
		}
	}
}

// TestParseBad: what ssh or a shell would read as something else than a host, user or port does not get there.
func TestParseBad(t *testing.T) {
	for _, in := range []string{
		"", "box/app", "http://box/app", "ssh://", "ssh:///app", "ssh://@box/app", "ssh://ann@/app",
		"ssh://-oProxyCommand=touch x/app", "ssh://-oProxyCommand=x/app", "ssh://-oProxyCommand=x@box/app", "ssh://ann@-oX/app", "ssh://-/app",
		"ssh://box:/app", "ssh://box:0/app", "ssh://box:65536/app", "ssh://box:22x/app", "ssh://box:-1/app", "ssh://box:+22/app", "ssh://box:022/app",
		"ssh://box:22:23/app", "ssh://::1/app", "ssh://[::1/app", "ssh://[box]/app", "ssh://[::1]22/app", "ssh://[::1]:/app", "ssh://[1.2.3.4]/app",
		"ssh://[fe80::1%$(id)]/app", "ssh://a b/app", "ssh://a`id`/app", "ssh://$(id)/app", "ssh://a;b/app", "ssh://a'b/app", "ssh://a\nb/app", "ssh://b\x00x/app",
		"ssh://a?command=x/app", "ssh://a b@box/app", "ssh://a;id@box/app", "ssh://bücher/app",
	} {
		if a, rest, err := Parse(in); err == nil || !errors.Is(err, errdef.ErrInvalid) {
			t.Errorf("%q is %+v and %q, %v", in, a, rest, err)
		}
	}
	if _, _, err := Parse("ssh://ann:hunter2@box/app"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ssh://ann@[::1]:22/app")
	f.Add("ssh://-oProxyCommand=x/app")
	f.Fuzz(func(t *testing.T, s string) {
		a, _, err := Parse(s)
		if err != nil {
			return
		}
		args := arguments(a, "command")
		for i, arg := range args[:len(args)-2] {
			if !slices.Contains([]string{"-T", "-a", "-x", "-l", "-p", "--"}, arg) && (i == 0 || args[i-1] != "-l" && args[i-1] != "-p") {
				t.Errorf("%q gives ssh the argument %q", s, arg)
			}
		}
		if args[len(args)-3] != "--" || strings.HasPrefix(a.Host, "-") || strings.HasPrefix(a.User, "-") || strings.ContainsAny(a.Host+a.User, " \n'\"`$;&|<>(){}\\") {
			t.Errorf("%q is %+v", s, a)
		}
	})
}

// program puts a program of that name in PATH, for this test.
func program(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
}

func TestArguments(t *testing.T) {
	program(t, `printf '%s\n' "$@"`)
	c, err := Dial(t.Context(), Address{User: "ann", Host: "box", Port: "22"}, Options{Command: "hull registry serve --stdio"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if want := "-T\n-a\n-x\n-l\nann\n-p\n22\n--\nbox\nhull registry serve --stdio\n"; err != nil || string(got) != want {
		t.Errorf("want %q, got %q, %v", want, got, err)
	}
}

// TestExplain: how ssh ended says more than that the connection did.
func TestExplain(t *testing.T) {
	broken := errors.New("the connection broke")
	for _, c := range []struct{ name, script, want string }{
		{"no hull", "echo 'sh: 1: hull: not found' >&2; exit 127", "box has no command hull: sh: 1: hull: not found (install Hull there, or name it in HULL_SSH_COMMAND)"},
		{"not allowed", "echo 'sh: 1: hull: Permission denied' >&2; exit 126", "box cannot execute hull: sh: 1: hull: Permission denied"},
		{"no key", "echo 'ann@box: Permission denied (publickey).' >&2; exit 255", "box does not let you in: ann@box: Permission denied (publickey). (first make this work: ssh -p 22 ann@box true)"},
		{"unknown key", "echo 'Host key verification failed.' >&2; exit 255", "the key of box is not known to ssh, or has changed: Host key verification failed. (look at it with: ssh -p 22 ann@box true)"},
		{"nobody", "echo 'ssh: connect to host box port 22: Connection refused' >&2; exit 255", "ssh cannot reach box, or lost it: ssh: connect to host box port 22: Connection refused"},
		{"old hull", "echo 'unknown command' >&2; exit 1", "hull on box ended with status 1: unknown command"},
		{"banner", "printf 'Welcome to box!\\nEnjoy\\n'; cat >/dev/null", `box says "Welcome to box!" before Hull can: its shell's start-up files must print nothing when nobody logs in (try: ssh -p 22 ann@box true)`},
		{"banner and end", "echo 'This account is not available'; exit 1", `box says "This account is not available" before Hull can: its shell's start-up files must print nothing when nobody logs in (try: ssh -p 22 ann@box true)`},
		{"killed", "kill -9 $$", "ssh to box was ended: signal: killed"},
		{"well", "exit 0", "box ended the connection: the connection broke"},
	} {
		t.Run(c.name, func(t *testing.T) {
			program(t, c.script)
			conn, err := Dial(t.Context(), Address{User: "ann", Host: "box", Port: "22"}, Options{Command: "hull registry serve", Begins: "\x00\x00"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(conn); (err != nil) != strings.HasPrefix(c.name, "banner") {
				t.Errorf("read: %v", err)
			}
			if err := conn.Explain(broken); err == nil || err.Error() != c.want {
				t.Errorf("want %s\ngot  %v", c.want, err)
			}
		})
	}
}

// TestOurEnd: an error of ours, or none, is not explained by how ssh ended after it.
func TestOurEnd(t *testing.T) {
	program(t, "cat; exit 255")
	for _, want := range []error{errors.New("no such image"), nil} {
		conn, err := Dial(t.Context(), Address{Host: "box"}, Options{Command: "hull"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if got := conn.Explain(want); got != want {
			t.Errorf("want %v, got %v", want, got)
		}
	}
}

// TestSay: stderr comes line by line, in bounds, and an ssh that keeps it open does not keep us.
func TestSay(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	program(t, "printf 'one\\r\\n\\ntwo' >&2; head -c 10000 /dev/zero | tr '\\0' x >&2; sleep 1000 </dev/null >/dev/null & echo $! >"+pid)
	t.Cleanup(func() {
		b, err := os.ReadFile(pid)
		n, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	})
	var mu sync.Mutex
	var said []string
	conn, err := Dial(t.Context(), Address{Host: "box"}, Options{Say: func(s string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, s)
	}})
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(conn)
	conn.Close()
	mu.Lock()
	defer mu.Unlock()
	if len(said) < 3 || said[0] != "one" || !strings.HasPrefix(said[1], "twox") || len(said[1]) > maxLine {
		t.Errorf("said %.60q", said)
	}
}

func TestNoSSH(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Dial(t.Context(), Address{Host: "box"}, Options{}); err == nil || !strings.Contains(err.Error(), "install openssh-client") {
		t.Errorf("got %v", err)
	}
	if _, err := Dial(t.Context(), Address{Host: "-oProxyCommand=x"}, Options{}); !errors.Is(err, errdef.ErrInvalid) {
		t.Errorf("an option for a host: %v", err)
	}
}
