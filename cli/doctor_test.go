package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"hull/client"

	"golang.org/x/sys/unix"
)

func TestColours(t *testing.T) {
	const text = "kernel\n  ok    version  Linux\n  fail  cgroups  no\n        okay\n"
	want := "kernel\n  \x1b[32mok\x1b[0m    version  Linux\n  \x1b[31mfail\x1b[0m  cgroups  no\n        okay\n"
	if got := colourLevels(text); got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	for _, tt := range []struct {
		noColor, term string
		want          bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", tt.term)
		master, slave, err := pty()
		if err != nil {
			t.Skip(err)
		}
		if got := newOutput(slave).colours; got != tt.want {
			t.Errorf("NO_COLOR=%q TERM=%s: colours %v", tt.noColor, tt.term, got)
		}
		slave.Close()
		master.Close()
	}
	if f := tempFile(t); newOutput(f).colours {
		t.Error("colours in a file")
	}
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// pty is a terminal: the side that a person sees, and the side a program writes to.
func pty() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func TestDiagnosisText(t *testing.T) {
	d := client.Diagnosis{Kernel: "6.1.0", Root: "/var/lib/hull", UID: 1000, Checks: []client.Check{
		{Group: "kernel", Name: "version", Level: "ok", Found: "Linux 6.1.0 on amd64"},
		{Group: "limits", Name: "cgroups", Level: "warn", Found: "not ours to write", Means: "Limits have no effect.", Do: "Ask systemd."},
	}}
	want := `kernel
  ok    version           Linux 6.1.0 on amd64
limits
  warn  cgroups           not ours to write
                          Limits have no effect.
                          → Ask systemd.

user 1000 on Linux 6.1.0, store /var/lib/hull: containers can run; 1 warning.
`
	if got := diagnosisText(d, 0); got != want {
		t.Errorf("want:\n%s\ngot:\n%s", want, got)
	}
	d.Checks[1].Level = "fail"
	if got := diagnosisText(d, 0); !strings.Contains(got, "cannot run as they should; 1 failure.") {
		t.Errorf("got:\n%s", got)
	}
	for line := range strings.SplitSeq(diagnosisText(d, 48), "\n") {
		if len([]rune(line)) > 48 && !strings.HasPrefix(line, "user") {
			t.Errorf("line longer than 48: %q", line)
		}
	}
}
